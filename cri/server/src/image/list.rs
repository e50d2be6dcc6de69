//! ListImages and StreamImages.

use kevel_proto::runtime::v1::{Image, ImageFilter};

use super::Images;

impl Images {
    /// Every image, or the one that the filter names.
    pub(crate) fn list(&self, filter: Option<&ImageFilter>) -> Vec<Image> {
        let name = filter.and_then(|filter| filter.image.as_ref()).map_or("", |image| image.image.as_str());
        match name {
            "" => self.read_index(super::index::ImageIndex::list).iter().map(|image| image.describe()).collect(),
            name => self.find(name).iter().map(|image| image.describe()).collect(),
        }
    }
}
