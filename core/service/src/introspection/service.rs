//! What the daemon knows of itself: its plugins, its identity, and what shims say of themselves.

use std::{
    borrow::Cow,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use kevel_client::convert::{any_read, any_wire, introspection};
use kevel_contract::{
    call::Target,
    introspection::{Backend, Health, Introspection, IntrospectionService, PluginInfo, RuntimeInfo, Server},
    runtime::{RuntimeProbe, Runtimes},
};
use kevel_model::{Adaptor, Any, Error, Filters, Result};
use kevel_plugin::{InitContext, InitError, Maybe, Report, Reports, deps};
use kevel_proto::containerd::types::RuntimeRequest;

/// Where the daemon keeps its identity, below the root directory; the folder is that of containerd's gRPC plugin.
const UUID: &str = "io.containerd.grpc.v1.introspection/uuid";
/// The plugin that stands for shims.
const RUNTIME: &str = "io.containerd.runtime.v2";

deps! {
    /// Who can be asked about shims.
    pub(crate) struct Deps { runtime: Maybe<Runtimes> }
}

/// `io.containerd.service.v1.introspection-service`.
pub(crate) struct Plugin;

impl kevel_plugin::Plugin for Plugin {
    type Kind = IntrospectionService;
    const ID: &'static str = "introspection-service";
    type Config = ();
    type Deps = Deps;

    async fn init(cx: InitContext, (): (), deps: Deps) -> std::result::Result<Introspection, InitError> {
        let root = cx.root.parent().unwrap_or(&cx.root);
        Ok(introspection(root, cx.reports.clone(), deps.runtime.0.map(|runtime| runtime.probe)))
    }
}

/// The service of a daemon with that root directory and those plugins, which can ask about shims if it runs any.
pub fn introspection(root: &Path, reports: Reports, probe: Option<Arc<dyn RuntimeProbe>>) -> Introspection {
    let teller = Teller { reports, probe, uuid_file: root.join(UUID), uuid: tokio::sync::OnceCell::new() };
    Introspection::new(Target::local("introspection"), teller)
}

struct Teller {
    reports: Reports,
    probe: Option<Arc<dyn RuntimeProbe>>,
    uuid_file: PathBuf,
    uuid: tokio::sync::OnceCell<String>,
}

impl Teller {
    fn probe(&self) -> Result<&dyn RuntimeProbe> {
        self.probe.as_deref().ok_or_else(|| Error::unimplemented("this daemon runs no shims"))
    }
}

#[async_trait]
impl Backend for Teller {
    async fn plugins(&self, filters: &Filters) -> Result<Vec<Arc<Report>>> {
        let mut found = self.reports.all();
        found.retain(|report| filters.matches(&Fields(report)));
        Ok(found)
    }

    async fn server(&self) -> Result<Server> {
        let file = self.uuid_file.clone();
        let read = || async {
            let read = tokio::task::spawn_blocking(move || uuid(&file)).await;
            let read = read.map_err(|error| Error::internal("reading the daemon's uuid").with_source(error))?;
            read.map_err(|error| Error::io(format!("reading the daemon's uuid in {}", self.uuid_file.display()), error))
        };
        let uuid = self.uuid.get_or_try_init(read).await?.clone();
        let pidns = fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino());
        Ok(Server { uuid, pid: std::process::id().into(), pidns })
    }

    async fn plugin_info(&self, kind: &str, id: &str, options: Option<Any>) -> Result<PluginInfo> {
        let plugin = self.reports.find(kind, id).ok_or_else(|| Error::not_found(format!("plugin {kind}.{id}")))?;
        let extra = match options {
            Some(options) if kind == RUNTIME => {
                let request: RuntimeRequest = kevel_proto::any::unpack(&any_wire(options))
                    .map_err(|cause| Error::invalid_argument("options").with_source(cause))?;
                let info = self.runtime_info(&request.runtime_path, request.options.map(any_read)).await?;
                Some(any_read(kevel_proto::any::pack(&introspection::runtime_wire(info))))
            }
            Some(_) => return Err(Error::unimplemented(format!("plugin {kind}.{id} takes no options"))),
            None => None,
        };
        Ok(PluginInfo { plugin: Some(plugin), extra })
    }

    async fn runtime_info(&self, runtime: &str, options: Option<Any>) -> Result<RuntimeInfo> {
        self.probe()?.info(runtime, options.as_ref()).await
    }

    async fn health(&self) -> Result<Vec<Health>> {
        Ok(self.probe()?.health())
    }
}

