//! Runtime handlers, which RuntimeClasses name.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use kevel_contract::container::Runtime;
use kevel_model::{Any, Error, Result};
use kevel_proto::{any, containerd::runc::v1 as runc, runtimeoptions::v1 as generic};
use prost::{Message, Name};
use serde::{Deserialize, Serialize};

use super::ContainerdConfig;

/// A runtime handler, as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandlerConfig {
    /// The runtime: `io.containerd.runc.v2`, or the path of a shim.
    pub runtime_type: String,
    /// A shim to use instead of the one that `runtime_type` stands for.
    pub runtime_path: String,
    /// Globs of pod annotations that the runtime gets to see.
    pub pod_annotations: Vec<String>,
    /// Globs of container annotations that the runtime gets to see.
    pub container_annotations: Vec<String>,
    /// Options for the shim, in its own words.
    pub options: toml::Table,
    /// Privileged containers do not get the node's devices.
    pub privileged_without_host_devices: bool,
    /// With the former: all devices are allowed all the same.
    pub privileged_without_host_devices_all_devices_allowed: bool,
    /// Containers may write to their cgroups (version 2).
    pub cgroup_writable: bool,
    /// A file with the OCI spec to start from.
    pub base_runtime_spec: String,
    /// Where the handler's network configurations are; the general place when empty.
    pub cni_conf_dir: String,
    /// How many networks the handler's pods join.
    pub cni_max_conf_num: Option<usize>,
    /// Where the handler's images are unpacked; the general snapshotter when empty.
    pub snapshotter: String,
    /// `podsandbox`, `shim` or the name of a sandbox plugin; empty means `podsandbox`.
    pub sandboxer: String,
}

/// A runtime handler, ready to use.
#[derive(Clone, Debug)]
pub struct Handler {
    /// Its name; the default handler has its own name here, too.
    pub name: String,
    /// Its configuration.
    pub config: HandlerConfig,
    /// The runtime with its options.
    pub runtime: Runtime,
    /// The spec to start from.
    pub base: Option<serde_json::Value>,
}

impl Handler {
    /// The controller that runs the handler's pods.
    pub fn sandboxer(&self) -> &str {
        if self.config.sandboxer.is_empty() { "podsandbox" } else { &self.config.sandboxer }
    }

    /// Whether runc's shim or one with its options runs the handler.
    pub fn is_runc(&self) -> bool {
        self.runtime.name == "io.containerd.runc.v2"
    }

    /// The options of runc's shim with an owner of its pipes.
    pub(crate) fn options_with_io_owner(&self, user: u32, group: u32) -> Result<Any> {
        let wrong = |error| Error::internal("reading a handler's own options").with_source(error);
        let own = self.runtime.options.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        let mut options = runc::Options::decode(own).map_err(wrong)?;
        (options.io_uid, options.io_gid) = (user, group);
        Ok(pack(&options))
    }

    /// The options of runc's shim with the place of a checkpoint's images, and of CRIU's logs, on top of `own`, or of the
    /// handler's when there are none.
    pub(crate) fn options_with_images(&self, own: Option<Any>, images: &Path, work: &Path) -> Result<Any> {
        let wrong = |error| Error::internal("reading a handler's own options").with_source(error);
        let own = own.or_else(|| self.runtime.options.clone()).map(|any| any.value).unwrap_or_default();
        let mut options = runc::Options::decode(own.as_slice()).map_err(wrong)?;
        options.criu_image_path = images.to_string_lossy().into_owned();
        options.criu_work_path = work.to_string_lossy().into_owned();
        Ok(pack(&options))
    }

