//! Bundles: the directory of a running container or sandbox, which shims share with the daemon.
//!
//! Layout (containerd's): `<state>/<namespace>/<id>/` with `config.json`, `rootfs/`, `work` (a link to
//! `<root>/<namespace>/<id>`), `log` (a FIFO), and what a restarted daemon needs to find the shim again:
//! `bootstrap.json`, `shim-binary-path`, `sandbox`. Everything here blocks.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use kevel_model::Namespace;
use kevel_mount::UnmountFlags;

use crate::{Bootstrap, Error, Result};

/// The file of a container whose shim a sandbox controller named; ours, and unknown to other daemons.
const HOST: &str = "sandbox-address";
/// The longest small file that is read from a bundle, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Where the bundles of one plugin are.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// Directory of bundles; lost by a reboot, normally.
    pub state: PathBuf,
    /// Directory of working directories; kept.
    pub root: PathBuf,
}

/// A bundle on disk. The value is only its place: dropping it removes nothing.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The bundle's directory.
    pub path: PathBuf,
    /// Its working directory, which `work` links to.
    pub work: PathBuf,
}

impl Bundle {
    /// The place of a bundle, whether it exists or not.
    pub(crate) fn at(dirs: &Dirs, namespace: &Namespace, id: &str) -> Self {
        let below = |dir: &Path| dir.join(namespace.as_str()).join(id);
        Self { path: below(&dirs.state), work: below(&dirs.root) }
    }

    /// Makes a bundle with a spec (JSON). What was made is removed again when a step fails.
    pub(crate) fn create(dirs: &Dirs, namespace: &Namespace, id: &str, spec: Option<&[u8]>) -> Result<Self> {
        let bundle = Self::at(dirs, namespace, id);
        make_parents(&bundle.path)?;
        make_parents(&bundle.work)?;
        make_dir(&bundle.path, 0o700)?;
        match bundle.fill(spec) {
            Ok(()) => Ok(bundle),
            Err(error) => {
                if let Err(left) = bundle.remove() {
                    tracing::warn!(path = ?bundle.path, error = %left, "a half made bundle stays");
                }
                Err(error)
            }
        }
    }

    fn fill(&self, spec: Option<&[u8]>) -> Result<()> {
        if let Some(group) = spec.and_then(mapped_group) {
            let failed =
                |source| Error::Bundle { doing: "giving to the container's user", path: self.path.clone(), source };
            chown(&self.path, None, Some(group)).map_err(failed)?;
            fs::set_permissions(&self.path, fs::Permissions::from_mode(0o710)).map_err(failed)?;
        }
        make_dir(&self.path.join("rootfs"), 0o711)?;
        if self.work.exists() {
            remove_dir(&self.work)?; // of a container before, cut short by a crash
        }
        make_dir(&self.work, 0o711)?;
        let link = self.path.join("work");
        symlink(&self.work, &link).map_err(|source| Error::Bundle { doing: "linking", path: link, source })?;
        spec.map_or(Ok(()), |spec| self.write("config.json", spec))
    }

    /// Unmounts the root file system and removes both directories; one that is gone already is fine. Nothing is removed
    /// while something is still mounted, because that would remove what is mounted.
    pub(crate) fn remove(&self) -> Result<()> {
        let failed = |source| Error::Unmount { path: self.path.clone(), source };
        kevel_mount::unmount_recursive(&self.path, UnmountFlags::DETACH).map_err(failed)?;
        let hidden = self.hidden();
        if hidden.exists() {
            remove_dir(&hidden)?;
        }
        match fs::rename(&self.path, &hidden) {
            Ok(()) => remove_dir(&hidden)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Bundle { doing: "removing", path: self.path.clone(), source }),
        }
        remove_dir(&self.work)
    }

    /// Where a bundle lies between being taken away and being gone; a name with a dot is no container's.
    fn hidden(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}"))
    }

    /// Writes a file so that a crash leaves the old one or the new one.
    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let partial = self.path.join(format!(".{name}"));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(content)?;
            fs::rename(&partial, &path)
        };
        write().map_err(|source| Error::Bundle { doing: "writing", path: path.clone(), source })
    }

    /// A small file's content; `None` when there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let mut content = Vec::new();
        let read = fs::File::open(&path).and_then(|file| {
            #[expect(clippy::disallowed_methods, reason = "limited by take")]
            file.take(MAX_FILE).read_to_end(&mut content)
        });
        match read {
            Ok(_) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Bundle { doing: "reading", path, source }),
        }
    }

    /// Notes how to reach the shim and which binary it is, for a daemon that comes later.
    pub(crate) fn note(&self, bootstrap: &Bootstrap, binary: &Path, sandbox: &str) -> Result<()> {
        let json = serde_json::to_vec(bootstrap)
            .map_err(|error| Error::Invalid(format!("encoding bootstrap.json: {error}")))?;
        self.write("shim-binary-path", binary.as_os_str().as_encoded_bytes())?;
        if !sandbox.is_empty() {
            self.write("sandbox", sandbox.as_bytes())?;
        }
        self.write("bootstrap.json", &json)
    }

    /// Notes that the shim is a sandbox controller's, who named its address.
    pub(crate) fn note_host(&self, bootstrap: &Bootstrap) -> Result<()> {
        self.write(HOST, bootstrap.address.as_bytes())
    }

    /// Whether the shim is a sandbox controller's, as noted.
    pub(crate) fn is_hosted(&self) -> Result<bool> {
        Ok(self.read(HOST)?.is_some())
    }

    /// How to reach the shim, as noted; daemons before containerd 1.7 noted the address alone.
    pub(crate) fn bootstrap(&self) -> Result<Bootstrap> {
        let (name, noted) = match self.read("bootstrap.json")? {
            Some(noted) => ("bootstrap.json", noted),
            None => ("address", self.read("address")?.unwrap_or_default()),
        };
        Bootstrap::from_text(&noted).map_err(|error| {
            let source = io::Error::new(io::ErrorKind::InvalidData, error);
            Error::Bundle { doing: "understanding", path: self.path.join(name), source }
        })
    }

    /// The binary of the shim, as noted.
    pub(crate) fn binary(&self) -> Result<Option<PathBuf>> {
        let noted = self.read("shim-binary-path")?;
        Ok(noted.map(|path| PathBuf::from(String::from_utf8_lossy(path.trim_ascii()).into_owned())))
    }

    /// The sandbox that the container joined; empty when it did not.
    pub(crate) fn sandbox(&self) -> Result<String> {
        Ok(self.read("sandbox")?.map(|id| String::from_utf8_lossy(id.trim_ascii()).into_owned()).unwrap_or_default())
    }
}

