//! Operations on one network: the chain of its plugins, run for one attachment.
//!
//! Promises: an attachment is recorded before ADD runs, so that a crash can be undone; a failed ADD is undone before
//! the error is returned; DEL goes on past failing plugins and returns every failure; a record goes only when DEL
//! succeeded completely.

use crate::cache::{Cache, Record};
use crate::conf::{NetworkList, PluginConf, RequestFields};
use crate::name::{check_arg, check_container_id, check_interface};
use crate::result::Answer;
use crate::{Call, Error, FieldError, Invoker, PluginError, SpecVersion, Timeouts, Verb};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is attached: one interface of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// The container's (pod's) id.
    pub container_id: String,
    /// The interface to create.
    pub ifname: String,
    /// The path of the network namespace.
    pub netns: PathBuf,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// Capability arguments by name; plugins get those that they declare.
    pub capability_args: BTreeMap<String, Value>,
}

/// What ADD gave.
pub type Added = Answer;

/// Runs chains of plugins and keeps the records.
#[derive(Clone)]
pub struct Cni {
    invoker: Arc<dyn Invoker>,
    cache: Cache,
    timeouts: Timeouts,
}

/// What the plugins of one operation have in common.
struct Target<'a> {
    verb: Verb,
    list: &'a NetworkList,
    container_id: &'a str,
    ifname: &'a str,
    netns: Option<&'a Path>,
    args: &'a [(String, String)],
    capability_args: &'a BTreeMap<String, Value>,
}

impl Cni {
    /// Plugins are called through `invoker`, records are kept under `cache_dir`.
    pub fn new(invoker: Arc<dyn Invoker>, cache_dir: &Path, timeouts: Timeouts) -> Self {
        Self { invoker, cache: Cache::new(cache_dir), timeouts }
    }