    /// As the spec crate takes it.
    pub(crate) fn for_spec(&self, recursive_read_only_mounts: bool) -> kevel_cri_spec::Handler {
        kevel_cri_spec::Handler {
            base_runtime_spec: self.base.clone(),
            pod_annotations: self.config.pod_annotations.clone(),
            container_annotations: self.config.container_annotations.clone(),
            privileged_without_host_devices: self.config.privileged_without_host_devices,
            privileged_without_host_devices_all_devices_allowed: self
                .config
                .privileged_without_host_devices_all_devices_allowed,
            cgroup_writable: self.config.cgroup_writable,
            recursive_read_only_mounts,
        }
    }

    /// Whether cgroups are systemd's business, in runc's options.
    pub fn systemd_cgroup(&self) -> bool {
        self.config.options.get("SystemdCgroup").and_then(toml::Value::as_bool).unwrap_or(false)
    }
}

/// Every handler, as of the last time that the configuration was read.
#[derive(Debug)]
pub(crate) struct Handlers {
    /// Where they are from.
    pub(crate) config: ContainerdConfig,
    all: BTreeMap<String, Arc<Handler>>,
}

impl Handlers {
    /// The handlers of a configuration; reads base specs. Blocks.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(crate) fn new(config: &ContainerdConfig) -> Result<Self> {
        let all = handlers(config)?.into_iter().map(|(name, handler)| (name, Arc::new(handler)));
        Ok(Self { config: config.clone(), all: all.collect() })
    }

    /// The handler of that name; the default one for the empty name.
    ///
    /// # Errors
    /// When there is none, with those that there are.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Handler>> {
        let name = if name.is_empty() { &self.config.default_runtime_name } else { name };
        self.all.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.all.keys().map(String::as_str).collect();
            Error::invalid_argument(format!(
                "runtime_handler: {name:?} is not configured; there are {}",
                known.join(", ")
            ))
        })
    }

    /// Every handler, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Handler>)> {
        self.all.iter()
    }

    /// These handlers with what another configuration makes of them, and the keys that only a new start takes on: a
    /// handler that is no more keeps running its pods, and networks are made once.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(crate) fn changed(&self, config: &ContainerdConfig) -> Result<(Self, Vec<String>)> {
        let mut new = Self::new(config)?;
        let mut left = Vec::new();
        for (name, old) in &self.all {
            if !new.all.contains_key(name) {
                left.push(format!("containerd.runtimes.{name}"));
                new.all.insert(name.clone(), old.clone());
                new.config.runtimes.insert(name.clone(), old.config.clone());
            }
        }
        let network = |handler: &Handler| (handler.config.cni_conf_dir.clone(), handler.config.cni_max_conf_num);
        for (name, handler) in &mut new.all {
            let old = self.all.get(name);
            if network(handler) == old.map(|old| network(old)).unwrap_or_default() {
                continue;
            }
            left.push(format!("containerd.runtimes.{name}.cni_conf_dir"));
            // A pod of its would join the general networks, which is not what the configuration says.
            if let Some(old) = old {
                *handler = old.clone();
            }
        }
        new.all.retain(|name, handler| self.all.contains_key(name) || network(handler) == Default::default());
        Ok((new, left))
    }
}

fn handlers(config: &ContainerdConfig) -> Result<BTreeMap<String, Handler>> {
    let mut table = config.clone();
    if table.default_runtime_name == "runc" {
        // A configuration that adds other handlers has not taken this one away.
        let built_in = ContainerdConfig::default().runtimes;
        built_in.into_iter().for_each(|(name, runc)| _ = table.runtimes.entry(name).or_insert(runc));
    }
    if !table.runtimes.contains_key(&table.default_runtime_name) {
        return Err(Error::invalid_argument(format!(
            "containerd.default_runtime_name: there is no runtime {:?}",
            table.default_runtime_name
        )));
    }
    let handler = |(name, config): (&String, &HandlerConfig)| Ok((name.clone(), resolve(name, config)?));
    table.runtimes.iter().map(handler).collect()
}

