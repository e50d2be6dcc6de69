//! PullImage, and having an image where a pod needs it.

use std::{collections::BTreeMap, hash::BuildHasher as _, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kevel_contract::{
    image::Image as Record,
    transfer::{Credentials, Pull, Registry, Unpack},
};
use kevel_model::{Code, Error, Labels, Platform, Reference, Result};
use kevel_proto::runtime::v1::{AuthConfig, PullImageRequest, PullImageResponse};
use prost::Message as _;
use tonic::Status;

use super::{Image, ImageIndex, Images, MANAGED, PINNED};
use crate::answer::status;

impl Images {
    /// Pulls an image for the kubelet and answers its identifier. Two that ask for the same at once share the work.
    pub(crate) async fn pull_image(
        self: &Arc<Self>,
        request: PullImageRequest,
        snapshotter: String,
    ) -> Result<PullImageResponse, Status> {
        let text = request.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        if text.is_empty() {
            return Err(Status::invalid_argument("image.image: empty"));
        }
        let wrong = |error| status(&Error::from(error).context("image.image"));
        let reference = Reference::familiar(&text).map_err(wrong)?;
        // A tag beside a digest says nothing more.
        let reference = reference.digest().cloned().map_or(reference.clone(), |digest| reference.at(digest));
        let auth = request.auth.as_ref();
        let credentials =
            auth.map_or(Ok(None), |auth| credentials(auth, &reference)).map_err(|error| status(&error))?;
        let print = request.auth.as_ref().map(AuthConfig::encode_to_vec).unwrap_or_default();
        // Who shows other credentials does not get what somebody else's brought.
        let who = if print.is_empty() { String::new() } else { format!(" as {:x}", self.secrets.hash_one(&print)) };
        let key = format!("pull image {reference} into {snapshotter}{who}");
        let images = self.clone();
        let work = move || async move {
            let pull = images.pull(&reference, credentials, &snapshotter);
            Ok(images.counters.pull(pull).await?.id.clone())
        };
        let image_ref = self.pulls.run(key, print, work).await?;
        Ok(PullImageResponse { image_ref })
    }

    /// Pulls an image, unpacks it, and gives it its three names: the reference, the reference by digest, the identifier.
    pub(crate) async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        snapshotter: &str,
    ) -> Result<Arc<Image>> {
        let name = reference.to_string();
        let labels = self.labels(&name);
        let credentials = credentials.or_else(|| self.config.registry.credentials(reference.registry()));
        let (progress, watched) = self.progress.watch(&name);
        let pull = Pull {
            reference: name.clone(),
            registry: Registry {
                config_paths: self.config.config_paths(),
                credentials,
                headers: headers(&self.config.registry.headers),
                plain_http: false,
            },
            unpack: vec![self.unpacking(snapshotter)],
            labels: labels.clone(),
            discard_layers: self.config.discard_unpacked_layers,
            sync_fs: self.config.image_pull_with_sync_fs,
            max_concurrent_downloads: Some(self.config.max_concurrent_downloads),
            layer_fetch_buffer: Some(self.config.concurrent_layer_fetch_buffer).filter(|size| *size > 0),
            progress_timeout: Some(self.config.image_pull_progress_timeout),
            progress: Some(progress),
            ..Pull::default()
        };
        let context = |error: Error| error.context(format!("pulling image {name}"));
        let removals = self.read_index(ImageIndex::removals);
        let record = self.transfer.pull(&self.scope, pull).await.map_err(context)?;
        watched.succeeded(self.counters.throughput());
        let image = self.read(&record).await.map_err(context)?;
        let by_digest = reference.at(record.target.digest.clone()).to_string();
        let more = [by_digest, image.id.clone()].map(|name| Record::new(name, record.target.clone(), labels.clone()));
        let named =
            futures::future::join_all(more.iter().filter(|one| one.name != record.name).map(|one| self.put(one)));
        named.await.into_iter().collect::<Result<Vec<()>>>().map_err(context)?;
        for name in [&record.name, &more[0].name, &more[1].name] {
            // It may be removed already.
            if !self.change_index(|index| index.name_since(removals, name, image.clone())) {
                self.refresh(name).await;
            }
        }
        self.find(&image.id)
    }

    /// The image, pulled if it is not here, with its layers in the snapshotter.
    pub(crate) async fn ensure(&self, text: &str, snapshotter: &str) -> Result<Arc<Image>> {
        match self.find(text) {
            Ok(image) => {
                self.unpacked(&image, snapshotter).await?;
                Ok(image)
            }
            Err(_) => self.pull(&Reference::familiar(text)?, None, snapshotter).await,
        }
    }

    /// Sees to it that the image's layers are in the snapshotter: they are when it was pulled for it, and need not be
    /// when another handler has another one.
    pub(crate) async fn unpacked(&self, image: &Image, snapshotter: &str) -> Result<()> {
        if image.artifact.is_some() {
            let message = format!("image {} is an artifact and has no root file system", image.name());
            return Err(Error::failed_precondition(message));
        }
        let missing = || Error::failed_precondition(format!("there is no snapshotter {snapshotter:?}"));
        let store = self.snapshotters.get(snapshotter).ok_or_else(missing)?;
        if image.chain_id.is_empty() {
            return Ok(());
        }
        match store.stat(&self.scope, &image.chain_id).await {
            Err(error) if error.is_not_found() => self.unpack_again(image, snapshotter).await,
            other => other.map(drop),
        }
    }

    /// Unpacks an image that is here, fetching what is missing of it. One that its registry does not give is removed, if it
    /// is not whole for another snapshotter either: the kubelet pulls it anew then, with credentials.
    async fn unpack_again(&self, image: &Image, snapshotter: &str) -> Result<()> {
        let name = image.name();
        let context = |error: Error| error.context(format!("unpacking image {name} into {snapshotter}"));
        let lost = match self.transfer.unpack(&self.scope, &name, self.unpacking(snapshotter)).await {
            // Missing, cut short, or changed: a damaged layer does not unpack.
            Err(error) if matches!(error.code(), Code::NotFound | Code::DataLoss | Code::InvalidArgument) => error,
            other => return other.map_err(context),
        };
        tracing::warn!(image = name, snapshotter, error = lost.chain(), "image is not whole, fetching it again");
        // By digest, where it is known: a tag may name another image by now.
        let names = image.digests().into_iter().chain(image.tags());
        let mut failure = lost;
        for name in names {
            let Ok(reference) = Reference::complete(&name) else { continue };
            match self.pull(&reference, None, snapshotter).await {
                Ok(fetched) if fetched.id == image.id => return Ok(()),
                Ok(fetched) => {
                    failure = Error::not_found(format!("{name} is {} by now, not {}", fetched.id, image.id));
                }
                Err(error) => failure = error,
            }
        }
        // A registry that does not answer may have it yet.
        let asked = !matches!(failure.code(), Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted);
        if asked && !self.is_unpacked(image).await {
            tracing::warn!(image = name, error = failure.chain(), "image can't be had again and is removed");
            self.remove(&image.id).await?;
        }
        Err(context(failure))
    }

    /// Whether any snapshotter has the image's layers; one that does not answer may.
    async fn is_unpacked(&self, image: &Image) -> bool {
        for store in self.snapshotters.values() {
            if !store.stat(&self.scope, &image.chain_id).await.is_err_and(|error| error.is_not_found()) {
                return true;
            }
        }
        false
    }

    fn unpacking(&self, snapshotter: &str) -> Unpack {
        Unpack {
            platform: Platform::host(),
            snapshotter: snapshotter.to_owned(),
            labels: Labels::new(),
            annotate: !self.config.disable_snapshot_annotations,
        }
    }

    fn labels(&self, name: &str) -> Labels {
        let mut labels: Labels = [(MANAGED.to_owned(), "managed".to_owned())].into();
        let is = |pinned: &String| Reference::familiar(pinned).is_ok_and(|pinned| pinned.to_string() == name);
        if self.config.pinned_images.values().any(is) {
            labels.insert(PINNED.to_owned(), "pinned".to_owned());
        }
        labels
    }

    /// Makes the store say that the name stands for the target.
    async fn put(&self, image: &Record) -> Result<()> {
        match self.images.create(&self.scope, image.clone()).await {
            Err(error) if error.is_already_exists() => {
                let paths = ["target".to_owned(), format!("labels.{MANAGED}"), format!("labels.{PINNED}")];
                let wanted = image.labels.contains_key(PINNED);
                let paths = if wanted { &paths[..] } else { &paths[..2] };
                self.images.update(&self.scope, image.clone(), paths).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

fn headers(configured: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, String> {
    configured.iter().map(|(name, values)| (name.clone(), values.join(", "))).collect()
}

/// Who the puller is. Credentials for another server than the image's are not for this pull.
fn credentials(auth: &AuthConfig, reference: &Reference) -> Result<Option<Credentials>> {
    if !auth.server_address.is_empty() {
        let address = auth.server_address.as_str();
        let host = address.split_once("://").map_or(address, |(_, rest)| rest).split('/').next().unwrap_or_default();
        let docker = ["docker.io", "index.docker.io", "registry-1.docker.io"];
        let same = host == reference.registry() || (docker.contains(&host) && docker.contains(&reference.registry()));
        if !same {
            return Ok(None);
        }
    }
    let (mut username, mut secret) = (auth.username.clone(), auth.password.clone());
    if !auth.identity_token.is_empty() {
        (username, secret) = (String::new(), auth.identity_token.clone());
    } else if username.is_empty() && !auth.auth.is_empty() {
        (username, secret) = decode(&auth.auth)?;
    }
    let credentials = Credentials { username, secret, registry_token: auth.registry_token.clone() };
    Ok((credentials != Credentials::default()).then_some(credentials))
}

fn decode(auth: &str) -> Result<(String, String)> {
    let wrong = || Error::invalid_argument("auth.auth: not base64 of user:password");
    let bytes = BASE64_STANDARD.decode(auth.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (user, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_of_one_server() {
        let image = Reference::familiar("quay.io/a/b:c").unwrap();
        let check = |auth: AuthConfig, want: Option<(&str, &str)>| {
            let got = credentials(&auth, &image).unwrap();
            assert_eq!(got.as_ref().map(|one| (one.username.as_str(), one.secret.as_str())), want);
        };
        let auth = |f: fn(&mut AuthConfig)| {
            let mut auth = AuthConfig::default();
            f(&mut auth);
            auth
        };
        check(auth(|_| ()), None);
        check(auth(|a| (a.username, a.password) = ("u".into(), "p".into())), Some(("u", "p")));
        check(auth(|a| a.auth = "dTpwOnE=".into()), Some(("u", "p:q")));
        check(auth(|a| (a.username, a.identity_token) = ("u".into(), "t".into())), Some(("", "t")));
        check(auth(|a| (a.username, a.server_address) = ("u".into(), "https://docker.io/v1".into())), None);
        check(auth(|a| (a.username, a.server_address) = ("u".into(), "https://quay.io/v1".into())), Some(("u", "")));
        for bad in ["%", "dXA=", "/w=="] {
            let auth = AuthConfig { auth: bad.into(), ..Default::default() };
            assert_eq!(credentials(&auth, &image).unwrap_err().code(), Code::InvalidArgument);
        }
    }
}