    /// The records of a container, or all.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub async fn records(&self, container_id: Option<&str>) -> Result<Vec<Record>, Error> {
        let container_id = container_id.map(str::to_owned);
        self.on_cache(move |cache| cache.list(container_id.as_deref())).await
    }

    /// The record of one attachment.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub async fn record(&self, network: &str, container_id: &str, ifname: &str) -> Result<Option<Record>, Error> {
        let (network, id, ifname) = (network.to_owned(), container_id.to_owned(), ifname.to_owned());
        self.on_cache(move |cache| cache.get(&network, &id, &ifname)).await
    }

    /// Attaches. What an earlier, interrupted ADD of the same attachment left is removed first.
    ///
    /// # Errors
    /// [`Error::Invalid`] and a missing plugin before anything is changed. [`Error::Plugin`] after a complete undo.
    /// [`Error::Undo`] when something is left, to be removed by [`Self::del`].
    pub async fn add(&self, list: &NetworkList, attachment: &Attachment) -> Result<Added, Error> {
        attachment.check()?;
        self.find_plugins(Verb::Add, list).await?;
        if let Some(old) = self.record(&list.name, &attachment.container_id, &attachment.ifname).await? {
            tracing::info!(network = %list.name, container = %old.container_id, "removing an earlier attachment");
            self.del(&old).await?;
        }
        let mut record = attachment.record(list);
        self.put(record.clone()).await?;
        let mut last = None;
        let failure = match self.add_chain(list, attachment, &mut last).await {
            Ok(()) => match last {
                Some(answer) => {
                    record.result = Some(answer.raw.clone());
                    match self.put(record.clone()).await {
                        Ok(()) => return Ok(answer),
                        Err(e) => e,
                    }
                }
                None => Error::Invalid(FieldError::new("plugins", "empty")),
            },
            Err(e) => {
                record.result = last.map(|answer: Answer| answer.raw);
                e
            }
        };
        match self.del(&record).await {
            Ok(()) => Err(failure),
            Err(undo) => Err(Error::Undo { add: Box::new(failure), undo: Box::new(undo) }),
        }
    }

    /// `last` is the answer of the last plugin that succeeded, which the undo needs too.
    async fn add_chain(
        &self,
        list: &NetworkList,
        attachment: &Attachment,
        last: &mut Option<Answer>,
    ) -> Result<(), Error> {
        let target = attachment.target(Verb::Add, list);
        for plugin in &list.plugins {
            let prev = last.as_ref().map(|answer| &answer.raw);
            let bytes = self.call(&target, plugin, prev).await?;
            let answer =
                Answer::parse(&bytes, list.version).map_err(|e| target.error(plugin, PluginError::Result(e)))?;
            *last = Some(answer);
        }
        Ok(())
    }

    /// Detaches what a record describes, with the configuration and arguments of its ADD. A namespace that no longer
    /// exists is not mentioned to the plugins, which then release what is outside of it.
    ///
    /// # Errors
    /// Every plugin's failure; the record stays and DEL can be repeated.
    pub async fn del(&self, record: &Record) -> Result<(), Error> {
        self.del_by(&record.network_list()?, record).await
    }

    /// Detaches what a record describes, but with another configuration: the recorded one is not usable.
    ///
    /// # Errors
    /// As [`Self::del`].
    pub async fn del_by(&self, list: &NetworkList, record: &Record) -> Result<(), Error> {
        let netns = live_netns(&record.netns);
        let target = Target { netns, ..target_of(Verb::Del, list, record) };
        // Before 0.4.0 DEL has no previous result. A damaged one must not keep an address reserved for ever.
        let prev = previous(record, list).filter(|_| list.version >= SpecVersion::V0_4_0);
        let mut errors = Vec::new();
        for plugin in list.plugins.iter().rev() {
            match self.call(&target, plugin, prev.as_ref()).await {
                Ok(_) => {}
                Err(Error::Plugin { source, .. }) if source.is_unknown_container() => {}
                Err(e) => errors.push(e),
            }
        }
        Error::join(errors)?;
        let (network, id, ifname) = (record.network.clone(), record.container_id.clone(), record.ifname.clone());
        self.on_cache(move |cache| cache.remove(&network, &id, &ifname)).await
    }

    /// Detaches without a record, with the given configuration.
    ///
    /// # Errors
    /// As [`Self::del`].
    pub async fn del_unrecorded(&self, list: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
        attachment.check()?;
        self.del(&attachment.record(list)).await
    }

    /// Asks every plugin whether the attachment is as ADD left it. Networks older than 0.4.0 and those that disable
    /// it are always well.
    ///
    /// # Errors
    /// [`Error::NotAttached`], or the first plugin's failure.
    pub async fn check(&self, record: &Record) -> Result<(), Error> {
        let list = record.network_list()?;
        if list.version < SpecVersion::V0_4_0 || list.disable_check {
            return Ok(());
        }
        let Some(prev) = previous(record, &list) else {
            return Err(Error::NotAttached { network: list.name, container: record.container_id.clone() });
        };
        let target = target_of(Verb::Check, &list, record);
        for plugin in &list.plugins {
            self.call(&target, plugin, Some(&prev)).await?;
        }
        Ok(())
    }

    /// Whether the network can serve ADD: its plugins exist and, from 1.1.0 on, say so.
    ///
    /// # Errors
    /// The first plugin's failure.
    pub async fn status(&self, list: &NetworkList) -> Result<(), Error> {
        self.find_plugins(Verb::Status, list).await?;
        if list.version < SpecVersion::V1_1_0 {
            return Ok(());
        }
        let target = Target::of_network(Verb::Status, list);
        for plugin in &list.plugins {
            match self.call(&target, plugin, None).await {
                Err(Error::Plugin { source, .. }) if source.is_unknown_verb() => {}
                other => _ = other?,
            }
        }
        Ok(())
    }

    /// Detaches every recorded attachment of the network that is not `valid`, a set of container ids and interfaces,
    /// then, from 1.1.0 on, has the plugins remove everything else that is not. A network that disables GC is left
    /// alone. The caller sees to it that no other operation runs.
    ///
    /// # Errors
    /// All failures, after all was tried.
    pub async fn gc(&self, list: &NetworkList, valid: &BTreeSet<(String, String)>) -> Result<(), Error> {
        if list.disable_gc {
            return Ok(());
        }
        let mut errors = Vec::new();
        for record in self.records(None).await? {
            let key = (record.container_id.clone(), record.ifname.clone());
            if record.network != list.name || valid.contains(&key) {
                continue;
            }
            tracing::info!(network = %list.name, container = %key.0, interface = %key.1, "removing a stale attachment");
            errors.extend(self.del(&record).await.err());
        }
        if list.version >= SpecVersion::V1_1_0 {
            errors.extend(self.gc_plugins(list, valid).await);
        }
        Error::join(errors)
    }

    async fn gc_plugins(&self, list: &NetworkList, valid: &BTreeSet<(String, String)>) -> Vec<Error> {
        let entry = |(id, ifname): &(String, String)| json!({ "containerID": id, "ifname": ifname });
        let valid = Value::Array(valid.iter().map(entry).collect());
        let target = Target::of_network(Verb::Gc, list);
        let mut errors = Vec::new();
        for plugin in &list.plugins {
            let fields = RequestFields {
                prev_result: None,
                capability_args: target.capability_args,
                valid_attachments: Some(&valid),
            };
            match self.send(&target, plugin, list.request(plugin, fields)).await {
                Err(Error::Plugin { source, .. }) if source.is_unknown_verb() => {}
                other => errors.extend(other.err()),
            }
        }
        errors
    }

    /// The specification versions that a plugin says it speaks.
    ///
    /// # Errors
    /// The plugin's failure; `plugin` stands for the network in it.
    pub async fn version(&self, plugin: &str) -> Result<Vec<SpecVersion>, Error> {
        let error =
            |source| Error::Plugin { verb: Verb::Version, network: String::new(), plugin: plugin.to_owned(), source };
        crate::name::check_plugin("type", plugin)?;
        let call = Call {
            verb: Verb::Version,
            plugin: plugin.to_owned(),
            container_id: String::new(),
            netns: None,
            ifname: String::new(),
            args: Vec::new(),
            config: json!({ "cniVersion": SpecVersion::CURRENT.to_string() }).to_string().into_bytes(),
            timeout: self.timeouts.of(Verb::Version),
        };
        let bytes = self.invoker.invoke(&call).await.map_err(error)?;
        parse_versions(&bytes).map_err(|e| error(PluginError::Result(e)))
    }

    async fn find_plugins(&self, verb: Verb, list: &NetworkList) -> Result<(), Error> {
        let target = Target::of_network(verb, list);
        for plugin in &list.plugins {
            self.invoker.find(&plugin.kind).await.map_err(|e| target.error(plugin, e))?;
        }
        Ok(())
    }

    async fn call(
        &self,
        target: &Target<'_>,
        plugin: &PluginConf,
        prev_result: Option<&Map<String, Value>>,
    ) -> Result<Vec<u8>, Error> {
        let fields = RequestFields { prev_result, capability_args: target.capability_args, valid_attachments: None };
        self.send(target, plugin, target.list.request(plugin, fields)).await
    }

    async fn send(&self, target: &Target<'_>, plugin: &PluginConf, config: Vec<u8>) -> Result<Vec<u8>, Error> {
        let call = Call {
            verb: target.verb,
            plugin: plugin.kind.clone(),
            container_id: target.container_id.to_owned(),
            netns: target.netns.map(Path::to_owned),
            ifname: target.ifname.to_owned(),
            args: target.args.to_vec(),
            config,
            timeout: self.timeouts.of(target.verb),
        };
        self.invoker.invoke(&call).await.map_err(|e| target.error(plugin, e))
    }

    async fn put(&self, record: Record) -> Result<(), Error> {
        self.on_cache(move |cache| cache.put(&record)).await
    }

    async fn on_cache<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cache) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let cache = self.cache.clone();
        match tokio::task::spawn_blocking(move || work(&cache)).await {
            Ok(done) => done,
            Err(e) => Err(Error::Cache { action: "working on", path: PathBuf::new(), source: e.into() }),
        }
    }
}

