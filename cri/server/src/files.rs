//! The directories and files of sandboxes and containers, in containerd's places.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kevel_model::{Error, Mount, Result};
use kevel_mount::UnmountFlags;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    root: PathBuf,
    state: PathBuf,
}

impl Files {
    /// `root` survives a reboot, `state` need not.
    pub(crate) fn new(root: PathBuf, state: PathBuf) -> Self {
        Self { root, state }
    }

    /// A sandbox's `hostname`, `hosts` and `resolv.conf`.
    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.root.join("sandboxes").join(id)
    }

    /// A sandbox's `shm`.
    pub(crate) fn sandbox_state(&self, id: &str) -> PathBuf {
        self.state.join("sandboxes").join(id)
    }

    /// Where the user namespace of a sandbox is pinned.
    pub(crate) fn user_namespace(&self, id: &str) -> PathBuf {
        self.sandbox_state(id).join("userns")
    }

    /// Where images are mounted that are volumes of a sandbox.
    pub(crate) fn image_volumes(&self, id: &str) -> PathBuf {
        self.state.join("image-volumes").join(id)
    }

    /// A container's `status` and volumes.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// A container's pipes.
    pub(crate) fn container_state(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }

    /// The file with a container's state.
    pub(crate) fn status(&self, id: &str) -> PathBuf {
        self.container(id).join("status")
    }

    /// Where root file systems are mounted for a look.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.state.join("tmp")
    }

    /// Where network namespaces are pinned, when not in the usual place.
    pub(crate) fn netns(&self) -> PathBuf {
        self.state.join("netns")
    }

    /// Names of the directories of sandboxes (or containers) that exist.
    pub(crate) fn existing(&self, kind: &str) -> Vec<String> {
        let mut names: Vec<String> = [&self.root, &self.state]
            .into_iter()
            .filter_map(|dir| fs::read_dir(dir.join(kind)).ok())
            .flat_map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// What a sandbox's files say.
#[derive(Clone, Debug, Default)]
pub(crate) struct SandboxFiles {
    /// The name in `hostname`; empty for the node's.
    pub(crate) hostname: String,
    /// Text of `resolv.conf`; none for the node's.
    pub(crate) resolv_conf: Option<String>,
    /// Mount a `/dev/shm` of its own.
    pub(crate) shm: bool,
}

/// Size of a pod's shared memory.
const SHM: &str = "size=65536k";

/// Makes a sandbox's directories, files and shared memory. Blocks. A failure leaves what [`remove_sandbox`] removes.
pub(crate) fn make_sandbox(files: &Files, id: &str, content: &SandboxFiles) -> Result<()> {
    let (dir, state) = (files.sandbox(id), files.sandbox_state(id));
    make_dir(&dir)?;
    make_dir(&state)?;
    let hostname = match content.hostname.as_str() {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    write(&dir.join("hostname"), format!("{hostname}\n").as_bytes())?;
    write(&dir.join("hosts"), &read_if_there(Path::new("/etc/hosts"))?)?;
    let resolv_conf = match &content.resolv_conf {
        Some(text) => text.clone().into_bytes(),
        None => read_if_there(Path::new("/etc/resolv.conf"))?,
    };
    write(&dir.join("resolv.conf"), &resolv_conf)?;
    if content.shm {
        let shm = state.join("shm");
        make_dir(&shm)?;
        let mount = Mount {
            kind: "tmpfs".to_owned(),
            source: "shm".to_owned(),
            options: ["noexec", "nosuid", "nodev", "mode=1777", SHM].map(str::to_owned).to_vec(),
            ..Default::default()
        };
        kevel_mount::mount(&mount, &shm)?;
    }
    Ok(())
}

/// Pins a namespace of a sandbox at `path`, so that it lives without a process. Blocks.
pub(crate) fn pin(namespace: &Path, path: &Path) -> Result<()> {
    write(path, b"")?;
    let mount = Mount {
        kind: "bind".to_owned(),
        source: namespace.to_string_lossy().into_owned(),
        options: vec!["bind".to_owned()],
        ..Default::default()
    };
    Ok(kevel_mount::mount(&mount, path)?)
}

/// Unmounts a sandbox's shared memory and its pinned user namespace. Blocks; repeating it is no error.
pub(crate) fn unmount_sandbox(files: &Files, id: &str) -> Result<()> {
    for mounted in [files.sandbox_state(id).join("shm"), files.user_namespace(id)] {
        if mounted.exists() {
            kevel_mount::unmount_all(&mounted, UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

/// Removes a sandbox's files. Blocks; repeating it is no error.
pub(crate) fn remove_sandbox(files: &Files, id: &str) -> Result<()> {
    remove_sandbox_root(files, id)?;
    remove_dir(&files.sandbox_state(id))
}

/// Removes a sandbox's files but its state directory, of which it only unmounts the shared memory. Blocks.
pub(crate) fn remove_sandbox_root(files: &Files, id: &str) -> Result<()> {
    unmount_sandbox(files, id)?;
    remove_dir(&files.sandbox(id))
}

/// Makes a directory that only root can look into, and those above it. Blocks.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| Error::io(format!("making directory {}", path.display()), error))
}

/// Removes a directory with everything in it. Blocks; one that is not there is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing directory {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(|error| Error::io(format!("writing {}", path.display()), error))
}

fn read_if_there(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| Error::io(format!("reading {}", path.display()), error)),
    }
}

/// Runs something that blocks where that harms nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("work on the file system panicked").with_source(error))?
}
