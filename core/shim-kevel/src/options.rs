//! Options of a handler: containerd's for runc, as the message of that name or as the table of a configuration file. In the
//! bundle they stand as containerd's own shim writes them, so that either shim's `delete` reads the other's.

use std::path::Path;

use kevel_proto::{any, containerd::runc::v1 as runc, runtimeoptions::v1 as generic};
use kevel_shim::read_small;
use prost_types::Any;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where runtimes keep their state when nobody says.
const ROOT: &str = "/run/containerd/runc";
/// The runtime when nobody says.
const BINARY: &str = "runc";

/// The options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    #[serde(alias = "NoPivotRoot", skip_serializing_if = "is_default")]
    pub(crate) no_pivot_root: bool,
    #[serde(alias = "NoNewKeyring", skip_serializing_if = "is_default")]
    pub(crate) no_new_keyring: bool,
    #[serde(alias = "ShimCgroup", skip_serializing_if = "is_default")]
    pub(crate) shim_cgroup: String,
    #[serde(alias = "IoUid", skip_serializing_if = "is_default")]
    pub(crate) io_uid: u32,
    #[serde(alias = "IoGid", skip_serializing_if = "is_default")]
    pub(crate) io_gid: u32,
    #[serde(alias = "BinaryName", skip_serializing_if = "is_default")]
    pub(crate) binary_name: String,
    #[serde(alias = "Root", skip_serializing_if = "is_default")]
    pub(crate) root: String,
    #[serde(alias = "SystemdCgroup", skip_serializing_if = "is_default")]
    pub(crate) systemd_cgroup: bool,
    #[serde(alias = "CriuImagePath", skip_serializing_if = "is_default")]
    pub(crate) criu_image_path: String,
    #[serde(alias = "CriuWorkPath", skip_serializing_if = "is_default")]
    pub(crate) criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Options {
    /// Reads what a daemon sends. Without anything, everything is as usual.
    pub(crate) fn of(given: Option<&Any>) -> Result<Self> {
        let Some(given) = given.filter(|any| !any.type_url.is_empty()) else { return Ok(Self::default()) };
        let wrong = |error: any::AnyError| Error::Invalid(format!("options: {error}"));
        if any::is::<runc::Options>(given) {
            return Ok(any::unpack::<runc::Options>(given).map_err(wrong)?.into());
        }
        if any::is::<runc::CheckpointOptions>(given) {
            return Ok(Self::default()); // of a restored container; what is in them is for the checkpoint
        }
        if any::is::<generic::Options>(given) {
            return Self::of_table(&any::unpack::<generic::Options>(given).map_err(wrong)?);
        }
        Err(Error::Invalid(format!("options: {:?} is no type of options that this shim knows", given.type_url)))
    }

    /// Reads the table that daemons send for every runtime but runc's: in a file, or as it is.
    fn of_table(given: &generic::Options) -> Result<Self> {
        let text = if given.config_path.is_empty() {
            given.config_body.clone()
        } else {
            let missing = || Error::Invalid(format!("options: config_path {:?} does not exist", given.config_path));
            read_small(Path::new(&given.config_path))?.ok_or_else(missing)?
        };
        let text = String::from_utf8(text).map_err(|_| Error::Invalid("options: the table is no text".to_owned()))?;
        toml::from_str(&text).map_err(|error| Error::Invalid(format!("options: {}", error.to_string().trim())))
    }

    /// The runtime's program.
    pub(crate) fn binary(&self) -> &str {
        if self.binary_name.is_empty() { BINARY } else { &self.binary_name }
    }

    /// Where the runtime keeps the state of a namespace.
    pub(crate) fn state(&self, namespace: &str) -> std::path::PathBuf {
        Path::new(if self.root.is_empty() { ROOT } else { &self.root }).join(namespace)
    }
}

impl From<runc::Options> for Options {
    fn from(given: runc::Options) -> Self {
        Self {
            no_pivot_root: given.no_pivot_root,
            no_new_keyring: given.no_new_keyring,
            shim_cgroup: given.shim_cgroup,
            io_uid: given.io_uid,
            io_gid: given.io_gid,
            binary_name: given.binary_name,
            root: given.root,
            systemd_cgroup: given.systemd_cgroup,
            criu_image_path: given.criu_image_path,
            criu_work_path: given.criu_work_path,
        }
    }
}

impl From<Options> for runc::Options {
    fn from(own: Options) -> Self {
        Self {
            no_pivot_root: own.no_pivot_root,
            no_new_keyring: own.no_new_keyring,
            shim_cgroup: own.shim_cgroup,
            io_uid: own.io_uid,
            io_gid: own.io_gid,
            binary_name: own.binary_name,
            root: own.root,
            systemd_cgroup: own.systemd_cgroup,
            criu_image_path: own.criu_image_path,
            criu_work_path: own.criu_work_path,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_tables_and_files_say_the_same() {
        let want = Options { binary_name: "crun".into(), systemd_cgroup: true, io_uid: 7, ..Options::default() };
        let message = any::pack(&runc::Options::from(want.clone()));
        assert_eq!(Options::of(Some(&message)).unwrap(), want);
        let table = "BinaryName = \"crun\"\nSystemdCgroup = true\nIoUid = 7\nUnknown = 1\n";
        let body = generic::Options { config_body: table.into(), ..generic::Options::default() };
        assert_eq!(Options::of(Some(&any::pack(&body))).unwrap(), want);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, table).unwrap();
        let config_path = file.path().display().to_string();
        let path = generic::Options { config_path, ..generic::Options::default() };
        assert_eq!(Options::of(Some(&any::pack(&path))).unwrap(), want);
        assert_eq!(Options::of(None).unwrap(), Options::default());
        assert_eq!((want.binary(), Options::default().binary()), ("crun", "runc"));
        assert_eq!(Options::default().state("n"), Path::new("/run/containerd/runc/n"));
    }

    #[test]
    fn in_a_bundle_they_read_as_containerds() {
        let own = Options { binary_name: "runc".into(), root: "/r".into(), systemd_cgroup: true, ..Options::default() };
        let json = r#"{"binary_name":"runc","root":"/r","systemd_cgroup":true}"#;
        assert_eq!(serde_json::to_string(&own).unwrap(), json);
        assert_eq!(serde_json::from_str::<Options>(json).unwrap(), own);
    }

    #[test]
    fn mistakes_are_named() {
        for (any, part) in [
            (Any { type_url: "some.Options".into(), value: vec![] }, "some.Options"),
            (any::pack(&generic::Options { config_path: "/no/such".into(), ..Default::default() }), "/no/such"),
            (any::pack(&generic::Options { config_body: "IoUid = \"x\"".into(), ..Default::default() }), "IoUid"),
        ] {
            let error = Options::of(Some(&any)).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
