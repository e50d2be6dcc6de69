//! Network namespaces, pinned by a bind mount so that they live without a process.
//!
//! A thread that enters a namespace is never given back to the async runtime: each operation has a thread of its own,
//! which ends with it.

mod link;
mod sysctl;

use crate::Error;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// Where namespaces are pinned unless told otherwise; `ip netns` looks there too.
pub const DEFAULT_DIR: &str = "/var/run/netns";
/// Names begin with this, and nothing else in the directory is touched.
const PREFIX: &str = "cni-";

/// A pinned network namespace. Dropping the value leaves the namespace; [`Netns::remove`] ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    path: PathBuf,
}

/// How a namespace is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the pin.
    pub dir: PathBuf,
    /// `net.*` settings in it, such as `net.ipv4.ping_group_range`.
    pub sysctls: Vec<(String, String)>,
    /// Where the namespace comes from.
    pub origin: Origin,
}

/// Where a namespace comes from, which decides which user namespace owns it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Origin {
    /// A new one, owned by the daemon's user namespace.
    #[default]
    New,
    /// One that exists, for example `/proc/<pid>/ns/net` of a process that was cloned into a user namespace of its
    /// own together with it: a threaded process cannot enter a user namespace, so somebody else has to.
    Existing(PathBuf),
}

/// A file in the directory of pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The file.
    pub netns: Netns,
    /// Whether a namespace is mounted on it; if not, it is the rest of an interrupted creation or removal.
    pub alive: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dir: PathBuf::from(DEFAULT_DIR), sysctls: Vec::new(), origin: Origin::New }
    }
}

impl Netns {
    /// Makes a namespace with `lo` up and the given settings, and pins it as `cni-<uuid>`. A failure leaves nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting that is not of the network, [`Error::Netns`].
    pub async fn create(options: Options) -> Result<Self, Error> {
        let netns = Self::plan(&options.dir)?;
        netns.make(&options.sysctls, options.origin).await?;
        Ok(netns)
    }

    /// A place in `dir` for a namespace that is still to be made. Whoever records it before [`Netns::make`] can remove
    /// the namespace whenever a crash comes between.
    ///
    /// # Errors
    /// [`Error::Netns`] when the kernel gives no random name.
    pub fn plan(dir: &Path) -> Result<Self, Error> {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| failed("naming", dir, e))?;
        Ok(Self { path: dir.join(format!("{PREFIX}{}", uuid.trim())) })
    }

    /// Makes the namespace at its place, which must be free, with `lo` up and the given settings. A failure leaves
    /// nothing.
    ///
    /// # Errors
    /// As [`Netns::create`].
    pub async fn make(&self, sysctls: &[(String, String)], origin: Origin) -> Result<(), Error> {
        let settings = sysctl::parse(sysctls)?;
        let path = self.path.clone();
        let abandoned = path.clone();
        let make = move || {
            let source = match &origin {
                Origin::New => {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    PathBuf::from("/proc/thread-self/ns/net")
                }
                Origin::Existing(source) => {
                    setns(File::open(source)?, CloneFlags::CLONE_NEWNET)?;
                    source.clone()
                }
            };
            link::up("lo")?;
            sysctl::apply(&settings)?;
            pin(&source, &path)
        };
        // A caller that went away can remove nothing.
        let undo = move |_| _ = unpin(&abandoned);
        match on_thread_or(make, undo).await.and_then(|made| made) {
            Ok(()) => Ok(()),
            Err(e) => {
                if let Err(left) = self.remove().await {
                    tracing::warn!(path = %self.path.display(), error = %left.chain(), "network namespace is left");
                }
                Err(failed("creating", &self.path, e))
            }
        }
    }

    /// The namespace at `path`, which must be one.
    ///
    /// # Errors
    /// [`Error::Netns`] when there is no network namespace.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let netns = Self::at(path);
        match netns.is_alive() {
            Ok(true) => Ok(netns),
            Ok(false) => {
                Err(failed("opening", &netns.path, io::Error::new(io::ErrorKind::InvalidData, "not a namespace")))
            }
            Err(e) => Err(failed("opening", &netns.path, e)),
        }
    }

    /// A name for what is or was at `path`, to remove it.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The pin, which is what plugins and runtimes get.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts and unlinks the pin. The namespace ends with its last process. Repeating it is no error.
    ///
    /// # Errors
    /// [`Error::Netns`]; it can be tried again.
    pub async fn remove(&self) -> Result<(), Error> {
        let path = self.path.clone();
        on_thread(move || unpin(&path)).await.and_then(|done| done).map_err(|e| failed("removing", &self.path, e))
    }

    /// Runs a blocking closure inside the namespace, on a thread of its own. What it spawns inherits the namespace.
    ///
    /// # Errors
    /// [`Error::Netns`] when the namespace cannot be entered, or the closure panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let path = self.path.clone();
        let entered = on_thread(move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        entered.await.and_then(|done| done).map_err(|e| failed("entering", &self.path, e))
    }

    /// Brings `lo` up; it is up already in a namespace from [`Self::create`].
    ///
    /// # Errors
    /// [`Error::Netns`].
    pub async fn loopback_up(&self) -> Result<(), Error> {
        self.run(|| link::up("lo")).await?.map_err(|e| failed("bringing lo up in", &self.path, e))
    }

    /// Whether `lo` is up.
    ///
    /// # Errors
    /// [`Error::Netns`].
    pub async fn is_loopback_up(&self) -> Result<bool, Error> {
        self.run(|| link::is_up("lo")).await?.map_err(|e| failed("looking at lo in", &self.path, e))
    }

    /// All pins of ours in a directory, for a recovery that knows which ones are in use.
    ///
    /// # Errors
    /// [`Error::Netns`]; a directory that does not exist has none.
    pub fn list(dir: &Path) -> Result<Vec<Pin>, Error> {
        let error = |e| failed("listing", dir, e);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(error(e)),
        };
        let mut pins = Vec::new();
        for entry in entries {
            let entry = entry.map_err(error)?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let netns = Self::at(entry.path());
                let alive = netns.is_alive().unwrap_or(false);
                pins.push(Pin { netns, alive });
            }
        }
        pins.sort_by(|a, b| a.netns.path.cmp(&b.netns.path));
        Ok(pins)
    }

    fn is_alive(&self) -> io::Result<bool> {
        is_namespace(&self.path)
    }
}

/// Whether the file is a namespace; after a reboot a pin may be an empty file.
pub(crate) fn is_namespace(path: &Path) -> io::Result<bool> {
    /// What `statfs` says of files that are namespaces.
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    Ok(rustix::fs::statfs(path)?.f_type == NSFS_MAGIC)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Netns { action, path: path.to_owned(), source }
}

fn pin(source: &Path, path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // Exclusive: mounting on a file that somebody else made would hide it.
    OpenOptions::new().write(true).create_new(true).open(path)?;
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn unpin(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    // Not a mount point any more (EINVAL) and gone (ENOENT) are steps that an earlier removal took.
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Runs on a thread that ends afterwards, so that its namespace touches nobody else.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    on_thread_or(work, drop).await
}

/// The same; `undo` gets what nobody waits for any more.
async fn on_thread_or<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    undo: impl FnOnce(T) + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("netns".to_owned());
    thread.spawn(move || sender.send(work()).map_err(undo).ok())?;
    receiver.await.map_err(|_| io::Error::other("the namespace thread panicked"))
}
