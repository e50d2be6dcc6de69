//! Every image in memory, by identifier and by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kevel_model::{Digest, Reference};
use kevel_proto::runtime::v1 as cri;

use super::config::ImageConfig;

/// A blob of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArtifactFile {
    /// The file that it wants to be; empty when it does not say.
    pub(crate) title: String,
    /// What it is.
    pub(crate) digest: Digest,
}

/// An image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The digest of its config; of an artifact, whose config says nothing, that of its manifest.
    pub(crate) id: String,
    /// Its names in the image store, `id` among them.
    pub(crate) names: BTreeSet<String>,
    /// The snapshot that holds its layers; empty when it has none.
    pub(crate) chain_id: String,
    /// Bytes of manifest, config and compressed layers.
    pub(crate) size: u64,
    /// How it wants to be run.
    pub(crate) config: ImageConfig,
    /// Never to be collected.
    pub(crate) pinned: bool,
    /// What is in it when it is no image but an artifact: a volume can be made of it, and no container.
    pub(crate) artifact: Option<Arc<[ArtifactFile]>>,
    /// Whether its files are a checkpoint of a container, and no root file system.
    pub(crate) is_checkpoint: bool,
}

impl Image {
    /// Its names with a tag.
    pub(crate) fn tags(&self) -> Vec<String> {
        let tagged =
            |name: &&String| Reference::complete(name).is_ok_and(|r| r.tag().is_some() && r.digest().is_none());
        self.names.iter().filter(tagged).cloned().collect()
    }

    /// Its names with a digest.
    pub(crate) fn digests(&self) -> Vec<String> {
        let by_digest = |name: &&String| Reference::complete(name).is_ok_and(|r| r.digest().is_some());
        self.names.iter().filter(by_digest).cloned().collect()
    }

    /// A name of the image store that stands for it: a tag, a digest, or the identifier.
    pub(crate) fn name(&self) -> String {
        self.tags().into_iter().chain(self.digests()).next().unwrap_or_else(|| self.id.clone())
    }

    /// As CRI describes it.
    pub(crate) fn describe(&self) -> cri::Image {
        let user = self.config.user.split(':').next().unwrap_or_default();
        let uid = user.parse::<i64>().ok();
        cri::Image {
            id: self.id.clone(),
            repo_tags: self.tags(),
            repo_digests: self.digests(),
            size: self.size,
            uid: uid.map(|value| cri::Int64Value { value }),
            username: if uid.is_some() { String::new() } else { user.to_owned() },
            spec: None,
            pinned: self.pinned,
        }
    }
}

/// Images by identifier and name.
#[derive(Default)]
pub(crate) struct ImageIndex {
    images: BTreeMap<String, Arc<Image>>,
    names: BTreeMap<String, String>,
    /// Names taken away so far.
    removals: u64,
}

impl ImageIndex {
    /// Changes with every name that is taken away. What the store said before may be old after, see [`Self::name_since`].
    pub(crate) fn removals(&self) -> u64 {
        self.removals
    }

    /// As [`Self::name`], of what the store said at `removals`. False, and nothing changes, if a name was taken away since:
    /// it may have been this one.
    pub(crate) fn name_since(&mut self, removals: u64, name: &str, image: Image) -> bool {
        let fresh = self.removals == removals;
        if fresh {
            self.name(name, image);
        }
        fresh
    }

    /// Says that `name` stands for the image; what the name stood for before loses it.
    pub(crate) fn name(&mut self, name: &str, image: Image) {
        if self.names.get(name).is_some_and(|id| *id != image.id) {
            self.unname(name);
        }
        let known = self.images.get(&image.id);
        let mut merged = image;
        if let Some(known) = known {
            merged.names.extend(known.names.iter().cloned());
            merged.pinned |= known.pinned;
        }
        merged.names.insert(name.to_owned());
        self.names.insert(name.to_owned(), merged.id.clone());
        self.images.insert(merged.id.clone(), Arc::new(merged));
    }

