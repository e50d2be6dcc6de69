//! Devices that a container asks for: by CRI's field, or by annotations as before there was one.

use std::collections::BTreeMap;

use crate::{error::Result, name::Device};

/// The beginning of annotations that name devices.
const PREFIX: &str = "cdi.k8s.io/";

/// The devices of the field, then those of the annotations in the order of their keys; each once.
///
/// # Errors
/// [`crate::Error::Name`] for the first that is no qualified name.
pub fn requested<'a>(
    field: impl IntoIterator<Item = &'a str>,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Device>> {
    let mut all: Vec<Device> = Vec::new();
    let named = annotations.iter().filter(|(key, _)| key.starts_with(PREFIX)).flat_map(|(_, value)| value.split(','));
    let mut add = |text: &str| -> Result<()> {
        let device = Device::parse(text.trim())?;
        if !all.contains(&device) {
            all.push(device);
        }
        Ok(())
    };
    field.into_iter().try_for_each(&mut add)?;
    named.into_iter().try_for_each(&mut add)?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_and_annotations_are_joined() {
        let annotation = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let annotations = BTreeMap::from([
            annotation("cdi.k8s.io/b", "v/c=2"),
            annotation("cdi.k8s.io/a", "v/c=1,v/c=3"),
            annotation("other/a", "nonsense"),
        ]);
        let names = |devices: Vec<Device>| devices.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(requested(["v/c=3", "v/c=0"], &annotations).unwrap()), ["v/c=3", "v/c=0", "v/c=1", "v/c=2"]);
        assert!(requested([], &BTreeMap::new()).unwrap().is_empty());
        let bad = BTreeMap::from([annotation("cdi.k8s.io/a", "v/c=1,")]);
        assert!(requested([], &bad).is_err());
    }
}
