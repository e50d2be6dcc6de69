//! Taking up the shims of the daemon before this one.
//!
//! Each bundle is looked at on its own task, with a budget; whoever asks for one container waits for that one only, so
//! the daemon serves at once. After a reboot no shim can live: bundles are then removed without asking anyone.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use kevel_cgroup::Families;
use kevel_model::{Namespace, check_identifier};
use kevel_proto::shim::task::{StateRequest, StateResponse, method};
use kevel_ttrpc::Code;
use tokio::sync::Semaphore;

use super::{Key, ShimManager, start::blocking, stray};
use crate::{
    Bundle, Dirs, Error, Result, Role, Shim,
    address::Address,
    bundle::remove_dir,
    log,
    shim::{Parts, is},
};

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where the boot is noted that the bundles are from; a name with a dot is no namespace's.
const NOTED_BOOT: &str = ".boot-id";
/// Between two looks at whether the runtime is done.
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);
/// How long a shim that starts has from making its socket to listening at it.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(1);
/// How many shims are taken up at the same time.
const PARALLEL: usize = 32;

/// Which runtime's shim a container uses, by namespace and id; asked when its bundle does not tell.
pub type RuntimeOf =
    Arc<dyn Fn(Namespace, String) -> futures::future::BoxFuture<'static, Option<String>> + Send + Sync>;

/// One look at every process of the node, for all that is taken up.
type Look = Arc<LazyLock<Families>>;

/// What was found on disk.
struct Found {
    bundles: Vec<Key>,
    rebooted: bool,
}

/// Whether a daemon that is gone had a checkpoint made of the container.
async fn was_saved(families: Look, shim: &Shim) -> bool {
    let (Some(parent), id) = (shim.pid(), shim.id.clone()) else { return false };
    blocking(move || Ok(!stray::checkpoints(&families, parent, &id).is_empty())).await.unwrap_or(true)
}

impl ShimManager {
    /// Looks for bundles and starts taking their shims up. Answers when every bundle has its place, before the shims
    /// have been reached; the returned task ends when all of them have been dealt with.
    ///
    /// # Errors
    ///
    /// When the directories can't be read.
    pub async fn recover(&self, dirs: Dirs, role: Role, runtime_of: RuntimeOf) -> Result<tokio::task::JoinHandle<()>> {
        let place = dirs.clone();
        let found = blocking(move || scan(&place)).await?;
        let permits = Arc::new(Semaphore::new(PARALLEL));
        let families = Arc::new(LazyLock::new(stray::families as fn() -> Families));
        let mut tasks = tokio::task::JoinSet::new();
        for key in found.bundles {
            let (manager, dirs, runtime_of) = (self.clone(), dirs.clone(), runtime_of.clone());
            let (permits, families) = (permits.clone(), families.clone());
            let (started, start) = tokio::sync::oneshot::channel();
            tasks.spawn(async move {
                let Some(place) = manager.inner.table.load(key.clone()) else { return };
                let _ = started.send(());
                let _permit = permits.acquire().await;
                let bundle = Bundle::at(&dirs, &key.0, &key.1);
                if found.rebooted {
                    manager.bury(role, &key.0, &key.1, None).await;
                    return manager.remove_bundle(&bundle).await;
                }
                if let Some(shim) = manager.take_up(&key, role, bundle, &runtime_of, families).await {
                    place.fill(shim.clone());
                    manager.watch(shim);
                }
            });
            let _ = start.await; // no longer waiting than until the place is taken, or was before
        }
        let (namespaces, manager) = (dirs.clone(), self.clone());
        Ok(tokio::spawn(async move {
            while tasks.join_next().await.is_some() {}
            manager.remove_dead_sockets().await;
            let _ = blocking(move || {
                remove_orphans(&namespaces);
                Ok(())
            })
            .await;
        }))
    }

