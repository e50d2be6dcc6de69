//! What the daemon knows of itself: its plugins, its identity, and how to ask a shim. The daemon makes [`Facts`] before
//! the graph starts and fills them in when it has.

use std::{
    borrow::Cow,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use kevel_client::convert::{any_read, any_wire, introspection};
use kevel_contract::{
    call::Target,
    introspection::{Backend, Health, Introspection, IntrospectionService, PluginInfo, RuntimeInfo, Server},
};
use kevel_model::{Adaptor, Any, Error, Filters, Result};
use kevel_plugin::{Registration, Report};
use kevel_proto::containerd::types::RuntimeRequest;

/// Asks the shim of a runtime, with options for it, what it is.
pub type RuntimeProbe = Arc<dyn Fn(String, Option<Any>) -> BoxFuture<'static, Result<RuntimeInfo>> + Send + Sync>;

/// Says how shims are doing, without asking one.
pub type ShimHealth = Arc<dyn Fn() -> Vec<Health> + Send + Sync>;

/// Where the daemon keeps its identity, below the root directory; the folder is that of containerd's gRPC plugin.
const UUID: &str = "io.containerd.grpc.v1.introspection/uuid";
/// The plugin that stands for shims.
const RUNTIME: &str = "io.containerd.runtime.v2";

/// What the daemon tells introspection. Clones share it.
#[derive(Clone, Default)]
pub struct Facts(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reports: OnceLock<Vec<Arc<Report>>>,
    probe: OnceLock<RuntimeProbe>,
    health: OnceLock<ShimHealth>,
}

impl Facts {
    /// Tells what became of the plugins; the first call stays.
    pub fn set_reports(&self, reports: Vec<Arc<Report>>) {
        let _ = self.0.reports.set(reports);
    }

    /// Tells how to ask a shim; the first call stays.
    pub fn set_runtime_probe(&self, probe: RuntimeProbe) {
        let _ = self.0.probe.set(probe);
    }

    /// Tells how to learn how shims are doing; the first call stays.
    pub fn set_shim_health(&self, health: ShimHealth) {
        let _ = self.0.health.set(health);
    }

    /// The plugin `io.containerd.service.v1.introspection-service`, which tells these facts.
    pub fn registration(&self) -> Registration {
        let facts = self.clone();
        Registration::remote::<IntrospectionService>("introspection-service", move |cx| {
            let root = cx.root.parent().unwrap_or(&cx.root).to_owned();
            Ok(facts.service(&root))
        })
    }

    /// The service over these facts, with the daemon's root directory.
    pub fn service(&self, root: &Path) -> Introspection {
        let teller = Teller { facts: self.clone(), uuid_file: root.join(UUID), uuid: tokio::sync::OnceCell::new() };
        Introspection::new(Target::local("introspection"), teller)
    }
}

struct Teller {
    facts: Facts,
    uuid_file: PathBuf,
    uuid: tokio::sync::OnceCell<String>,
}

impl Teller {
    fn reports(&self) -> &[Arc<Report>] {
        self.facts.0.reports.get().map_or(&[], Vec::as_slice)
    }
}

#[async_trait]
impl Backend for Teller {
    async fn plugins(&self, filters: &Filters) -> Result<Vec<Arc<Report>>> {
        Ok(self.reports().iter().filter(|report| filters.matches(&Fields(report))).cloned().collect())
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
        let found = self.reports().iter().find(|report| report.type_name == kind && report.id == id);
        let plugin = found.cloned().ok_or_else(|| Error::not_found(format!("plugin {kind}.{id}")))?;
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
        let probe = self.facts.0.probe.get();
        let probe = probe.ok_or_else(|| Error::unimplemented("this daemon runs no shims"))?;
        probe(runtime.to_owned(), options).await
    }

    async fn health(&self) -> Result<Vec<Health>> {
        let health = self.facts.0.health.get();
        Ok(health.ok_or_else(|| Error::unimplemented("this daemon runs no shims"))?())
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

    #[tokio::test]
    async fn tells_what_the_daemon_told() {
        let (facts, root) = (Facts::default(), tempfile::tempdir().unwrap());
        let service = facts.service(root.path());
        assert!(service.plugins(&Filters::default()).await.unwrap().is_empty());
        facts.set_reports(vec![report("io.a.v1", "one"), report(RUNTIME, "task")]);
        let found = service.plugins(&Filters::parse(&["id==one"]).unwrap()).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(service.plugin_info("io.a.v1", "two", None).await.unwrap_err().is_not_found());
        let odd = service.plugin_info("io.a.v1", "one", Some(Any::default())).await.unwrap_err();
        assert!(odd.is_unimplemented());

        let request = RuntimeRequest { runtime_path: "io.containerd.runc.v2".into(), options: None };
        let options = || Some(any_read(kevel_proto::any::pack(&request)));
        assert!(service.plugin_info(RUNTIME, "task", options()).await.unwrap_err().is_unimplemented());
        facts.set_runtime_probe(Arc::new(|name, _| Box::pin(async { Ok(RuntimeInfo { name, ..Default::default() }) })));
        assert!(service.health().await.unwrap_err().is_unimplemented());
        let health = Health { subject: "shim a/b".into(), state: "ok".into(), detail: String::new() };
        let told = health.clone();
        facts.set_shim_health(Arc::new(move || vec![told.clone()]));
        assert_eq!(service.health().await.unwrap(), [health]);
        let info = service.plugin_info(RUNTIME, "task", options()).await.unwrap();
        assert_eq!(info.extra.unwrap().type_url, "containerd.types.RuntimeInfo");
    }

    #[tokio::test]
    async fn identity_stays_with_the_root_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = Facts::default().service(root.path()).server().await.unwrap();
        let second = Facts::default().service(root.path()).server().await.unwrap();
        assert_eq!((first.uuid.len(), &first.uuid, first.pid), (36, &second.uuid, u64::from(std::process::id())));
        assert_ne!(first.pidns, 0);
    }
}
