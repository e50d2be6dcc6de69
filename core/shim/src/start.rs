//! What a daemon says to `start`: a message since containerd 2.3, before that flags, the environment and the runtime's
//! options alone on standard input.

use std::path::{Path, PathBuf};

use kevel_proto::{any, shim::bootstrap::BootstrapParams};
use prost::{Message, Name};
use prost_types::Any;

use crate::{Error, Facts};

/// Which answer the daemon understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The address alone: containerd before 1.7.
    Plain,
    /// JSON of version 2: containerd 1.7 to 2.2.
    Json,
    /// A message, of version 3.
    Message,
}

/// What a shim is started for.
#[derive(Clone, Debug)]
pub struct Start {
    /// What the command line and the environment say, completed by the message.
    pub facts: Facts,
    /// The bundle: the working directory.
    pub bundle: PathBuf,
    /// Where the socket is to be made.
    pub socket_dir: PathBuf,
    /// The runtime's options, and whatever else a newer daemon adds.
    pub extensions: Vec<Any>,
    pub(crate) dialect: Dialect,
}

/// Where sockets are made when the daemon does not say.
const SOCKET_DIR: &str = "/run/containerd/s";

impl Start {
    /// Puts together what was said. The first fields of both kinds of input have the same form, so that only the id tells
    /// them apart; a message for another id is an error, not options.
    pub(crate) fn read(facts: Facts, bundle: &Path, input: &[u8]) -> Result<Self, Error> {
        let mut start = Self {
            dialect: if facts.max_version.is_some() { Dialect::Json } else { Dialect::Plain },
            bundle: bundle.to_owned(),
            socket_dir: SOCKET_DIR.into(),
            extensions: Vec::new(),
            facts,
        };
        if input.is_empty() {
            return Ok(start);
        }
        let params = BootstrapParams::decode(input).ok();
        match params {
            Some(params) if start.is_for(&params) => start.take(params)?,
            _ => {
                let options = Any::decode(input);
                let options = options.map_err(|error| Error::Parameters(format!("neither of both forms: {error}")))?;
                start.extensions.push(options);
            }
        }
        Ok(start)
    }

    /// Whether this is a message at all: one that names our id, or has what options do not have.
    fn is_for(&self, params: &BootstrapParams) -> bool {
        params.instance_id == self.facts.id
            || !params.containerd_grpc_address.is_empty()
            || !params.containerd_ttrpc_address.is_empty()
    }

    fn take(&mut self, params: BootstrapParams) -> Result<(), Error> {
        let facts = &mut self.facts;
        for (field, flag, said) in
            [("instance_id", &facts.id, &params.instance_id), ("namespace", &facts.namespace, &params.namespace)]
        {
            if flag != said {
                return Err(Error::Parameters(format!("{field} is {said:?}, but the command line says {flag:?}")));
            }
        }
        for (have, said) in [
            (&mut facts.ttrpc_address, params.containerd_ttrpc_address),
            (&mut facts.address, params.containerd_grpc_address),
            (&mut facts.publish_binary, params.containerd_binary),
        ] {
            if !said.is_empty() {
                *have = said;
            }
        }
        // Levels go up in steps of four from trace (-8); debug and below say more.
        facts.debug |= params.log_level <= -4;
        if let Some(dir) = params.socket_dir.filter(|dir| !dir.is_empty()) {
            if !dir.starts_with('/') {
                return Err(Error::Parameters(format!("socket_dir {dir:?} is no absolute path")));
            }
            self.socket_dir = dir.into();
        }
        self.extensions = params.extensions.into_iter().filter_map(|extension| extension.value).collect();
        self.dialect = Dialect::Message;
        Ok(())
    }

    /// The extension of a type, if there is one.
    ///
    /// # Errors
    /// When there is one that is no such message.
    pub fn extension<M: Message + Name + Default>(&self) -> Result<Option<M>, Error> {
        let found = self.extensions.iter().find(|extension| any::is::<M>(extension));
        let message = found.map(any::unpack).transpose();
        message.map_err(|error| Error::Parameters(format!("{}: {error}", M::full_name())))
    }
}

#[cfg(test)]
mod tests {
    use kevel_proto::{containerd::runc::v1::Options, shim::bootstrap::Extension};
    use proptest::prelude::*;

    use super::*;

    fn facts() -> Facts {
        Facts { id: "a".into(), namespace: "n".into(), ..Facts::default() }
    }

    fn params() -> BootstrapParams {
        let options = any::pack(&Options { root: "/r".into(), ..Options::default() });
        BootstrapParams {
            instance_id: "a".into(),
            namespace: "n".into(),
            log_level: -4,
            containerd_ttrpc_address: "/t".into(),
            containerd_grpc_address: "/g".into(),
            extensions: vec![Extension { value: Some(options) }],
            socket_dir: Some("/s".into()),
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn a_message_wins_over_flags() {
        let start = Start::read(facts(), Path::new("/b"), &params().encode_to_vec()).unwrap();
        assert_eq!((start.dialect, start.socket_dir.as_path()), (Dialect::Message, Path::new("/s")));
        assert_eq!((start.facts.ttrpc_address.as_str(), start.facts.debug), ("/t", true));
        assert_eq!(start.extension::<Options>().unwrap().unwrap().root, "/r");
    }

    #[test]
    fn a_message_for_somebody_else_is_refused() {
        for other in [
            BootstrapParams { instance_id: "b".into(), ..params() },
            BootstrapParams { namespace: "m".into(), ..params() },
            BootstrapParams { socket_dir: Some("s".into()), ..params() },
        ] {
            let error = Start::read(facts(), Path::new("/b"), &other.encode_to_vec()).unwrap_err();
            assert!(matches!(error, Error::Parameters(_)), "{error}");
        }
    }

    #[test]
    fn options_alone_and_nothing_at_all() {
        let options = any::pack(&Options { root: "/old".into(), ..Options::default() }).encode_to_vec();
        for (max_version, want) in [(None, Dialect::Plain), (Some("2".to_owned()), Dialect::Json)] {
            let facts = Facts { max_version, ..facts() };
            let start = Start::read(facts.clone(), Path::new("/b"), &options).unwrap();
            assert_eq!((start.dialect, start.socket_dir.as_path()), (want, Path::new(SOCKET_DIR)));
            assert_eq!(start.extension::<Options>().unwrap().unwrap().root, "/old");
            let start = Start::read(facts, Path::new("/b"), b"").unwrap();
            assert!(start.extensions.is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_input_is_read_or_refused(input in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Start::read(facts(), Path::new("/b"), &input);
        }
    }
}
