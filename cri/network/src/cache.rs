//! Records of attachments on disk, in libcni's format and place, so that its tools and other runtimes read them.
//!
//! `<dir>/results/<network>-<container>-<interface>` holds a JSON object of kind `cniCacheV1`. A record is written
//! before ADD runs and again, with the result, after it; it goes when DEL succeeded. A record without a result is an
//! ADD that was cut short.
//!
//! Records are not synced to disk: they outlive the daemon, not a power cut, after which no namespace and no interface
//! exists either. Detaching without a record runs DEL with the current configuration.

use crate::conf::NetworkList;
use crate::name::{check_container_id, check_interface, check_network};
use crate::{Error, FieldError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const KIND: &str = "cniCacheV1";
/// Value of a member of our own that tells our records from those of other runtimes; libcni passes over it.
const OWNER: &str = "kevel";
/// A configuration and a result of 1 MiB each, the former in base64.
const MAX_RECORD: u64 = 4 << 20;

/// One attachment of one container to one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The network's name.
    pub network: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS` of ADD; may be empty.
    pub netns: String,
    /// The configuration list that ADD ran, as JSON.
    pub config: Vec<u8>,
    /// `CNI_ARGS` of ADD.
    pub args: Vec<(String, String)>,
    /// Capability arguments of ADD.
    pub capability_args: BTreeMap<String, Value>,
    /// What the last plugin answered; `None` when ADD did not finish.
    pub result: Option<Map<String, Value>>,
    /// Whether Kevel made the attachment. Other runtimes keep theirs in the same directory; garbage collection must
    /// leave them alone.
    pub ours: bool,
}

/// The names and types on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    kind: String,
    #[serde(rename = "containerId")]
    container_id: String,
    config: String,
    #[serde(rename = "ifName")]
    ifname: String,
    #[serde(rename = "networkName")]
    network: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(rename = "cniArgs", default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<(String, String)>>,
    #[serde(rename = "capabilityArgs", default, skip_serializing_if = "Option::is_none")]
    capability_args: Option<BTreeMap<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

/// The directory of records. Methods block on small files.
#[derive(Clone, Debug)]
pub struct Cache {
    results: PathBuf,
}

impl Record {
    /// The configuration that ADD ran.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn network_list(&self) -> Result<NetworkList, Error> {
        NetworkList::parse_recorded(&self.config).map_err(|e| Error::Config {
            origin: format!("recorded for {} on {}", self.container_id, self.network),
            source: Box::new(e),
        })
    }

    fn to_json(&self) -> io::Result<Vec<u8>> {
        let stored = Stored {
            kind: KIND.to_owned(),
            container_id: self.container_id.clone(),
            config: BASE64_STANDARD.encode(&self.config),
            ifname: self.ifname.clone(),
            network: self.network.clone(),
            netns: self.netns.clone(),
            args: Some(self.args.clone()).filter(|args| !args.is_empty()),
            capability_args: Some(self.capability_args.clone()).filter(|args| !args.is_empty()),
            result: self.result.clone(),
            owner: self.ours.then(|| OWNER.to_owned()),
        };
        Ok(serde_json::to_vec(&stored)?)
    }

    fn from_json(bytes: &[u8]) -> io::Result<Self> {
        let stored: Stored = serde_json::from_slice(bytes)?;
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        if stored.kind != KIND {
            return Err(invalid(format!("kind {:?} instead of {KIND:?}", stored.kind)));
        }
        let config = BASE64_STANDARD.decode(&stored.config).map_err(|e| invalid(format!("config: {e}")))?;
        let record = Self {
            network: stored.network,
            container_id: stored.container_id,
            ifname: stored.ifname,
            netns: stored.netns,
            config,
            args: stored.args.unwrap_or_default(),
            capability_args: stored.capability_args.unwrap_or_default(),
            result: stored.result,
            ours: stored.owner.as_deref() == Some(OWNER),
        };
        record.check().map_err(|e| invalid(e.to_string()))?;
        Ok(record)
    }

    fn check(&self) -> Result<(), FieldError> {
        check_network("networkName", &self.network)?;
        check_container_id("containerId", &self.container_id)?;
        check_interface("ifName", &self.ifname)
    }
}

impl Cache {
    /// Records live in `dir/results`; the directory is made when the first record is.
    pub fn new(dir: &Path) -> Self {
        Self { results: dir.join("results") }
    }

    /// Writes a record, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Invalid`] for names that cannot be part of a file name, [`Error::Cache`].
    pub fn put(&self, record: &Record) -> Result<(), Error> {
        record.check()?;
        let path = self.path(&record.network, &record.container_id, &record.ifname);
        self.write(record, &path).map_err(|source| Error::Cache { action: "writing", path, source })
    }

    fn write(&self, record: &Record, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.results)?;
        // A name that begins with a dot is no record, neither for us nor for libcni's search by container.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.results.join(format!(".{name}"));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        io::Write::write_all(&mut file, &record.to_json()?)?;
        fs::rename(&temporary, path)
    }

    /// The record of an attachment. One that cannot be understood is as good as none, and is reported in the log.
    ///
    /// # Errors
    /// [`Error::Cache`] when the file cannot be read.
    pub fn get(&self, network: &str, container_id: &str, ifname: &str) -> Result<Option<Record>, Error> {
        let path = self.path(network, container_id, ifname);
        match read_record(&path) {
            Ok(record) => Ok(Some(record)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(path = %path.display(), error = %e, "attachment record is damaged");
                Ok(None)
            }
            Err(source) => Err(Error::Cache { action: "reading", path, source }),
        }
    }

    /// Removes the record; one that does not exist is removed already.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn remove(&self, network: &str, container_id: &str, ifname: &str) -> Result<(), Error> {
        let path = self.path(network, container_id, ifname);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::Cache { action: "removing", path, source: e }),
            _ => Ok(()),
        }
    }

    /// All records, or those of one container. Files that are no records of ours are passed over: the directory may
    /// have other users.
    ///
    /// # Errors
    /// [`Error::Cache`] when the directory cannot be listed.
    pub fn list(&self, container_id: Option<&str>) -> Result<Vec<Record>, Error> {
        let failed = |source| Error::Cache { action: "listing", path: self.results.clone(), source };
        let entries = match fs::read_dir(&self.results) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let part = container_id.map(|id| format!("-{id}-"));
        let mut records = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || part.as_ref().is_some_and(|part| !name.contains(part.as_str())) {
                continue;
            }
            match read_record(&entry.path()) {
                Ok(record) if container_id.is_none_or(|id| id == record.container_id) => records.push(record),
                Ok(_) => {}
                Err(e) => tracing::debug!(file = %name, error = %e, "not an attachment record"),
            }
        }
        records.sort_by(|a, b| (&a.container_id, &a.ifname).cmp(&(&b.container_id, &b.ifname)));
        Ok(records)
    }

    fn path(&self, network: &str, container_id: &str, ifname: &str) -> PathBuf {
        self.results.join(format!("{network}-{container_id}-{ifname}"))
    }
}