    /// Connects to a bundle's shim; when nobody is there, or it does not know the container, removes what is left.
    async fn take_up(
        &self,
        key: &Key,
        role: Role,
        bundle: Bundle,
        runtime_of: &RuntimeOf,
        families: Look,
    ) -> Option<Arc<Shim>> {
        let (namespace, id) = key;
        let binary = self.binary_of(key, &bundle, runtime_of).await;
        let limit = self.inner.timeouts.load;
        let loaded = tokio::time::timeout(limit, self.load(key, role, &bundle, binary.clone(), families)).await;
        let why = match loaded {
            Ok(Ok(Some(shim))) => return Some(Arc::new(shim)),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(kevel_model::Error::from(error).chain()),
            Err(_) => Some(format!("its shim did not answer within {limit:?}")),
        };
        let response = match why {
            Some(why) => {
                tracing::warn!(id, %namespace, why, "a container of the daemon before is lost; cleaning up");
                let noted = bundle.bootstrap();
                let response = self.abandon(&binary, namespace, id, &bundle).await;
                if let Ok(bootstrap) = noted {
                    self.remove_socket(&bootstrap).await;
                }
                response
            }
            // The shim is well, and may serve others.
            None => {
                tracing::warn!(id, %namespace, "a container of the daemon before was not created; cleaning up");
                self.run_delete(&binary, namespace, id, &bundle).await
            }
        };
        self.bury(role, namespace, id, response).await;
        self.remove_bundle(&bundle).await;
        None
    }

    /// Removes sockets that nobody listens at: a shim that the daemon before was starting when it ended had made its own
    /// before anybody noted where. Looks twice, as a shim that starts now may have made one that it does not listen at yet.
    async fn remove_dead_sockets(&self) {
        let Some(dir) = self.inner.daemon.socket_dir.clone() else { return };
        let mut dead = Vec::new();
        for socket in blocking(move || Ok(sockets(&dir))).await.unwrap_or_default() {
            if socket.is_dead().await {
                dead.push(socket);
            }
        }
        if dead.is_empty() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        for socket in dead {
            socket.remove_dead().await;
        }
    }

    async fn binary_of(&self, key: &Key, bundle: &Bundle, runtime_of: &RuntimeOf) -> PathBuf {
        if let Ok(Some(binary)) = bundle.binary() {
            return binary;
        }
        let Some(runtime) = runtime_of(key.0.clone(), key.1.clone()).await else { return PathBuf::new() };
        self.inner.binaries.resolve(&self.inner.daemon, &runtime, "").unwrap_or_default()
    }

    /// `None` when the shim lives but has no such container: it was started for one that was never created.
    async fn load(
        &self,
        key: &Key,
        role: Role,
        bundle: &Bundle,
        binary: PathBuf,
        families: Look,
    ) -> Result<Option<Shim>> {
        let reading = bundle.clone();
        let noted = blocking(move || Ok((reading.bootstrap()?, reading.sandbox()?, reading.is_hosted()?))).await?;
        let (bootstrap, sandbox, hosted) = noted;
        // A container that joined a version 3 shim has no log of its own.
        let log = if sandbox.is_empty() { Some(log::follow(&bundle.path, &key.1)?) } else { None };
        let (namespace, id, bundle) = (key.0.clone(), key.1.clone(), bundle.clone());
        let parts = Parts { namespace, id, role, bundle, bootstrap, binary, log, hosted };
        let shim = Shim::connect(parts, self.inner.timeouts.load).await?;
        if role == Role::Task {
            if was_saved(families, &shim).await {
                self.end_checkpoint(&shim).await; // for a daemon that is gone
            }
            let request = StateRequest { id: key.1.clone(), exec_id: String::new() };
            let limit = Some(self.inner.timeouts.state);
            let mut state = shim.task::<_, StateResponse>(method::STATE, &request, limit).await;
            if state.as_ref().is_err_and(|error| is(error, Code::NotFound)) && self.was_busy_with(&shim).await {
                state = shim.task::<_, StateResponse>(method::STATE, &request, limit).await;
            }
            if state.as_ref().is_err_and(|error| is(error, Code::NotFound)) {
                self.dismiss(&shim).await;
                return Ok(None);
            }
            if let Ok(state) = state {
                shim.set_init(state.pid);
            }
        }
        Ok(Some(shim))
    }