// === impl Attachment ===

impl Attachment {
    fn check(&self) -> Result<(), FieldError> {
        check_container_id("id", &self.container_id)?;
        check_interface("ifname", &self.ifname)?;
        if !self.netns.is_absolute() || self.netns.to_str().is_none() {
            return Err(FieldError::new("netns", "not an absolute path in UTF-8"));
        }
        self.args.iter().try_for_each(|(key, value)| check_arg(key, value))
    }

    fn record(&self, list: &NetworkList) -> Record {
        Record {
            network: list.name.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
            netns: self.netns.to_string_lossy().into_owned(),
            config: list.to_bytes(),
            args: self.args.clone(),
            capability_args: self.capability_args.clone(),
            result: None,
        }
    }

    fn target<'a>(&'a self, verb: Verb, list: &'a NetworkList) -> Target<'a> {
        Target {
            verb,
            list,
            container_id: &self.container_id,
            ifname: &self.ifname,
            netns: Some(&self.netns),
            args: &self.args,
            capability_args: &self.capability_args,
        }
    }
}

// === impl Target ===

static NO_ARGS: BTreeMap<String, Value> = BTreeMap::new();

impl<'a> Target<'a> {
    /// For verbs that are about no attachment.
    fn of_network(verb: Verb, list: &'a NetworkList) -> Self {
        Self { verb, list, container_id: "", ifname: "", netns: None, args: &[], capability_args: &NO_ARGS }
    }