/// The whole file, or `None` when it is longer than `limit` bytes.
pub(crate) fn read_limited(file: File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "bounded by take on the same line")]
    file.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn read_record(path: &Path) -> io::Result<Record> {
    let bytes = read_limited(File::open(path)?, MAX_RECORD)?;
    let bytes = bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "too long"))?;
    // serde_json's own errors become InvalidData or UnexpectedEof; both mean a damaged record.
    Record::from_json(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Record::from_json(&bytes);
        }

        #[test]
        fn records_come_back_as_they_were(
            names in ["[a-z0-9][a-z0-9_.-]{0,30}", "[a-z0-9][a-z0-9_.-]{0,30}"],
            ifname in "[a-z]{1,15}",
            config in proptest::collection::vec(any::<u8>(), 0..64),
            args in proptest::collection::vec(("[A-Z_]{1,9}", "\\PC{0,9}"), 0..4),
            capability in proptest::option::of("\\PC{0,9}"),
            result in proptest::option::of("\\PC{0,9}"),
            ours in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::new(dir.path());
            let map = |text: String| Map::from_iter([("x".to_owned(), Value::String(text))]);
            let record = Record {
                network: names[0].clone(),
                container_id: names[1].clone(),
                ifname,
                netns: "/n".to_owned(),
                config,
                args,
                capability_args: capability.map(|c| ("c".to_owned(), Value::String(c))).into_iter().collect(),
                result: result.map(map),
                ours,
            };
            cache.put(&record).unwrap();
            prop_assert_eq!(cache.get(&record.network, &record.container_id, &record.ifname).unwrap(), Some(record.clone()));
            prop_assert_eq!(cache.list(Some(&record.container_id)).unwrap(), [record.clone()]);
            prop_assert_eq!(cache.list(Some("other")).unwrap(), []);
            cache.remove(&record.network, &record.container_id, &record.ifname).unwrap();
            cache.remove(&record.network, &record.container_id, &record.ifname).unwrap();
            prop_assert_eq!(cache.list(None).unwrap(), []);
        }
    }

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record {
            network: "../../x".to_owned(),
            container_id: "c".to_owned(),
            ifname: "eth0".to_owned(),
            netns: String::new(),
            config: Vec::new(),
            args: Vec::new(),
            capability_args: BTreeMap::new(),
            result: None,
            ours: true,
        };
        assert!(matches!(Cache::new(dir.path()).put(&record), Err(Error::Invalid(_))));
    }
}