    /// Takes a name away; an image without names is gone.
    pub(crate) fn unname(&mut self, name: &str) {
        self.removals += 1;
        let Some(id) = self.names.remove(name) else { return };
        let Some(image) = self.images.get(&id) else { return };
        let mut image = Image::clone(image);
        image.names.remove(name);
        if image.names.is_empty() {
            self.images.remove(&id);
        } else {
            self.images.insert(id, Arc::new(image));
        }
    }

    /// Every image, by identifier.
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.images.values().cloned().collect()
    }

    /// The image that a text names: an identifier or its beginning, or a reference in any form.
    pub(crate) fn find(&self, text: &str) -> Option<Arc<Image>> {
        if let Some(image) = self.images.get(text).or_else(|| self.images.get(&format!("sha256:{text}"))) {
            return Some(image.clone());
        }
        if let Some(image) = Reference::familiar(text).ok().and_then(|reference| self.named(&reference)) {
            return Some(image);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() < 4 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut found =
            self.images.range(format!("sha256:{hex}")..).take_while(|(id, _)| id["sha256:".len()..].starts_with(hex));
        match (found.next(), found.next()) {
            (Some((_, image)), None) => Some(image.clone()),
            _ => None,
        }
    }

    fn named(&self, reference: &Reference) -> Option<Arc<Image>> {
        let exact = self.names.get(&reference.to_string());
        // A tag beside a digest says nothing more.
        let by_digest =
            || reference.digest().and_then(|digest: &Digest| self.names.get(&reference.at(digest.clone()).to_string()));
        self.images.get(exact.or_else(by_digest)?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str) -> Image {
        let id = format!("sha256:{}", id.repeat(64));
        let (names, config) = (BTreeSet::new(), ImageConfig::default());
        Image {
            id,
            names,
            chain_id: String::new(),
            size: 1,
            config,
            pinned: false,
            artifact: None,
            is_checkpoint: false,
        }
    }

    #[test]
    fn names_come_and_go() {
        let mut index = ImageIndex::default();
        let digest = Digest::sha256(b"m");
        index.name("docker.io/library/a:1", image("a"));
        index.name(&format!("docker.io/library/a@{digest}"), image("a"));
        let id = image("a").id;
        for text in [
            "a:1",
            "docker.io/library/a:1",
            &id,
            &id[7..],
            &id[7..20],
            &format!("a@{digest}"),
            &format!("a:2@{digest}"),
        ] {
            assert_eq!(index.find(text).unwrap().id, id, "{text}");
        }
        for text in ["a", "b:1", "", "sha256:", "sha256:ab"] {
            assert!(index.find(text).is_none(), "{text}");
        }
        index.name("docker.io/library/a:1", image("b"));
        assert_eq!(index.find("a:1").unwrap().id, image("b").id);
        assert_eq!(index.find(&id).unwrap().names.len(), 1);
        index.unname(&format!("docker.io/library/a@{digest}"));
        assert!(index.find(&id).is_none());
        assert_eq!(index.list().len(), 1);
    }

    #[test]
    fn what_was_read_before_a_removal_does_not_come_back() {
        let mut index = ImageIndex::default();
        let removals = index.removals();
        assert!(index.name_since(removals, "docker.io/library/a:1", image("a")));
        let removals = index.removals();
        assert!(index.name_since(removals, "docker.io/library/a:2", image("a")), "naming is no removal");
        index.unname("docker.io/library/a:2");
        index.unname("docker.io/library/a:1");
        assert!(!index.name_since(removals, "docker.io/library/a:1", image("a")));
        assert!(index.find(&image("a").id).is_none());
        let removals = index.removals();
        index.unname("docker.io/library/b:1");
        assert!(!index.name_since(removals, "docker.io/library/b:1", image("b")), "nor what the index never had");
    }
}
