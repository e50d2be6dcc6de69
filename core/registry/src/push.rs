//! Uploads: blobs that the registry lacks, then the manifests that name them.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use kevel_model::Descriptor;

use crate::{
    Error, Session, Why,
    auth::form,
    request::{Ask, Sent, join},
    session::Endpoint,
    transport,
};

/// What uploading needs.
const PUSH: &str = "pull,push";

impl Session {
    /// Whether the registry has a blob or manifest already.
    pub async fn exists(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let collection = if is_manifest(descriptor) { "manifests" } else { "blobs" };
        let path = format!("{collection}/{}", descriptor.digest);
        let accept = HeaderValue::from_static(crate::resolve::ACCEPT);
        let ask = Ask { method: Method::HEAD, path, headers: vec![(header::ACCEPT, accept)], actions: PUSH };
        let mut rounds = self.rounds("checking", self.object(descriptor), |capabilities| capabilities.push);
        while let Some(endpoint) = rounds.next().await {
            match self.ask(endpoint, &ask).await {
                Ok(_) => return Ok(true),
                Err(Why::Status { status: 404, .. }) => return Ok(false),
                Err(why) => rounds.failed(why),
            }
        }
        Err(rounds.error())
    }

    /// Uploads a blob in one piece. The stream is read once, so a broken upload is an error and not tried again.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Error> {
        let mut rounds = self.rounds("uploading", self.object(descriptor), |capabilities| capabilities.push);
        let begin = Ask { method: Method::POST, path: "blobs/uploads/".to_owned(), headers: Vec::new(), actions: PUSH };
        while let Some(endpoint) = rounds.next().await {
            let location = match self.ask(endpoint, &begin).await {
                Ok(response) => {
                    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                    location.and_then(|location| join(&self.url(endpoint, "blobs/uploads/").ok()?, location))
                }
                Err(why) => {
                    rounds.failed(why);
                    continue;
                }
            };
            let Some(location) = location else {
                rounds.failed(Why::Protocol("the upload has no valid Location".to_owned()));
                continue;
            };
            return match self.upload(endpoint, &location, descriptor, data).await {
                Ok(()) => Ok(()),
                Err(why) => {
                    rounds.failed(why);
                    Err(rounds.error())
                }
            };
        }
        Err(rounds.error())
    }

    async fn upload(
        &self,
        endpoint: &Endpoint,
        location: &Uri,
        descriptor: &Descriptor,
        data: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Why> {
        let separator = if location.query().is_some() { '&' } else { '?' };
        let url = format!("{location}{separator}{}", form(&[("digest", descriptor.digest.as_str())]));
        let url: Uri = url.parse().map_err(|_| Why::Protocol("the upload's Location is not a URL".to_owned()))?;
        let here = url.authority().is_some_and(|authority| authority.as_str() == endpoint.host.authority)
            && url.scheme_str() == Some(endpoint.scheme());
        let mut sent = Sent::new(Method::PUT, url);
        sent.headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
        sent.headers.push((header::CONTENT_LENGTH, descriptor.size.into()));
        if here {
            self.add_private(endpoint, &mut sent, self.push_token(endpoint));
        }
        sent.body = Some(StreamBody::new(data.map(|piece| piece.map(Frame::data))).boxed_unsync());
        self.put(endpoint, sent, descriptor).await
    }

    /// Uploads a manifest or index under its digest, or under `tag`.
    pub async fn push_manifest(&self, descriptor: &Descriptor, tag: Option<&str>, body: Bytes) -> Result<(), Error> {
        let name = tag.unwrap_or(descriptor.digest.as_str());
        let mut rounds = self.rounds("uploading", self.object(descriptor), |capabilities| capabilities.push);
        while let Some(endpoint) = rounds.next().await {
            match self.put_manifest(endpoint, descriptor, name, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(why) => rounds.failed(why),
            }
        }
        Err(rounds.error())
    }

    async fn put_manifest(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
        name: &str,
        body: Bytes,
    ) -> Result<(), Why> {
        let mut sent = Sent::new(Method::PUT, self.url(endpoint, &format!("manifests/{name}"))?);
        let media_type = HeaderValue::from_str(&descriptor.media_type)
            .map_err(|_| Why::Settings(format!("media type {:?} does not fit a header", descriptor.media_type)))?;
        sent.headers.push((header::CONTENT_TYPE, media_type));
        self.add_private(endpoint, &mut sent, self.push_token(endpoint));
        sent.body = Some(transport::full(body));
        self.put(endpoint, sent, descriptor).await
    }

    async fn put(&self, endpoint: &Endpoint, sent: Sent, descriptor: &Descriptor) -> Result<(), Why> {
        let response = self.send(endpoint, sent).await?;
        let response = self.successful(response).await?;
        let stored = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match stored {
            Some(stored) if stored != descriptor.digest.as_str() => {
                Err(Why::Damaged(format!("stored {stored} for {}", descriptor.digest)))
            }
            _ if response.status() == StatusCode::ACCEPTED => {
                Err(Why::Protocol("took the upload but did not finish it".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The token that an earlier question of this session got.
    fn push_token(&self, endpoint: &Endpoint) -> Option<HeaderValue> {
        endpoint.tokens.get(&format!("repository:{}:{PUSH}", self.reference().repository()))
    }

    fn object(&self, descriptor: &Descriptor) -> String {
        format!("{}@{}", self.reference().name(), descriptor.digest)
    }
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    kevel_model::media_type::is_index(&descriptor.media_type)
        || kevel_model::media_type::is_manifest(&descriptor.media_type)
}