/// The group on the host that is group 0 in the container's user namespace, if it has one of its own.
fn mapped_group(spec: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Linux {
        #[serde(default)]
        gid_mappings: Vec<Mapping>,
    }
    #[derive(serde::Deserialize)]
    struct Mapping {
        #[serde(rename = "containerID")]
        container: u32,
        #[serde(rename = "hostID")]
        host: u32,
        size: u32,
    }
    let linux = serde_json::from_slice::<Spec>(spec).ok()?.linux?;
    linux.gid_mappings.iter().find(|map| map.container == 0 && map.size > 0).map(|map| map.host)
}

fn make_parents(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o711).create(parent).map_err(|source| Error::Bundle {
        doing: "making",
        path: parent.to_owned(),
        source,
    })
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().mode(mode).create(path);
    made.map_err(|source| Error::Bundle { doing: "making", path: path.to_owned(), source })
}

pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| Error::Bundle { doing: "removing", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use std::os::unix::fs::MetadataExt as _;

    fn dirs(base: &Path) -> Dirs {
        Dirs { state: base.join("state"), root: base.join("root") }
    }

    #[test]
    fn a_bundle_has_containerds_layout_and_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let dirs = dirs(base.path());
        let namespace = Namespace::k8s();
        let bundle = Bundle::create(&dirs, &namespace, "c1", Some(b"{}")).unwrap();
        assert_eq!(bundle.path, base.path().join("state/k8s.io/c1"));
        assert_eq!(bundle.path.metadata().unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_link(bundle.path.join("work")).unwrap(), base.path().join("root/k8s.io/c1"));
        assert_eq!(fs::read(bundle.path.join("config.json")).unwrap(), b"{}");
        assert!(bundle.path.join("rootfs").is_dir());
        assert!(Bundle::create(&dirs, &namespace, "c1", None).is_err(), "a second one of the name is refused");

        let bootstrap = Bootstrap { version: 3, address: "unix:///s".into(), protocol: Protocol::Ttrpc };
        bundle.note(&bootstrap, Path::new("/bin/shim"), "pod").unwrap();
        assert_eq!(bundle.bootstrap().unwrap(), bootstrap);
        assert_eq!(bundle.binary().unwrap(), Some("/bin/shim".into()));
        assert_eq!(bundle.sandbox().unwrap(), "pod");

        bundle.remove().unwrap();
        bundle.remove().unwrap();
        for dir in [&dirs.state, &dirs.root] {
            assert_eq!(fs::read_dir(dir.join("k8s.io")).unwrap().count(), 0, "{dir:?}");
        }
    }

    #[test]
    fn the_note_of_an_old_daemon_is_read() {
        let base = tempfile::tempdir().unwrap();
        let bundle = Bundle::create(&dirs(base.path()), &Namespace::k8s(), "c1", None).unwrap();
        assert!(bundle.bootstrap().is_err());
        fs::write(bundle.path.join("address"), "unix:///run/containerd/s/abc").unwrap();
        assert_eq!(bundle.bootstrap().unwrap().address, "unix:///run/containerd/s/abc");
        assert_eq!(bundle.bootstrap().unwrap().version, 2);
    }

    #[test]
    fn a_container_with_users_of_its_own_may_enter_its_bundle() {
        let spec = br#"{"linux":{"gidMappings":[{"containerID":0,"hostID":70000,"size":65536}]}}"#;
        assert_eq!(mapped_group(spec), Some(70000));
        for other in ["", "{}", r#"{"linux":{}}"#, r#"{"linux":{"gidMappings":[]}}"#] {
            assert_eq!(mapped_group(other.as_bytes()), None, "{other}");
        }
    }
}
