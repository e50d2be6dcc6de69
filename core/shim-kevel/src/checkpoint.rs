//! Checkpoints: written and restored by the runtime, through CRIU.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use kevel_proto::{
    any,
    containerd::{runc::v1::CheckpointOptions, v1::types::Status},
    shim::task::{CheckpointTaskRequest, CreateTaskRequest},
};

use crate::{
    container::Container,
    error::{Error, Result},
    io, record,
    runtime::Call,
};

/// Where a container is restored from.
pub(crate) struct Restore {
    image: PathBuf,
    parent: String,
}

impl Restore {
    /// What a request says; none for a container that begins anew.
    pub(crate) fn of(request: &CreateTaskRequest) -> Option<Self> {
        let image = (!request.checkpoint.is_empty()).then(|| PathBuf::from(&request.checkpoint))?;
        Some(Self { image, parent: request.parent_checkpoint.clone() })
    }
}

impl Container {
    /// Writes the container to disk.
    pub(crate) async fn checkpoint(&self, request: &CheckpointTaskRequest) -> Result<()> {
        let options = match &request.options {
            Some(given) if any::is::<CheckpointOptions>(given) => {
                any::unpack::<CheckpointOptions>(given).map_err(|error| Error::Invalid(format!("options: {error}")))?
            }
            Some(given) if !given.type_url.is_empty() => {
                return Err(Error::Invalid(format!("options: {:?} is none of checkpoints", given.type_url)));
            }
            _ => CheckpointOptions::default(),
        };
        if !matches!(self.first.status(), Status::Running | Status::Paused) {
            return Err(Error::State(format!("container {} does not run", self.id)));
        }
        let image = if options.image_path.is_empty() { &request.path } else { &options.image_path };
        if image.is_empty() {
            return Err(Error::Invalid("path: empty".to_owned()));
        }
        let own_work = options.work_path.is_empty();
        let work = if own_work { self.bundle.join("work/criu-work") } else { PathBuf::from(&options.work_path) };
        let mut call = Call::new("checkpoint").path("--image-path", Path::new(image)).path("--work-path", &work);
        if !options.parent_path.is_empty() {
            call = call.arg("--parent-path").arg(&options.parent_path);
        }
        if !options.cgroups_mode.is_empty() {
            call = call.arg("--manage-cgroups-mode").arg(&options.cgroups_mode);
        }
        for namespace in &options.empty_namespaces {
            call = call.arg("--empty-ns").arg(namespace);
        }
        call = call
            .when(options.open_tcp, "--tcp-established")
            .when(options.external_unix_sockets, "--ext-unix-sk")
            .when(options.terminal, "--shell-job")
            .when(options.file_locks, "--file-locks")
            .when(!options.exit, "--leave-running");
        let result = self.runtime.run(call.arg(&self.id)).await;
        let log = self.bundle.join("criu-dump.log");
        if result.is_err() {
            let _ = fs::copy(work.join("dump.log"), &log); // CRIU may not have begun
        }
        if own_work {
            let _ = fs::remove_dir_all(&work); // goes with the container
        }
        result.map_err(|error| match error {
            Error::Runtime { verb, said } => {
                let first = said.lines().next().unwrap_or_default();
                Error::Runtime { verb, said: format!("{first} (log of CRIU: {})", log.display()) }
            }
            other => other,
        })
    }

    /// Starts the container from disk.
    pub(crate) async fn restored(self: &Arc<Self>, restore: Restore) -> Result<u32> {
        let mut opened = io::open(&self.first.wanted, &self.streams_for(&self.id)).await?;
        let pid_file = record::pid_file(&self.bundle);
        let work = match self.options.criu_work_path.as_str() {
            "" => self.bundle.join("work"),
            path => PathBuf::from(path),
        };
        let mut call = Call::new("restore").path("--image-path", &restore.image).path("--work-path", &work);
        if !restore.parent.is_empty() {
            call = call.arg("--parent-path").arg(&restore.parent);
        }
        if let Some(socket) = opened.socket() {
            call = call.path("--console-socket", &socket.path());
        }
        call = call.arg("--detach").path("--pid-file", &pid_file).path("--bundle", &self.bundle);
        call = call.arg("--no-subreaper").when(self.options.no_pivot_root, "--no-pivot");
        let held = self.runtime.hold();
        if let Err(error) = self.runtime.run(call.ends(opened.take_ends()).arg(&self.id)).await {
            opened.abandon().await;
            let _ = fs::copy(work.join("restore.log"), self.bundle.join("criu-restore.log")); // CRIU may not have begun
            return Err(error);
        }
        let (streams, child) = self.take_over(opened, &pid_file, held).await?;
        let pid = child.pid;
        self.first.made(pid, streams);
        self.first.set_status(Status::Running);
        self.look_at_cgroup(pid);
        tokio::spawn(self.clone().follow(self.first.clone(), child));
        Ok(pid)
    }
}
