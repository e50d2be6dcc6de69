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
        let count = image.names.len();
        for (index, name) in image.names.iter().enumerate() {
            // Whoever waits for the last name waits for the space to be free, too.
            let delete = Delete { sync: index + 1 == count, target: None };
            match self.images.delete(&self.scope, name, delete).await {
                Err(error) if !error.is_not_found() => return Err(error.context(format!("removing image {name}"))),
                _ => self.change_index(|index| index.unname(name)),
            }
        }
        Ok(())
    }
}
