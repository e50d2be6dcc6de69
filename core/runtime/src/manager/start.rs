//! Starting a shim, or joining the one of a sandbox.

use std::{path::PathBuf, sync::Arc};

use kevel_model::{Any, Namespace, check_identifier};

use super::{ShimManager, stuck::Stage};
use crate::{
    Bootstrap, Bundle, Dirs, Error, Protocol, Result, Role, Shim,
    binary::{self, Invocation},
    log,
    shim::Parts,
};

/// What a shim is to be started for.
pub(crate) struct Launch {
    pub(crate) namespace: Namespace,
    pub(crate) id: String,
    pub(crate) role: Role,
    pub(crate) dirs: Dirs,
    /// The OCI spec, as JSON.
    pub(crate) spec: Option<Vec<u8>>,
    /// Options of the runtime.
    pub(crate) options: Option<Any>,
    /// Name of the runtime, or the path of its shim.
    pub(crate) runtime: String,
    /// The path of the shim, if it wins over the runtime's name.
    pub(crate) runtime_path: String,
    pub(crate) join: Join,
}

/// Whose shim a container uses.
pub(crate) enum Join {
    /// One of its own.
    Alone,
    /// That of a sandbox, by the sandbox's id, if the sandbox has one here.
    Sandbox(String),
    /// That at an address which the sandbox's controller named.
    At(Bootstrap, String),
}

impl Join {
    fn sandbox(&self) -> &str {
        match self {
            Self::Alone => "",
            Self::Sandbox(id) | Self::At(_, id) => id,
        }
    }

    /// Reads a task API address as controllers give it: `ttrpc+unix://…`, `grpc+vsock://…`, or without a protocol.
    pub(crate) fn at(address: &str, version: u32, sandbox: String) -> Self {
        let (protocol, plain) = match address.split_once('+') {
            Some(("grpc", plain)) => (Protocol::Grpc, plain),
            Some(("ttrpc", plain)) => (Protocol::Ttrpc, plain),
            _ => (Protocol::Ttrpc, address),
        };
        let version = if version == 0 { 2 } else { version };
        Self::At(Bootstrap { version, address: plain.to_owned(), protocol }, sandbox)
    }
}

impl ShimManager {
    /// Makes a bundle, starts (or joins) a shim and connects to it. What was made is undone when a step fails.
    pub(crate) async fn start(&self, launch: Launch) -> Result<Arc<Shim>> {
        check_identifier(&launch.id).map_err(|error| Error::Invalid(error.to_string()))?;
        let key = (launch.namespace.clone(), launch.id.clone());
        let place = self.inner.table.reserve(key.clone(), launch.role)?;
        self.exits().forget(&key);
        self.inner.reports.follow(&self.inner.events, &self.inner.closing).await;
        let plan = self.plan(&launch).await?;
        let bundle = self.make_bundle(&launch).await?;
        let started = match self.bring_up(&launch, plan, &bundle).await {
            Ok(shim) => Arc::new(shim),
            Err(error) => {
                self.remove_bundle(&bundle).await;
                return Err(error);
            }
        };
        place.fill(started.clone());
        self.watch(started.clone());
        Ok(started)
    }

    /// Which binary, and which running shim to join instead of running it. A shim of version 3 takes containers in; an
    /// older one has its binary run again, which answers the address of the group.
    async fn plan(&self, launch: &Launch) -> Result<(PathBuf, Option<Bootstrap>)> {
        let resolve = || self.inner.binaries.resolve(&self.inner.daemon, &launch.runtime, &launch.runtime_path);
        match &launch.join {
            Join::Alone => Ok((resolve()?, None)),
            // The binary serves only to clean up, which a sandbox behind an address may do without.
            Join::At(bootstrap, _) => Ok((resolve().unwrap_or_default(), Some(bootstrap.clone()))),
            Join::Sandbox(id) => match self.inner.table.get(&(launch.namespace.clone(), id.clone())).await {
                Some(host) if host.version() >= 3 => Ok((host.binary.clone(), Some(host.bootstrap.clone()))),
                Some(_) | None => Ok((resolve()?, None)),
            },
        }
    }

    async fn make_bundle(&self, launch: &Launch) -> Result<Bundle> {
        let (dirs, namespace, id) = (launch.dirs.clone(), launch.namespace.clone(), launch.id.clone());
        let spec = launch.spec.clone();
        blocking(move || {
            // Nobody uses the id, so what lies there was left by a crash.
            Bundle::at(&dirs, &namespace, &id).remove()?;
            Bundle::create(&dirs, &namespace, &id, spec.as_deref())
        })
        .await
    }

    pub(super) async fn remove_bundle(&self, bundle: &Bundle) {
        let bundle = bundle.clone();
        let path = bundle.path.clone();
        if let Err(error) = blocking(move || bundle.remove()).await {
            tracing::warn!(?path, error = kevel_model::Error::from(error).chain(), "a bundle stays");
        }
    }

    async fn bring_up(&self, launch: &Launch, plan: (PathBuf, Option<Bootstrap>), bundle: &Bundle) -> Result<Shim> {
        let (binary, join) = plan;
        let limit = self.inner.timeouts.start;
        let run = Invocation {
            daemon: &self.inner.daemon,
            binary: &binary,
            namespace: &launch.namespace,
            id: &launch.id,
            bundle: &bundle.path,
            limit,
        };
        let joined = join.is_some();
        let hosted = matches!(launch.join, Join::At(..));
        let (bootstrap, log) = match join {
            Some(bootstrap) => (bootstrap, None),
            None => {
                let log = log::follow(&bundle.path, &launch.id)?;
                let started = binary::start(&run, launch.options.as_ref()).await;
                if started.is_err() {
                    self.abandon(&binary, &launch.namespace, &launch.id, bundle).await; // it may have got far
                }
                (started?, Some(log))
            }
        };
        let (noted, binary_noted) = (bootstrap.clone(), binary.clone());
        let (noting, sandbox) = (bundle.clone(), launch.join.sandbox().to_owned());
        let connect = async {
            blocking(move || {
                if hosted {
                    noting.note_host(&noted)?;
                }
                noting.note(&noted, &binary_noted, &sandbox)
            })
            .await?;
            let parts = Parts {
                namespace: launch.namespace.clone(),
                id: launch.id.clone(),
                role: launch.role,
                bundle: bundle.clone(),
                bootstrap,
                binary: binary.clone(),
                log,
                hosted,
            };
            Shim::connect(parts, limit).await
        };
        let connected = connect.await;
        if connected.is_err() && !joined {
            self.abandon(&binary, &launch.namespace, &launch.id, bundle).await; // started, but of no use
        }
        connected
    }

    /// Cleans up when the shim dies.
    pub(super) fn watch(&self, shim: Arc<Shim>) {
        let manager = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = manager.inner.closing.cancelled() => return,
                    () = shim.gone.cancelled() => return,
                    () = shim.closed() => return manager.lost(&shim).await,
                    () = shim.fell_silent() => manager.stuck(&shim, Stage::Silent).await,
                }
            }
        });
    }
}

/// Runs work that blocks where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Error::Invalid(format!("the daemon is stopping: {error}"))),
        },
    }
}
