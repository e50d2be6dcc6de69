//! Stream processors: programs that turn layers of other media types, encrypted ones for example, into archives.
//!
//! Here is which processors a layer needs and what they are told; [`process`] runs one. The protocol is containerd's:
//! the stream on standard input and output, a payload (an encoded `Any`) on descriptor 3, the media type of the input in
//! `STREAM_PROCESSOR_MEDIATYPE`, and words on standard error with a status other than zero when it fails.

mod plugin;
mod process;

use std::{collections::BTreeMap, io::Read, sync::Arc};

use kevel_model::{Any, Descriptor, Error, Result};
use kevel_plugin::Kind;
use serde::{Deserialize, Serialize};

pub use plugin::Plugin;
use process::Process;

use crate::layer::check_media_type;

/// Processors whose output goes into another one at most.
const MAX_STEPS: usize = 4;
/// The processors of the image encryption tools; without a payload of the caller's they get one that says which layer
/// it is and leaves the keys to the node.
const OCICRYPT: &str = "io.containerd.ocicrypt.decoder.v1.";
/// The type of that payload.
const OCICRYPT_PAYLOAD: &str = "io.containerd.ocicrypt.v1.Payload";

/// The stream processors of the node: `io.containerd.internal.v1.stream-processors`.
pub enum StreamProcessors {}

impl Kind for StreamProcessors {
    const TYPE: &'static str = "io.containerd.internal.v1";
    type Handle = Processors;
}

/// A table `[stream_processors.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processor {
    /// Media types that it takes.
    pub accepts: Vec<String>,
    /// The media type that it makes of them.
    pub returns: String,
    /// The program; looked for in `PATH` unless it has a slash.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables for it, `NAME=value`, beside the daemon's own.
    pub env: Vec<String>,
}

/// The processors that are configured, by name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Processors(Arc<BTreeMap<String, Processor>>);

/// A layer on its way to the applier.
pub struct Archive {
    /// The bytes.
    pub source: Box<dyn Read + Send>,
    /// What they are now.
    pub media_type: String,
    /// Whether a processor had a hand in it.
    pub processed: bool,
}

impl Processors {
    /// The processors of a configuration; a wrong one is an error that names the key.
    pub fn new(configured: BTreeMap<String, Processor>) -> std::result::Result<Self, String> {
        for (name, processor) in &configured {
            let wrong = |key: &str, why: &str| Err(format!("{name}.{key}: {why}"));
            if processor.accepts.is_empty() {
                return wrong("accepts", "names no media type");
            }
            if processor.returns.is_empty() {
                return wrong("returns", "is empty");
            }
            if processor.path.is_empty() {
                return wrong("path", "is empty");
            }
            if let Some(bad) =
                processor.env.iter().find(|one| one.split_once('=').is_none_or(|(key, _)| key.is_empty()))
            {
                let name = bad.split('=').next().unwrap_or_default();
                return wrong("env", &format!("{name:?} is not NAME=value"));
            }
        }
        Ok(Self(Arc::new(configured)))
    }

    /// Starts whatever is needed to read `layer` as an archive; for an archive that is nothing. `payloads` are what the
    /// processors are told, by their names.
    ///
    /// # Errors
    /// "Unimplemented" for media types that no processor accepts.
    pub fn open(
        &self,
        source: impl Read + Send + 'static,
        layer: &Descriptor,
        payloads: &BTreeMap<String, Any>,
    ) -> Result<Archive> {
        let (mut source, mut media_type): (Box<dyn Read + Send>, _) = (Box::new(source), layer.media_type.clone());
        let mut processed = false;
        for _ in 0..MAX_STEPS {
            let Err(unknown) = check_media_type(&media_type) else {
                return Ok(Archive { source, media_type, processed });
            };
            let found = self.0.iter().find(|(_, one)| one.accepts.contains(&media_type));
            let Some((name, processor)) = found else { return Err(unknown.into()) };
            let payload = payloads.get(name).cloned().or_else(|| own_payload(name, layer));
            tracing::debug!(processor = name, layer = %layer.digest, media_type, "layer goes through a stream processor");
            source = Box::new(Process::start(name, processor, &media_type, payload, source)?);
            media_type.clone_from(&processor.returns);
            processed = true;
        }
        Err(Error::failed_precondition(format!("stream processors make no archive of {:?}", layer.media_type)))
    }

    /// Whether layers of this media type can be read.
    pub fn can_read(&self, media_type: &str) -> bool {
        check_media_type(media_type).is_ok()
            || self.0.values().any(|one| one.accepts.iter().any(|kind| kind == media_type))
    }
}

/// What an image decryption tool has to know when nobody else tells it.
fn own_payload(name: &str, layer: &Descriptor) -> Option<Any> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Payload<'a> {
        decrypt_config: Keys,
        descriptor: &'a Descriptor,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Keys {
        parameters: BTreeMap<String, Vec<String>>,
    }
    name.starts_with(OCICRYPT).then_some(())?;
    let payload = Payload { decrypt_config: Keys { parameters: BTreeMap::new() }, descriptor: layer };
    Some(Any { type_url: OCICRYPT_PAYLOAD.to_owned(), value: serde_json::to_vec(&payload).ok()? })
}

#[cfg(test)]
mod tests;