    /// The runtime may still be creating the container for a daemon that is gone; until it is done, the shim knows nothing
    /// of it. It is waited for, and ended when it takes too long. Answers whether there was anything to wait for.
    async fn was_busy_with(&self, shim: &Shim) -> bool {
        let Some(parent) = shim.pid() else { return false };
        let look = async || {
            let id = shim.id.clone();
            blocking(move || Ok(!stray::runtimes(parent, &id).is_empty())).await.unwrap_or(false)
        };
        if !look().await {
            return false;
        }
        let done = async || {
            while look().await {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(self.inner.timeouts.load / 2, done()).await.is_err() {
            self.unstick(shim).await;
            let _ = tokio::time::timeout(self.inner.timeouts.state, done()).await; // what does not die harms nobody
        }
        true
    }

    /// Ends a shim that has nothing to do. It stays if it serves others: that is its own decision.
    async fn dismiss(&self, shim: &Shim) {
        if !shim.hosted {
            let request = kevel_proto::shim::task::ShutdownRequest { id: shim.id.clone(), now: false };
            let _ = shim.task::<_, ()>(method::SHUTDOWN, &request, Some(self.inner.timeouts.shutdown)).await;
        }
        shim.close();
    }
}

/// Every bundle, and whether they are from before a reboot. Removes what lies there half-made or half-removed.
fn scan(dirs: &Dirs) -> Result<Found> {
    let rebooted = note_boot(dirs)?;
    let mut bundles = Vec::new();
    for (name, path) in entries(&dirs.state)? {
        let Ok(namespace) = Namespace::new(&name) else { continue };
        for (id, path) in entries(&path)? {
            let is_bundle = check_identifier(&id).is_ok();
            let is_empty = fs::read_dir(&path).is_ok_and(|mut dir| dir.next().is_none());
            match (is_bundle, is_empty) {
                (true, false) => bundles.push((namespace.clone(), id)),
                (true, true) => remove_dir(&path)?,
                // Its mounts were undone before it got this name.
                (false, _) if id.starts_with('.') => remove_dir(&path)?,
                (false, _) => {}
            }
        }
    }
    Ok(Found { bundles, rebooted })
}

/// Whether this is another boot than the noted one; notes this one.
fn note_boot(dirs: &Dirs) -> Result<bool> {
    let path = dirs.state.join(NOTED_BOOT);
    let failed = |source| Error::Bundle { doing: "noting the boot in", path: path.clone(), source };
    let now = fs::read_to_string(BOOT_ID).map_err(failed)?;
    let noted = fs::read_to_string(&path).ok();
    if noted.as_deref() == Some(&now) {
        return Ok(false);
    }
    fs::create_dir_all(&dirs.state).and_then(|()| fs::write(&path, &now)).map_err(failed)?;
    Ok(noted.is_some())
}

/// Removes working directories that no bundle links to.
fn remove_orphans(dirs: &Dirs) {
    let remove = || -> Result<()> {
        for (namespace, path) in entries(&dirs.root)? {
            let bundles = entries(&dirs.state.join(&namespace))?;
            let bundles: BTreeSet<String> = bundles.into_iter().map(|(id, _)| id).collect();
            for (id, path) in entries(&path)? {
                if check_identifier(&id).is_ok() && !bundles.contains(&id) {
                    remove_dir(&path)?;
                }
            }
        }
        Ok(())
    };
    if let Err(error) = remove() {
        tracing::warn!(error = kevel_model::Error::from(error).chain(), "orphaned working directories stay");
    }
}

/// The sockets in a directory.
fn sockets(dir: &Path) -> Vec<Address> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    entries.flatten().filter(socket).map(|entry| Address::Unix(entry.path())).collect()
}

/// The directories in a directory, with their names; none when it does not exist.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |source| Error::Bundle { doing: "listing", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    Ok(found)
}
