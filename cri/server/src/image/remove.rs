//! RemoveImage.

use kevel_contract::image::Delete;
use kevel_model::{Error, Result};

use super::Images;

impl Images {
    /// Removes an image under all its names, and what only it used; one that is not here is no error. Containers keep
    /// what they were made from.
    pub(crate) async fn remove(&self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(Error::invalid_argument("image.image: empty"));
        }
        let Ok(image) = self.find(text) else { return Ok(()) };
        let Some((last, first)) = image.names.iter().collect::<Vec<_>>().split_last().map(|(l, f)| (*l, f.to_vec()))
        else {
            return Ok(());
        };
        let removed = futures::future::join_all(first.into_iter().map(|name| self.remove_name(name, false))).await;
        removed.into_iter().collect::<Result<Vec<()>>>()?;
        // Whoever waits for the last name sees nothing of the image any more, in no list and no sum.
        self.remove_name(last, true).await?;
        self.make_room().await;
        Ok(())
    }

    async fn remove_name(&self, name: &str, sync: bool) -> Result<()> {
        match self.images.delete(&self.scope, name, Delete { sync, target: None }).await {
            Err(error) if !error.is_not_found() => return Err(error.context(format!("removing image {name}"))),
            _ => self.change_index(|index| index.unname(name)),
        }
        Ok(())
    }
}
