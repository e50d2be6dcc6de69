//! The specs on the node.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    document::{Document, Edits},
    edit,
    error::{Error, Result},
    name::Device,
};

/// The most that is read of a spec; vendors' specs with every device of a large machine are far smaller.
const LIMIT: u64 = 16 << 20;

/// Every device that the node's specs describe.
#[derive(Debug, Default)]
pub struct Registry {
    specs: Vec<Spec>,
    devices: BTreeMap<Device, Found>,
    /// Files that are no specs, and why.
    bad: Vec<(PathBuf, String)>,
}

#[derive(Debug)]
struct Spec {
    path: PathBuf,
    document: Document,
}

#[derive(Debug)]
enum Found {
    /// Places in `specs` and in its devices.
    One {
        dir: usize,
        spec: usize,
        entry: usize,
    },
    Conflict {
        dir: usize,
        first: PathBuf,
        second: PathBuf,
    },
}

impl Registry {
    /// Reads the `.json` and `.yaml` files of the directories. A device of a later directory hides one of the same name
    /// in an earlier one; two in one directory hide each other. A directory that is not there has none, and a file that
    /// is no spec costs only its own devices. Blocks.
    ///
    /// # Errors
    /// [`Error::Dir`].
    pub fn read<P: AsRef<Path>>(dirs: &[P]) -> Result<Self> {
        let mut registry = Self::default();
        for (priority, dir) in dirs.iter().enumerate() {
            let failed = |source| Error::Dir { dir: dir.as_ref().to_owned(), source };
            let entries = match fs::read_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
            paths.sort();
            for path in paths {
                let yaml = match path.extension().and_then(|extension| extension.to_str()) {
                    Some("json") => false,
                    Some("yaml") => true,
                    _ => continue,
                };
                match load(&path).map_err(|error| error.to_string()).and_then(|text| Document::parse(&text, yaml)) {
                    Ok(document) => registry.add(priority, path, document),
                    Err(why) => registry.bad.push((path, why)),
                }
            }
        }
        Ok(registry)
    }

    fn add(&mut self, dir: usize, path: PathBuf, document: Document) {
        let spec = self.specs.len();
        for (entry, device) in document.devices.iter().enumerate() {
            let device = Device { kind: document.kind.clone(), name: device.name.clone() };
            let first = match self.devices.get(&device) {
                Some(Found::One { dir: other, spec, .. }) if *other == dir => Some(self.specs[*spec].path.clone()),
                Some(Found::Conflict { dir: other, first, .. }) if *other == dir => Some(first.clone()),
                _ => None,
            };
            let found = match first {
                Some(first) => Found::Conflict { dir, first, second: path.clone() },
                None => Found::One { dir, spec, entry },
            };
            self.devices.insert(device, found);
        }
        self.specs.push(Spec { path, document });
    }

    /// Files that were left out, and why.
    pub fn bad(&self) -> &[(PathBuf, String)] {
        &self.bad
    }

    /// Every device that can be asked for.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.keys()
    }

    /// Puts the devices into an OCI runtime spec: for each what its spec says for all of its devices, once, and what it
    /// says for this one. An error leaves the spec half changed. Looks at device nodes: blocks.
    ///
    /// # Errors
    /// The first device that is not known, or cannot be.
    pub fn inject(&self, spec: &mut Value, devices: &[Device]) -> Result<()> {
        let mut used = Vec::new();
        let mut all: Vec<(&Device, &Edits)> = Vec::new();
        for device in devices {
            let (index, entry) = self.find(device)?;
            let document = &self.specs[index].document;
            if !used.contains(&index) {
                used.push(index);
                all.push((device, &document.container_edits));
            }
            all.push((device, &document.devices[entry].container_edits));
        }
        all.into_iter().try_for_each(|(device, edits)| edit::apply(spec, device, edits))?;
        if devices.is_empty() { Ok(()) } else { edit::sort_mounts(spec) }
    }

    fn find(&self, device: &Device) -> Result<(usize, usize)> {
        match self.devices.get(device) {
            Some(Found::One { spec, entry, .. }) => Ok((*spec, *entry)),
            Some(Found::Conflict { first, second, .. }) => {
                Err(Error::Conflict { device: device.to_string(), first: first.clone(), second: second.clone() })
            }
            None => Err(Error::Unknown { device: device.to_string(), known: self.known() }),
        }
    }

    fn known(&self) -> String {
        let bad =
            self.bad.iter().map(|(path, why)| format!("; {} is no spec: {why}", path.display())).collect::<String>();
        match self.devices.len() {
            0 => format!("no spec describes any device{bad}"),
            count => {
                let some: Vec<String> = self.devices.keys().take(5).map(ToString::to_string).collect();
                format!("{count} are known, such as {}{bad}", some.join(", "))
            }
        }
    }
}

fn load(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
    if read as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {LIMIT} bytes")));
    }
    Ok(text)
}