    fn error(&self, plugin: &PluginConf, source: PluginError) -> Error {
        Error::Plugin { verb: self.verb, network: self.list.name.clone(), plugin: plugin.kind.clone(), source }
    }
}

fn target_of<'a>(verb: Verb, list: &'a NetworkList, record: &'a Record) -> Target<'a> {
    Target {
        verb,
        list,
        container_id: &record.container_id,
        ifname: &record.ifname,
        netns: Some(Path::new(&record.netns)),
        args: &record.args,
        capability_args: &record.capability_args,
    }
}

/// The recorded result in the version of the configuration.
fn previous(record: &Record, list: &NetworkList) -> Option<Map<String, Value>> {
    let raw = record.result.clone()?;
    match Answer::from_map(raw, list.version) {
        Ok(answer) => Some(answer.in_version(list.version)),
        Err(e) => {
            tracing::warn!(network = %list.name, container = %record.container_id, error = %e, "recorded result is damaged");
            None
        }
    }
}

/// The path, if it still is a network namespace. After a reboot it may be an empty file.
fn live_netns(path: &str) -> Option<&Path> {
    let path = Some(Path::new(path)).filter(|p| p.is_absolute())?;
    crate::netns::is_namespace(path).unwrap_or(false).then_some(path)
}

fn parse_versions(bytes: &[u8]) -> Result<Vec<SpecVersion>, crate::result::ResultError> {
    use crate::result::ResultError;
    let value: Value = serde_json::from_slice(bytes).map_err(|source| ResultError::Syntax {
        excerpt: String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned(),
        source,
    })?;
    let map = value.as_object().ok_or(ResultError::NotObject)?;
    let listed = crate::field::Object::root(map).strings("supportedVersions")?;
    // Versions that this runtime has never heard of are none of its business.
    let mut versions: Vec<_> = listed.iter().filter_map(|text| SpecVersion::parse(text)).collect();
    if versions.is_empty() {
        // A plugin that lists nothing is from before VERSION.
        versions.push(SpecVersion::V0_1_0);
    }
    Ok(versions)
}
