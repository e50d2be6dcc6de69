//! Indexes, manifests and configs: small content, read whole and verified.

use std::sync::PoisonError;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use kevel_model::{Descriptor, media_type};

use crate::{
    Error, Session, Why,
    request::{Ask, read_limited},
    resolve::ACCEPT,
    session::Endpoint,
};

impl Session {
    /// Content of at most the limit for documents, its size and digest verified. Indexes and manifests are asked for as
    /// such, everything else as a blob.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        let seen = self.inner().seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((digest, body)) = seen
            && digest == descriptor.digest
        {
            return Ok(body);
        }
        let object = format!("{}@{}", self.reference().name(), descriptor.digest);
        let mut rounds = self.rounds("fetching", object, |capabilities| capabilities.pull);
        while let Some(endpoint) = rounds.next().await {
            match self.document_at(endpoint, descriptor).await {
                Ok(body) => return Ok(body),
                Err(why) => rounds.failed(why),
            }
        }
        Err(rounds.error())
    }

    async fn document_at(&self, endpoint: &Endpoint, descriptor: &Descriptor) -> Result<Bytes, Why> {
        let settings = self.settings();
        let kind = &descriptor.media_type;
        let is_manifest = media_type::is_index(kind) || media_type::is_manifest(kind);
        let what = if is_manifest { "the manifest" } else { "the document" };
        if descriptor.size > settings.document_limit {
            return Err(Why::TooLarge { what, limit: settings.document_limit });
        }
        let collection = if is_manifest { "manifests" } else { "blobs" };
        let accept = HeaderValue::from_str(&format!("{kind}, */*"));
        let ask = Ask {
            method: Method::GET,
            path: format!("{collection}/{}", descriptor.digest),
            headers: vec![(header::ACCEPT, accept.unwrap_or(HeaderValue::from_static(ACCEPT)))],
            actions: "pull",
        };
        let response = self.ask(endpoint, &ask).await?;
        let body = read_limited(response.into_body(), what, settings.document_limit, settings.stall_timeout).await?;
        if body.len() as u64 != descriptor.size {
            return Err(Why::Damaged(format!("has {} bytes where {} were announced", body.len(), descriptor.size)));
        }
        let mut hasher = descriptor.digest.hasher();
        hasher.update(&body);
        let got = hasher.finish();
        if got != descriptor.digest {
            return Err(Why::Damaged(format!("has digest {got}")));
        }
        Ok(body)
    }
}
