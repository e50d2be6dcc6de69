//! Operations on one network: the chain of its plugins, run for one attachment.
//!
//! Promises: an attachment is recorded before ADD runs, so that a crash can be undone; a failed ADD is undone before
//! the error is returned; DEL goes on past failing plugins and returns every failure; a record goes only when DEL
//! succeeded completely.

mod target;

pub use target::Attachment;

use crate::cache::{Cache, Record};
use crate::conf::{NetworkList, PluginConf, RequestFields};
use crate::result::{Answer, parse_versions};
use crate::{Call, Error, FieldError, Invoker, PluginError, SpecVersion, Timeouts, Verb};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use target::Target;

/// What ADD gave.
pub type Added = Answer;

/// Runs chains of plugins and keeps the records.
#[derive(Clone)]
pub struct Cni {
    invoker: Arc<dyn Invoker>,
    cache: Cache,
    timeouts: Timeouts,
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
        self.del_earlier(list, attachment).await?;
        let mut record = attachment.record(list);
        self.put(record.clone()).await?;
        let failure = match self.add_chain(list, attachment, &mut record).await {
            Ok(answer) => return Ok(answer),
            Err(e) => e,
        };
        match self.del_by(list, &record).await {
            Ok(()) => Err(failure),
            Err(undo) => Err(Error::Undo { add: Box::new(failure), undo: Box::new(undo) }),
        }
    }

    /// The record gets each answer as it comes, for the undo; on disk it gets the last one.
    async fn add_chain(
        &self,
        list: &NetworkList,
        attachment: &Attachment,
        record: &mut Record,
    ) -> Result<Answer, Error> {
        let target = attachment.target(Verb::Add, list);
        let mut last = None;
        for plugin in &list.plugins {
            let bytes = self.call(&target, plugin, record.result.as_ref()).await?;
            let answer =
                Answer::parse(&bytes, list.version).map_err(|e| target.error(plugin, PluginError::Result(e)))?;
            record.result = Some(answer.raw.clone());
            last = Some(answer);
        }
        let answer = last.ok_or_else(|| FieldError::new("plugins", "empty"))?;
        self.put(record.clone()).await?;
        Ok(answer)
    }

    /// A record of the same attachment is of an ADD that was cut short, or of one whose DEL never came.
    async fn del_earlier(&self, list: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
        let Some(old) = self.record(&list.name, &attachment.container_id, &attachment.ifname).await? else {
            return Ok(());
        };
        tracing::info!(network = %list.name, container = %old.container_id, "removing an earlier attachment");
        match old.network_list() {
            Ok(recorded) => self.del_by(&recorded, &old).await,
            Err(_) => self.del_by(list, &old).await,
        }
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
        let target = Target { netns, ..Target::of_record(Verb::Del, list, record) };
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

    /// Detaches without a record, with the given configuration. The namespace may be gone, or its path empty.
    ///
    /// # Errors
    /// As [`Self::del`].
    pub async fn del_unrecorded(&self, list: &NetworkList, attachment: &Attachment) -> Result<(), Error> {
        attachment.check_names()?;
        self.del_by(list, &attachment.record(list)).await
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
        let target = Target::of_record(Verb::Check, &list, record);
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

    /// Detaches every attachment of ours to the network that is on record and not `valid`, a set of container ids and interfaces,
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
            if !record.ours || record.network != list.name || valid.contains(&key) {
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

    /// The specification versions that a plugin says it speaks; one from before VERSION speaks the first.
    ///
    /// # Errors
    /// The plugin's failure; no network is named in it.
    pub async fn version(&self, plugin: &str) -> Result<Vec<SpecVersion>, Error> {
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
        let versions = match self.invoker.invoke(&call).await {
            Ok(bytes) => parse_versions(&bytes).map_err(PluginError::Result),
            Err(e) if e.is_unknown_verb() => Ok(vec![SpecVersion::V0_1_0]),
            Err(e) => Err(e),
        };
        versions.map_err(|e| Error::Plugin {
            verb: Verb::Version,
            network: String::new(),
            plugin: plugin.to_owned(),
            source: Box::new(e),
        })
    }

    /// Whether every plugin of the chain speaks the version of the configuration.
    ///
    /// # Errors
    /// [`PluginError::Version`] of the first that does not.
    pub async fn validate(&self, list: &NetworkList) -> Result<(), Error> {
        let target = Target::of_network(Verb::Version, list);
        for plugin in &list.plugins {
            let spoken = self.version(&plugin.kind).await?;
            if !spoken.contains(&list.version) {
                return Err(target.error(plugin, PluginError::Version { wanted: list.version, spoken }));
            }
        }
        Ok(())
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
