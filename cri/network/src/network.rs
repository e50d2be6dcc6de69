//! The networks of this node, for pods: what the CRI server calls.

mod state;

pub use state::{LoadReport, Origin};

use crate::cache::Record;
use crate::conf::{self, NetworkList, Watch};
use crate::gate::Gate;
use crate::name::check_container_id;
use crate::pod::Joined;
use crate::{Attachment, Cni, Config, Error, ExecInvoker, Invoker, Netns, PluginError, PodNetwork, PodNetworkStatus};
use futures::future::join_all;
use serde_json::Value;
use state::State;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};

/// Interfaces of pods are `eth0`, `eth1` and so on, one for each network.
const PREFIX: &str = "eth";
/// The loopback interface as a network, where the plugin is to bring it up.
const LOOPBACK: &str = r#"{"cniVersion":"1.0.0","name":"cni-loopback","plugins":[{"type":"loopback"}]}"#;

/// Attaches pods to the configured networks.
///
/// Configurations are read when it is made, by [`Network::reload`], and by [`Network::watch`] whenever the directory
/// changes. Operations of one pod wait for each other; garbage collection waits for all of them. Dropping the future
/// of an operation kills the plugin that runs, and leaves a record by which [`Network::detach`] cleans up.
pub struct Network {
    config: Config,
    cni: Cni,
    gate: Arc<Gate>,
    state: RwLock<Arc<State>>,
}

/// Whether pods can be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkStatus {
    /// `NetworkReady` of the CRI.
    pub ready: bool,
    /// Why not, for an operator; empty when ready.
    pub reason: String,
    /// The last reading of the configuration.
    pub load: LoadReport,
}

impl Network {
    /// Runs plugins as binaries.
    pub fn new(config: Config) -> Self {
        let invoker = Arc::new(ExecInvoker::new(config.bin_dirs.clone()));
        Self::with_invoker(config, invoker)
    }

    /// Runs plugins through `invoker`.
    pub fn with_invoker(config: Config, invoker: Arc<dyn Invoker>) -> Self {
        Self::with_gate(config, invoker, Arc::default())
    }

    /// Another configuration on the same node, whose plugins run as binaries too: operations of one pod and garbage
    /// collection wait for each other across both.
    pub fn beside(&self, config: Config) -> Self {
        let invoker = Arc::new(ExecInvoker::new(config.bin_dirs.clone()));
        Self::with_gate(config, invoker, self.gate.clone())
    }

