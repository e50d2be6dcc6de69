//! What a reference names now: `HEAD` of its manifest, or `GET` where that does not say enough.

use std::sync::PoisonError;

use http::{HeaderValue, Method, Response, header};
use hyper::body::Incoming;
use kevel_model::{Descriptor, Digest, media_type};
use serde::Deserialize;

use crate::{
    Error, Session, Why,
    request::{Ask, read_limited},
    session::Endpoint,
};

/// What manifests may be, best first; `*/*` for registries that serve what they have.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// Schema 1 manifests, which nobody makes any more.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

impl Session {
    /// The descriptor of what the session's reference names now.
    pub async fn resolve(&self) -> Result<Descriptor, Error> {
        let reference = self.reference();
        let by_digest = reference.digest().is_some();
        let mut rounds = self.rounds("resolving", reference.to_string(), |capabilities| {
            if by_digest { capabilities.pull } else { capabilities.resolve }
        });
        while let Some(endpoint) = rounds.next().await {
            match self.resolve_at(endpoint).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(why) => rounds.failed(why),
            }
        }
        Err(rounds.error())
    }

    async fn resolve_at(&self, endpoint: &Endpoint) -> Result<Descriptor, Why> {
        let descriptor = match self.ask(endpoint, &self.manifest(Method::HEAD)).await {
            Ok(response) => described(&response)?,
            // Not every mirror and proxy knows HEAD.
            Err(Why::Status { status: 400 | 405 | 406 | 501, .. }) => None,
            Err(why) => return Err(why),
        };
        let descriptor = match descriptor {
            Some(descriptor) => descriptor,
            None => self.read_manifest(endpoint).await?,
        };
        if let Some(wanted) = self.reference().digest()
            && *wanted != descriptor.digest
        {
            return Err(Why::Damaged(format!("serves {} for {wanted}", descriptor.digest)));
        }
        if SCHEMA_1.contains(&descriptor.media_type.as_str()) {
            return Err(Why::Protocol("schema 1 manifests are not supported".to_owned()));
        }
        Ok(descriptor)
    }

    fn manifest(&self, method: Method) -> Ask {
        Ask {
            method,
            path: format!("manifests/{}", self.reference().object()),
            headers: vec![(header::ACCEPT, HeaderValue::from_static(ACCEPT))],
            actions: "pull",
        }
    }

    async fn read_manifest(&self, endpoint: &Endpoint) -> Result<Descriptor, Why> {
        let settings = self.settings();
        let response = self.ask(endpoint, &self.manifest(Method::GET)).await?;
        let content_type = content_type(&response);
        let body =
            read_limited(response.into_body(), "the manifest", settings.document_limit, settings.stall_timeout).await?;
        let digest = match self.reference().digest() {
            None => Digest::sha256(&body),
            Some(wanted) => {
                let mut hasher = wanted.hasher();
                hasher.update(&body);
                hasher.finish()
            }
        };
        let media_type = match content_type.filter(|kind| is_document(kind)) {
            Some(kind) => kind,
            None => stated(&body).ok_or_else(|| Why::Protocol("the answer is not a manifest".to_owned()))?,
        };
        let descriptor = Descriptor::new(media_type, digest.clone(), body.len() as u64);
        *self.inner().seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest, body));
        Ok(descriptor)
    }
}

/// The descriptor that the head of a response gives, if it gives all of one.
fn described(response: &Response<Incoming>) -> Result<Option<Descriptor>, Why> {
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let (Some(digest), Some(size)) = (text("docker-content-digest"), text("content-length")) else { return Ok(None) };
    let Some(media_type) = content_type(response).filter(|kind| is_document(kind)) else { return Ok(None) };
    let digest = digest.parse().map_err(|error| Why::Protocol(format!("Docker-Content-Digest: {error}")))?;
    let size = size.parse().map_err(|_| Why::Protocol(format!("Content-Length {size:?} is not a number")))?;
    Ok((size > 0).then(|| Descriptor::new(media_type, digest, size)))
}

fn content_type(response: &Response<Incoming>) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
}

fn is_document(kind: &str) -> bool {
    media_type::is_index(kind) || media_type::is_manifest(kind) || SCHEMA_1.contains(&kind)
}

/// The type that a document says it is, or has the shape of.
fn stated(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(body).ok()?;
    match shape {
        Shape { media_type: Some(kind), .. } if is_document(&kind) => Some(kind),
        Shape { media_type: None, manifests: Some(_), .. } => Some(media_type::OCI_INDEX.to_owned()),
        Shape { media_type: None, layers: Some(_), .. } => Some(media_type::OCI_MANIFEST.to_owned()),
        _ => None,
    }
}
