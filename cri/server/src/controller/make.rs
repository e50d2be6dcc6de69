//! Making and starting the pause container.

use std::sync::PoisonError;

use kevel_contract::{
    Scope,
    container::Container,
    sandbox::{Create, Sandbox, Started},
    task,
};
use kevel_cri_spec::{SandboxInput, SandboxPaths};
use kevel_model::{Any, Error, Result};
use kevel_proto::any::SPEC;

use super::{PauseController, end::gone};
use crate::{
    config::Handler,
    files::blocking,
    image::Image,
    record::{EXTENSION, KIND, SANDBOX, SandboxRecord},
    rootfs::Source,
    translate,
    userns::Ids,
};

impl PauseController {
    /// The record and the snapshot at the same time: the record's change is handed in first, so that the snapshot is
    /// recorded in the same commit or a later one, and never there for the garbage collector without it.
    pub(super) async fn make(&self, scope: &Scope, create: Create) -> Result<()> {
        let record = SandboxRecord::unpack(&create.sandbox)?;
        let handler = self.settings.handler(&record.handler)?;
        let name = self.images.snapshotter_of(&handler.name, &handler.config.snapshotter);
        let pause = self.images.config.sandbox_image().to_owned();
        let image = self.images.ensure(&pause, &name).await;
        let image = image.map_err(|error| error.context(format!("sandbox image {pause}")))?;
        let spec = self.spec(&record, &handler, &image, &create.netns_path).await?;
        let container = self.container(&create.sandbox, &handler, &image, &name, spec)?;
        let source = Source {
            snapshotter: self.snapshotter(&name)?,
            name: &name,
            introspection: &self.introspection,
            scope,
            temporary: self.settings.files.temporary(),
        };
        let prepare = source.prepare(&record.id, &image.chain_id, Ids::of_pod(&record.config));
        let (recorded, prepared) = tokio::join!(self.containers.create(scope, container), prepare);
        if recorded.is_err() && prepared.is_ok() {
            gone(source.snapshotter.remove(scope, &record.id).await)?;
        }
        recorded?;
        prepared?;
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.insert(record.id, handler.name.clone());
        Ok(())
    }

    async fn spec(&self, record: &SandboxRecord, handler: &Handler, image: &Image, netns: &str) -> Result<Any> {
        let (settings, copy) = (self.settings.clone(), record.clone());
        let mut pod = blocking(move || translate::pod(&copy.id, &copy.config, &settings.config)).await?;
        pod.selinux = self.settings.selinux.for_spec(&record.labels, pod.privileged, &handler.runtime.name);
        let dir = self.settings.files.sandbox(&pod.id);
        let file = |name: &str| Some(dir.join(name).to_string_lossy().into_owned());
        let shm = self.settings.files.sandbox_state(&pod.id).join("shm");
        let paths = SandboxPaths {
            hostname: file("hostname"),
            hosts: file("hosts"),
            resolv_conf: file("resolv.conf"),
            shm: Some(shm.to_string_lossy().into_owned()),
            network: (!netns.is_empty()).then(|| netns.to_owned()),
            user: Some(self.settings.files.user_namespace(&pod.id).to_string_lossy().into_owned()),
            ..SandboxPaths::default()
        };
        let spec = kevel_cri_spec::sandbox(&SandboxInput {
            pod: &pod,
            image: &image.config.for_spec(),
            image_name: self.images.config.sandbox_image(),
            paths: &paths,
            handler: &handler.for_spec(false),
            node: &self.settings.node,
            policy: &self.settings.policy,
        })?;
        Ok(Any::new(SPEC, spec.to_vec()))
    }

    fn container(
        &self,
        sandbox: &Sandbox,
        handler: &Handler,
        image: &Image,
        snapshotter: &str,
        spec: Any,
    ) -> Result<Container> {
        let record = sandbox.extensions.get(EXTENSION).cloned();
        let record = record.ok_or_else(|| Error::invalid_argument("the sandbox has no CRI record"))?;
        Ok(Container {
            labels: [(KIND.to_owned(), SANDBOX.to_owned())].into(),
            image: image.name(),
            runtime: handler.runtime.clone(),
            spec: Some(spec),
            snapshotter: snapshotter.to_owned(),
            snapshot_key: sandbox.id.clone(),
            extensions: [(EXTENSION.to_owned(), record)].into(),
            sandbox: sandbox.id.clone(),
            ..Container::new(sandbox.id.clone())
        })
    }

    /// Starts what was made. A failure leaves what [`PauseController::erase`] removes.
    pub(super) async fn run(&self, scope: &Scope, id: &str) -> Result<Started> {
        let handler = self.take_created(id);
        let handler = handler.ok_or_else(|| Error::failed_precondition(format!("sandbox {id} was not created")))?;
        let handler = self.settings.handler(&handler)?;
        let container = self.containers.get(scope, id).await?;
        let rootfs = self.snapshotter(&container.snapshotter)?.mounts(scope, id).await?;
        let rootfs = self.settings.once(rootfs).await?;
        let create = task::Create {
            container_id: id.to_owned(),
            rootfs,
            runtime_path: handler.config.runtime_path.clone(),
            ..task::Create::default()
        };
        let context = |doing: &'static str| move |error: Error| error.context(format!("{doing} sandbox {id}"));
        self.tasks.create(scope, create).await.map_err(context("creating the task of"))?;
        let pid = self.tasks.start(scope, id, "").await.map_err(context("starting the task of"))?;
        Ok(Started { pid, created_at: Some(container.created_at), ..Started::default() })
    }
}