fn resolve(name: &str, config: &HandlerConfig) -> Result<Handler> {
    let key = |key: &str| format!("containerd.runtimes.{name}.{key}");
    if config.runtime_type.is_empty() {
        return Err(Error::invalid_argument(format!("{} is empty", key("runtime_type"))));
    }
    if !config.runtime_path.is_empty() && !Path::new(&config.runtime_path).is_absolute() {
        return Err(Error::invalid_argument(format!("{}: not an absolute path", key("runtime_path"))));
    }
    let base = match config.base_runtime_spec.as_str() {
        "" => None,
        path => {
            let text = std::fs::read(path).map_err(|error| Error::io(key("base_runtime_spec"), error))?;
            let spec = serde_json::from_slice(&text);
            Some(spec.map_err(|error| Error::invalid_argument(key("base_runtime_spec")).with_source(error))?)
        }
    };
    let options = options(&config.runtime_type, &config.options, &key("options"))?;
    let runtime = Runtime { name: config.runtime_type.clone(), options };
    Ok(Handler { name: name.to_owned(), config: config.clone(), runtime, base })
}

/// The options message of a runtime. runc's is typed; every other runtime gets its table as it stands, or the path of
/// its own configuration. No options are sent where none are configured, because shims refuse those of another type.
fn options(runtime: &str, table: &toml::Table, key: &str) -> Result<Option<Any>> {
    if runtime == "io.containerd.runc.v2" {
        return Ok(Some(pack(&runc_options(table, key)?)));
    }
    if table.is_empty() {
        return Ok(None);
    }
    let text = |name: &str| table.get(name).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    let mut options =
        generic::Options { type_url: text("TypeUrl"), config_path: text("ConfigPath"), ..Default::default() };
    if options.config_path.is_empty() {
        let body =
            toml::to_string(table).map_err(|error| Error::invalid_argument(key.to_owned()).with_source(error))?;
        options.config_body = body.into_bytes();
    }
    Ok(Some(pack(&options)))
}

fn runc_options(table: &toml::Table, key: &str) -> Result<runc::Options> {
    let mut options = runc::Options::default();
    for (name, value) in table {
        let wrong = |expected: &str| Error::invalid_argument(format!("{key}.{name}: not {expected}"));
        let text = || value.as_str().map(str::to_owned).ok_or_else(|| wrong("a string"));
        let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
        let id = || value.as_integer().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| wrong("an id"));
        match name.as_str() {
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "SystemdCgroup" => options.systemd_cgroup = flag()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "IoUid" => options.io_uid = id()?,
            "IoGid" => options.io_gid = id()?,
            "NoPivotRoot" => options.no_pivot_root = flag()?,
            "NoNewKeyring" => options.no_new_keyring = flag()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            "CriuPath" | "TaskApiAddress" | "TaskApiVersion" => {
                return Err(Error::invalid_argument(format!("{key}.{name}: not for the configuration")));
            }
            _ => return Err(Error::invalid_argument(format!("{key}.{name}: not an option of runc's shim"))),
        }
    }
    Ok(options)
}

fn pack<M: Message + Name>(message: &M) -> Any {
    let any = any::pack(message);
    Any::new(any.type_url, any.value)
}

#[cfg(test)]
mod tests {
    use super::{super::RuntimeConfig, *};

    fn config(text: &str) -> ContainerdConfig {
        toml::from_str::<RuntimeConfig>(text).unwrap().containerd
    }

    #[test]
    fn the_default_is_runc() {
        let handlers = handlers(&ContainerdConfig::default()).unwrap();
        let runc = &handlers["runc"];
        assert_eq!((runc.runtime.name.as_str(), runc.sandboxer()), ("io.containerd.runc.v2", "podsandbox"));
        assert_eq!(runc.runtime.options.as_ref().unwrap().type_url, "containerd.runc.v1.Options");
    }