/// The identity in `file`, made when there is none.
fn uuid(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Ok(uuid) if !uuid.trim().is_empty() => return Ok(uuid.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    fs::write(&new, &uuid)?;
    fs::rename(&new, file)?;
    Ok(uuid)
}

/// A plugin's fields for filters.
struct Fields<'a>(&'a Report);

impl Adaptor for Fields<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let [name] = path else { return None };
        match name.as_str() {
            "type" => Some(self.0.type_name.as_str().into()),
            "id" => Some(self.0.id.as_str().into()),
            "capabilities" => Some(self.0.declared.capabilities.join(",").into()),
            "platforms" => Some(self.0.declared.platforms.join(",").into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use kevel_plugin::{Declared, PluginStatus};

    use super::*;

    fn report(type_name: &str, id: &str) -> Arc<Report> {
        let (declared, unknown_keys) = (Declared::default(), Vec::new());
        let (type_name, id, status) = (type_name.to_owned(), id.to_owned(), PluginStatus::Ok);
        Arc::new(Report { type_name, id, requires: Vec::new(), declared, status, unknown_keys })
    }

    struct Probe(Health);

    #[async_trait]
    impl RuntimeProbe for Probe {
        async fn info(&self, runtime: &str, _: Option<&Any>) -> Result<RuntimeInfo> {
            Ok(RuntimeInfo { name: runtime.to_owned(), ..Default::default() })
        }

        fn health(&self) -> Vec<Health> {
            vec![self.0.clone()]
        }
    }

    fn asks_for_runtime() -> Option<Any> {
        let request = RuntimeRequest { runtime_path: "io.containerd.runc.v2".into(), options: None };
        Some(any_read(kevel_proto::any::pack(&request)))
    }

    #[tokio::test]
    async fn tells_of_plugins_that_start_later() {
        let (reports, root) = (Reports::default(), tempfile::tempdir().unwrap());
        let service = introspection(root.path(), reports.clone(), None);
        assert!(service.plugins(&Filters::default()).await.unwrap().is_empty());
        reports.push(report("io.a.v1", "one"));
        reports.push(report(RUNTIME, "task"));
        let found = service.plugins(&Filters::parse(&["id==one"]).unwrap()).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(service.plugin_info("io.a.v1", "two", None).await.unwrap_err().is_not_found());
        let odd = service.plugin_info("io.a.v1", "one", Some(Any::default())).await.unwrap_err();
        assert!(odd.is_unimplemented());
    }

    #[tokio::test]
    async fn asks_the_shims_of_a_daemon_that_runs_any() {
        let (reports, root) = (Reports::default(), tempfile::tempdir().unwrap());
        reports.push(report(RUNTIME, "task"));
        let alone = introspection(root.path(), reports.clone(), None);
        assert!(alone.plugin_info(RUNTIME, "task", asks_for_runtime()).await.unwrap_err().is_unimplemented());
        assert!(alone.health().await.unwrap_err().is_unimplemented());
        let health = Health { subject: "shim a/b".into(), state: "ok".into(), detail: String::new() };
        let service = introspection(root.path(), reports, Some(Arc::new(Probe(health.clone()))));
        assert_eq!(service.health().await.unwrap(), [health]);
        assert_eq!(service.runtime_info("io.containerd.runc.v2", None).await.unwrap().name, "io.containerd.runc.v2");
        let info = service.plugin_info(RUNTIME, "task", asks_for_runtime()).await.unwrap();
        assert_eq!(info.extra.unwrap().type_url, "containerd.types.RuntimeInfo");
    }

    #[tokio::test]
    async fn identity_stays_with_the_root_directory() {
        let root = tempfile::tempdir().unwrap();
        let identity = async || introspection(root.path(), Reports::default(), None).server().await.unwrap();
        let (first, second) = (identity().await, identity().await);
        assert_eq!((first.uuid.len(), &first.uuid, first.pid), (36, &second.uuid, u64::from(std::process::id())));
        assert_ne!(first.pidns, 0);
    }
}
