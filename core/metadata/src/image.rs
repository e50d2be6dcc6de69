//! The image store.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_contract::{
    Scope,
    image::{Backend, Delete, Image},
    metadata::GarbageCollector,
};
use kevel_model::{Error, Filters, Result};

use crate::{
    check,
    core::{Core, Draft, missing},
    event,
    gc::label::let_go,
    shelf::key,
    state::Images,
};

pub(crate) struct Store {
    pub(crate) core: Arc<Core>,
    pub(crate) garbage: GarbageCollector,
}

#[async_trait]
impl Backend for Store {
    async fn get(&self, scope: &Scope, name: &str) -> Result<Image> {
        let state = self.core.state();
        let image = state.images.get(&key(&scope.namespace, &[name]));
        image.map(|image| Image::clone(image)).ok_or_else(|| missing::<Images>(name))
    }

    async fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Image>> {
        let state = self.core.state();
        let images = state.images.under(scope.namespace.as_str());
        Ok(images.filter(|(_, image)| filters.matches(&***image)).map(|(_, image)| Image::clone(image)).collect())
    }

    async fn create(&self, scope: &Scope, mut image: Image) -> Result<Image> {
        check(&image)?;
        let lease = scope.clone();
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&image.name]);
                draft.vacant::<Images>(&key, &image.name)?;
                image.created_at = draft.now;
                image.updated_at = draft.now;
                draft.lease(&lease, "images", &image.name)?;
                draft.put::<Images>(&key, image.clone());
                draft.event("/images/create", event::image_create(&image));
                Ok(image)
            })
            .await
    }

    async fn update(&self, scope: &Scope, image: Image, fieldpaths: &[String]) -> Result<Image> {
        let fieldpaths = fieldpaths.to_vec();
        check::name("image name", &image.name)?;
        self.core.change(&scope.namespace, move |draft| update(draft, image, &fieldpaths)).await
    }

    async fn delete(&self, scope: &Scope, name: &str, delete: Delete) -> Result<()> {
        let (lease, name) = (scope.clone(), name.to_owned());
        let sync = delete.sync;
        self.core
            .change(&scope.namespace, move |draft| {
                let key = draft.key(&[&name]);
                let image = draft.get::<Images>(&key, &name)?;
                if let Some(target) = delete.target.filter(|target| *target != image.target.digest) {
                    // As containerd: an image that names something else now is not the one that was meant.
                    return Err(Error::not_found(format!("image {name:?} does not name {target} any more")));
                }
                draft.remove::<Images>(&key);
                draft.unlease(&lease, "images", &name);
                draft.event("/images/delete", event::image_delete(&name));
                Ok(())
            })
            .await?;
        if sync {
            self.garbage.forget().await?;
        }
        Ok(())
    }
}

fn check(image: &Image) -> Result<()> {
    check::name("image name", &image.name)?;
    check::labels(&image.labels)?;
    if image.target.media_type.is_empty() {
        return Err(Error::invalid_argument(format!("image {:?}: media type of the target is empty", image.name)));
    }
    Ok(())
}

fn update(draft: &mut Draft<'_, '_>, new: Image, fieldpaths: &[String]) -> Result<Image> {
    let key = draft.key(&[&new.name]);
    let old = draft.get::<Images>(&key, &new.name)?;
    let mut image = Image::clone(&old);
    if fieldpaths.is_empty() {
        image.labels.clone_from(&new.labels);
        image.target.clone_from(&new.target);
    }
    for path in fieldpaths {
        match path.split_once('.') {
            None if path == "labels" => image.labels.clone_from(&new.labels),
            None if path == "target" => image.target.clone_from(&new.target),
            None if path == "annotations" => image.target.annotations.clone_from(&new.target.annotations),
            Some(("labels", key)) => check::entry(&mut image.labels, &new.labels, key),
            Some(("annotations", key)) => check::entry(&mut image.target.annotations, &new.target.annotations, key),
            _ => return Err(check::immutable("image", &new.name, path)),
        }
    }
    check(&image)?;
    image.updated_at = draft.now;
    draft.put::<Images>(&key, image.clone());
    if let_go(&old.labels, &image.labels) || old.target.digest != image.target.digest {
        draft.dirty();
    }
    draft.event("/images/update", event::image_update(&image));
    Ok(image)
}