    #[test]
    fn options_are_the_runtimes_own() {
        let text = r#"
            [containerd]
            default_runtime_name = "runc"
            [containerd.runtimes.runc]
            runtime_type = "io.containerd.runc.v2"
            options = { BinaryName = "/bin/runc", SystemdCgroup = true, IoUid = 7 }
            [containerd.runtimes.runsc]
            runtime_type = "io.containerd.runsc.v1"
            options = { TypeUrl = "io.containerd.runsc.v1.options", ConfigPath = "/etc/runsc.toml" }
            [containerd.runtimes.kata]
            runtime_type = "io.containerd.kata.v2"
            [containerd.runtimes.other]
            runtime_type = "io.containerd.other.v1"
            options = { A = 1 }
        "#;
        let handlers = handlers(&config(text)).unwrap();
        let value = |name: &str| handlers[name].runtime.options.clone().unwrap().value;
        let options = runc::Options::decode(value("runc").as_slice()).unwrap();
        assert!(options.systemd_cgroup && options.binary_name == "/bin/runc" && options.io_uid == 7);
        let options = generic::Options::decode(value("runsc").as_slice()).unwrap();
        assert_eq!((options.config_path.as_str(), options.config_body.len()), ("/etc/runsc.toml", 0));
        assert_eq!(generic::Options::decode(value("other").as_slice()).unwrap().config_body, b"A = 1\n");
        assert!(handlers["kata"].runtime.options.is_none());
    }

    #[test]
    fn handlers_change_while_pods_run() {
        let handler = |name: &str, more: &str| {
            format!("[containerd.runtimes.{name}]\nruntime_type = \"io.containerd.{name}.v2\"\n{more}\n")
        };
        let before = Handlers::new(&config(&[handler("kata", ""), handler("old", "")].concat())).unwrap();
        let own_network = "cni_conf_dir = \"/etc/cni/other\"";
        let text = [
            "[containerd]\ndefault_runtime_name = \"kata\"\n".to_owned(),
            handler("kata", "runtime_path = \"/opt/kata\""),
            handler("nvidia", "pod_annotations = [\"a.*\"]"),
            handler("net", own_network),
        ];
        let (after, left) = before.changed(&config(&text.concat())).unwrap();
        assert_eq!(after.get("").unwrap().config.runtime_path, "/opt/kata");
        assert_eq!(after.get("nvidia").unwrap().config.pod_annotations, ["a.*"]);
        assert_eq!(after.get("old").unwrap().runtime.name, "io.containerd.old.v2", "it may have pods");
        assert!(after.get("net").is_err(), "its network is not there");
        let gone = ["containerd.runtimes.old", "containerd.runtimes.runc", "containerd.runtimes.net.cni_conf_dir"];
        assert_eq!(left, gone);
        let error = after.changed(&config(&handler("kata", "runtime_path = \"x\""))).unwrap_err();
        assert_eq!(error.to_string(), "containerd.runtimes.kata.runtime_path: not an absolute path");
    }

    #[test]
    fn errors_name_the_key() {
        let check = |text: &str, want: &str| {
            let error = handlers(&config(text)).unwrap_err();
            assert_eq!(error.to_string(), want);
        };
        check(
            "[containerd]\ndefault_runtime_name = \"x\"",
            "containerd.default_runtime_name: there is no runtime \"x\"",
        );
        let runc = "[containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";
        check("[containerd.runtimes.runc]\n", "containerd.runtimes.runc.runtime_type is empty");
        check(&format!("{runc}runtime_path = \"x\""), "containerd.runtimes.runc.runtime_path: not an absolute path");
        check(&format!("{runc}options = {{ Root = 1 }}"), "containerd.runtimes.runc.options.Root: not a string");
        let unknown = "containerd.runtimes.runc.options.Foo: not an option of runc's shim";
        check(&format!("{runc}options = {{ Foo = 1 }}"), unknown);
        check(&format!("{runc}base_runtime_spec = \"/nowhere\""), "containerd.runtimes.runc.base_runtime_spec");
    }
}