    fn with_gate(config: Config, invoker: Arc<dyn Invoker>, gate: Arc<Gate>) -> Self {
        let cni = Cni::new(invoker, &config.cache_dir, config.timeouts);
        let network = Self { config, cni, gate, state: RwLock::default() };
        network.reload();
        network
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the configuration directory now. Blocks on small files.
    pub fn reload(&self) -> LoadReport {
        let loaded = conf::load(&self.config.conf_dir, self.config.max_conf_num);
        let state = Arc::new(State::new(loaded, &self.config));
        let report = state.report.clone();
        let mut current = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if current.report != report {
            tracing::info!(networks = ?report.networks, errors = ?report.errors, "network configuration read");
        }
        *current = state;
        report
    }

    /// Reads the configuration again after each change of the directory, which is made if it does not exist. Runs
    /// until dropped; when it fails, it can be started again.
    ///
    /// # Errors
    /// [`Error::Watch`].
    pub async fn watch(&self) -> Result<Infallible, Error> {
        let mut watch = Watch::new(&self.config.conf_dir)?;
        loop {
            self.reload();
            watch.changed().await?;
        }
    }

    /// The last reading of the configuration.
    pub fn load_report(&self) -> LoadReport {
        self.current().report.clone()
    }

    /// The configurations in use, for the CRI's verbose status.
    pub fn networks(&self) -> Vec<Arc<NetworkList>> {
        self.current().networks.clone()
    }

    /// The configuration in use as go-cni prints it, which is what `crictl info` shows as `cniconfig`.
    pub fn describe(&self) -> Value {
        self.current().describe(&self.config)
    }

    /// Brings `lo` up and attaches the pod to every network. After a failure nothing is attached, or the error is
    /// [`Error::Undo`] and [`Network::detach`] is due.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Netns`] and [`Error::NotReady`] before anything is done, then those of
    /// [`Cni::add`], or [`Error::NoAddress`].
    pub async fn attach(&self, pod: &PodNetwork) -> Result<PodNetworkStatus, Error> {
        check_container_id("id", &pod.id)?;
        let networks = self.networks();
        let attachments: Vec<Attachment> =
            (0..networks.len()).map(|i| pod.attachment(&ifname(i))).collect::<Result<_, _>>()?;
        Netns::open(&pod.netns)?;
        let Some(first) = networks.first() else {
            return Err(Error::NotReady { reason: self.why_no_network() });
        };
        let _pass = self.gate.container(&pod.id).await;
        let joined = match self.join(pod, &networks, &attachments).await {
            Ok(joined) => joined,
            Err(e) => return Err(self.undo(pod, e).await),
        };
        let netns = pod.netns.to_string_lossy();
        match PodNetworkStatus::new(&netns, &joined, self.config.ip_pref) {
            Some(status) => Ok(status),
            None => {
                let failure =
                    Error::NoAddress { network: first.name.clone(), container: pod.id.clone(), interface: ifname(0) };
                Err(self.undo(pod, failure).await)
            }
        }
    }

    /// Detaches the pod from every network that it is on record for, and from the configured ones. Repeating it is
    /// no error (but runs the plugins again, who remembers that it succeeded need not), neither is a namespace that
    /// is gone or was never made.
    ///
    /// # Errors
    /// All failures, after everything was tried; it can be repeated.
    pub async fn detach(&self, pod: &PodNetwork) -> Result<(), Error> {
        check_container_id("id", &pod.id)?;
        let _pass = self.gate.container(&pod.id).await;
        let records = self.cni.records(Some(&pod.id)).await?;
        let mut errors = Vec::new();
        for record in records.iter().rev() {
            errors.extend(self.del_record(record).await.err());
        }
        for (i, list) in self.networks().iter().enumerate() {
            if records.iter().any(|record| record.network == list.name) {
                continue;
            }
            // A pod that attach refuses was never attached.
            let Ok(attachment) = pod.attachment(&ifname(i)) else { continue };
            match self.cni.del_unrecorded(list, &attachment).await {
                // Neither a record nor the plugin: there cannot be anything of it.
                Err(e) if is_missing_plugin(&e) => {}
                other => errors.extend(other.err()),
            }
        }
        Error::join(errors)
    }

    /// Whether the pod's attachments are as they were made.
    ///
    /// # Errors
    /// [`Error::NotAttached`], or the first plugin's failure.
    pub async fn check(&self, pod: &PodNetwork) -> Result<(), Error> {
        check_container_id("id", &pod.id)?;
        let _pass = self.gate.container(&pod.id).await;
        let netns = Netns::open(&pod.netns)?;
        if !netns.is_loopback_up().await? {
            return Err(Error::NotAttached { network: "lo".to_owned(), container: pod.id.clone() });
        }
        let records = self.cni.records(Some(&pod.id)).await?;
        if records.is_empty() {
            let network = self.networks().first().map(|list| list.name.clone()).unwrap_or_default();
            return Err(Error::NotAttached { network, container: pod.id.clone() });
        }
        for record in &records {
            self.cni.check(record).await?;
        }
        Ok(())
    }

    /// Whether pods can be attached now: there is a network, its plugins exist and say that they are ready.
    pub async fn status(&self) -> NetworkStatus {
        let state = self.current();
        let mut reason = String::new();
        if state.networks.is_empty() {
            reason = self.why_no_network();
        }
        for list in &state.networks {
            if let Err(e) = self.cni.status(list).await {
                reason = e.chain();
                break;
            }
        }
        NetworkStatus { ready: reason.is_empty(), reason, load: state.report.clone() }
    }

    /// Removes whatever belongs to none of the valid pods from the networks of this configuration. Waits until no
    /// pod is being attached or detached, and only then asks which pods are valid: a pod counts from the moment at which
    /// it may be attached. `None` means that nobody knows, and nothing is done. Attachments that other runtimes have on
    /// record in the same directory are valid; one whose records are elsewhere, on a network of the same name, needs
    /// `disableGC` there.
    ///
    /// # Errors
    /// All failures, after everything was tried.
    pub async fn gc(&self, valid: impl Future<Output = Option<Vec<String>>>) -> Result<(), Error> {
        let _alone = self.gate.alone().await;
        let Some(valid) = valid.await else { return Ok(()) };
        let networks = self.networks();
        // A valid pod without a record is valid on the interfaces that it would have.
        let mut attachments: BTreeSet<(String, String)> = BTreeSet::new();
        for id in &valid {
            attachments.extend((0..networks.len()).map(|i| (id.clone(), ifname(i))));
        }
        for record in self.cni.records(None).await? {
            if !record.ours || valid.contains(&record.container_id) {
                attachments.insert((record.container_id, record.ifname));
            }
        }
        let mut errors = Vec::new();
        for list in &networks {
            errors.extend(self.cni.gc(list, &attachments).await.err());
        }
        Error::join(errors)
    }

    /// All or an error; attachments that succeeded are on record, for the undo.
    async fn join(
        &self,
        pod: &PodNetwork,
        networks: &[Arc<NetworkList>],
        attachments: &[Attachment],
    ) -> Result<Vec<Joined>, Error> {
        self.loopback(pod).await?;
        let add = async |(list, attachment): (&Arc<NetworkList>, &Attachment)| {
            let answer = self.cni.add(list, attachment).await?;
            Ok(Joined { network: list.name.clone(), ifname: attachment.ifname.clone(), answer })
        };
        let pairs = networks.iter().zip(attachments);
        let mut joined = Vec::new();
        if self.config.setup_serially {
            for pair in pairs {
                joined.push(add(pair).await?);
            }
            return Ok(joined);
        }
        // Every ADD is waited for, failed or not: one that is dropped half way leaves more to undo.
        let mut errors = Vec::new();
        for done in join_all(pairs.map(add)).await {
            match done {
                Ok(join) => joined.push(join),
                Err(e) => errors.push(e),
            }
        }
        Error::join(errors)?;
        Ok(joined)
    }

    async fn loopback(&self, pod: &PodNetwork) -> Result<(), Error> {
        if self.config.use_internal_loopback {
            return Netns::at(&pod.netns).loopback_up().await;
        }
        let list = NetworkList::parse(LOOPBACK.as_bytes())
            .map_err(|e| Error::Config { origin: "of the loopback interface".to_owned(), source: Box::new(e) })?;
        self.cni.add(&list, &pod.attachment("lo")?).await.map(|_| ())
    }

    async fn undo(&self, pod: &PodNetwork, failure: Error) -> Error {
        let mut errors = Vec::new();
        match self.cni.records(Some(&pod.id)).await {
            Ok(records) => {
                for record in records.iter().rev() {
                    errors.extend(self.del_record(record).await.err());
                }
            }
            Err(e) => errors.push(e),
        }
        match (Error::join(errors), failure) {
            (Ok(()), Error::Undo { add, .. }) => *add,
            (Ok(()), failure) => failure,
            // The second attempt failed as well; the first one's report says the same.
            (Err(undo), Error::Undo { add, .. }) => Error::Undo { add, undo: Box::new(undo) },
            (Err(undo), failure) => Error::Undo { add: Box::new(failure), undo: Box::new(undo) },
        }
    }

    /// With the recorded configuration; should that be unusable, with the current one of the same name.
    async fn del_record(&self, record: &Record) -> Result<(), Error> {
        let unusable = match record.network_list() {
            Ok(list) => return self.cni.del_by(&list, record).await,
            Err(e) => e,
        };
        match self.networks().iter().find(|list| list.name == record.network) {
            Some(list) => self.cni.del_by(list, record).await,
            None => Err(unusable),
        }
    }

    fn current(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn why_no_network(&self) -> String {
        let dir = self.config.conf_dir.display();
        let errors = &self.current().report.errors;
        if errors.is_empty() {
            format!("no network configuration in {dir}")
        } else {
            format!("no valid network configuration in {dir}: {}", errors.join("; "))
        }
    }
}

fn ifname(index: usize) -> String {
    format!("{PREFIX}{index}")
}

fn is_missing_plugin(error: &Error) -> bool {
    match error {
        Error::Plugin { source, .. } => matches!(**source, PluginError::NotFound { .. }),
        Error::Many(errors) => errors.iter().all(is_missing_plugin),
        _ => false,
    }
}
