//! `io.containerd.cri.v1.runtime`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use kevel_cri_network::{IpPreference, Timeouts};
use kevel_model::{Error, Result, duration};
use serde::{Deserialize, Serialize};

use super::HandlerConfig;

/// How pods and containers are run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    /// Runtime handlers.
    pub containerd: ContainerdConfig,
    /// Networks.
    pub cni: CniConfig,
    /// Give processes SELinux labels.
    pub enable_selinux: bool,
    /// The number of categories that levels of pods are made of; 0 for as many as there are.
    pub selinux_category_range: u32,
    /// The longest line of a container's log, in bytes; longer ones are split.
    pub max_container_log_line_size: usize,
    /// Use no AppArmor profile.
    pub disable_apparmor: bool,
    /// No process gets a lower OOM score than the daemon has.
    pub restrict_oom_score_adj: bool,
    /// Keep the default masked and read-only paths whatever the request says.
    pub disable_proc_mount: bool,
    /// The seccomp profile of containers that name none: empty for none, `runtime/default`, or a path.
    pub unset_seccomp_profile: String,
    /// Ignore huge page limits when the controller is missing.
    pub tolerate_missing_hugetlb_controller: bool,
    /// Ignore huge page limits.
    pub disable_hugetlb_controller: bool,
    /// Devices belong to the container's user.
    pub device_ownership_from_security_context: bool,
    /// Make no volumes that only the image declares.
    pub ignore_image_defined_volumes: bool,
    /// Keep network namespaces below the state directory and not in `/var/run/netns`.
    pub netns_mounts_under_state_dir: bool,
    /// Mount containers' overlays so that what they write is never flushed for their sake: no container outlives the node
    /// it ran on. Kevel's own key.
    pub volatile_rootfs: bool,
    /// Pods may bind ports below 1024.
    pub enable_unprivileged_ports: bool,
    /// Pods may ping.
    pub enable_unprivileged_icmp: bool,
    /// Where CDI specs are; a later directory wins.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// How long output of a command is waited for after its end, e.g. `10s`; empty for 10 seconds.
    pub drain_exec_sync_io_timeout: String,
    /// How long a path of the node that a container mounts may take to answer; Kevel's own key.
    #[serde(with = "duration")]
    pub host_path_timeout: Duration,
    /// How often CPU time is looked at, to say how many cores are used, e.g. `5s`; empty for 1 second.
    pub stats_collect_period: String,
    /// Offer checkpoint and restore where CRIU works.
    pub enable_criu: bool,
}

/// Runtime handlers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerdConfig {
    /// The handler of pods that name none.
    pub default_runtime_name: String,
    /// Handlers by name.
    pub runtimes: BTreeMap<String, HandlerConfig>,
}

/// Networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CniConfig {
    /// Where plugins are, in order of search.
    pub bin_dirs: Vec<PathBuf>,
    /// Where plugins are, in the form of older versions; used when `bin_dirs` is empty.
    pub bin_dir: String,
    /// Where network configurations are.
    pub conf_dir: PathBuf,
    /// How many networks a pod joins; 0 means all.
    pub max_conf_num: usize,
    /// Join networks one after the other.
    pub setup_serially: bool,
    /// A template from which a network configuration is made when the kubelet tells the pod CIDR.
    pub conf_template: String,
    /// Which address of several is the pod's own.
    pub ip_pref: IpPreference,
    /// Bring `lo` up without a plugin.
    pub use_internal_loopback: bool,
    /// Where records of attachments are; Kevel's own key.
    pub cache_dir: PathBuf,
    /// Use a built-in bridge network while there is no configuration; Kevel's own key.
    pub fallback: bool,
    /// The address ranges of that network, one for each family; Kevel's own key.
    pub fallback_subnets: Vec<String>,
    /// The bridge of that network; Kevel's own key.
    pub fallback_bridge: String,
    /// How long plugins may take; Kevel's own table.
    pub timeouts: CniTimeouts,
    /// How often networks are asked to give back what belongs to no pod, and pods' attachments are checked; `0s` for
    /// never but at the start. Kevel's own key.
    #[serde(with = "duration")]
    pub gc_period: Duration,
}

/// How long one plugin may take, for each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CniTimeouts {
    /// Attaching a pod.
    #[serde(with = "duration")]
    pub add: Duration,
    /// Detaching one.
    #[serde(with = "duration")]
    pub del: Duration,
    /// Seeing whether an attachment is as it was made.
    #[serde(with = "duration")]
    pub check: Duration,
    /// Saying whether pods can be attached.
    #[serde(with = "duration")]
    pub status: Duration,
    /// Giving back what belongs to no pod.
    #[serde(with = "duration")]
    pub gc: Duration,
}

impl Default for CniTimeouts {
    fn default() -> Self {
        let Timeouts { add, del, check, status, gc } = Timeouts::default();
        Self { add, del, check, status, gc }
    }
}

impl RuntimeConfig {
    /// How often CPU time is looked at.
    pub(crate) fn stats_period(&self) -> Result<Duration> {
        let text = self.stats_collect_period.trim();
        if text.is_empty() {
            return Ok(Duration::from_secs(1));
        }
        let wrong =
            || Error::invalid_argument(format!("stats_collect_period: {text:?} is no time such as 10s or 500ms"));
        let unit = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        } * number.parse::<f64>().map_err(|_| wrong())?;
        let period = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        if period < Duration::from_millis(100) {
            return Err(Error::invalid_argument(format!("stats_collect_period: {text:?} is less than 100ms")));
        }
        Ok(period)
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            containerd: ContainerdConfig::default(),
            cni: CniConfig::default(),
            enable_selinux: false,
            selinux_category_range: crate::selinux::CATEGORIES,
            max_container_log_line_size: 16 << 10,
            disable_apparmor: false,
            restrict_oom_score_adj: false,
            disable_proc_mount: false,
            unset_seccomp_profile: String::new(),
            tolerate_missing_hugetlb_controller: true,
            disable_hugetlb_controller: true,
            device_ownership_from_security_context: false,
            ignore_image_defined_volumes: false,
            netns_mounts_under_state_dir: false,
            volatile_rootfs: true,
            enable_unprivileged_ports: true,
            enable_unprivileged_icmp: true,
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            drain_exec_sync_io_timeout: String::new(),
            host_path_timeout: Duration::from_secs(20),
            stats_collect_period: String::new(),
            enable_criu: true,
        }
    }
}

impl Default for ContainerdConfig {
    fn default() -> Self {
        let runc = HandlerConfig { runtime_type: "io.containerd.runc.v2".to_owned(), ..HandlerConfig::default() };
        Self { default_runtime_name: "runc".to_owned(), runtimes: [("runc".to_owned(), runc)].into() }
    }
}

impl Default for CniConfig {
    fn default() -> Self {
        let fallback = kevel_cri_network::conf::Fallback::default();
        Self {
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            bin_dir: String::new(),
            conf_dir: PathBuf::from("/etc/cni/net.d"),
            max_conf_num: 1,
            setup_serially: false,
            conf_template: String::new(),
            ip_pref: IpPreference::Ipv4,
            use_internal_loopback: true,
            cache_dir: PathBuf::from("/var/lib/cni"),
            fallback: true,
            fallback_subnets: fallback.subnets,
            fallback_bridge: fallback.bridge,
            timeouts: CniTimeouts::default(),
            gc_period: Duration::from_secs(15 * 60),
        }
    }
}

impl RuntimeConfig {
    /// Values that the types permit and that can't be meant.
    ///
    /// # Errors
    /// "invalid argument" that names the key.
    pub(crate) fn check(&self) -> Result<()> {
        if self.selinux_category_range == 1 || self.selinux_category_range > crate::selinux::CATEGORIES {
            let (range, most) = (self.selinux_category_range, crate::selinux::CATEGORIES);
            return Err(Error::invalid_argument(format!("selinux_category_range: {range} is not from 2 to {most}")));
        }
        let CniTimeouts { add, del, check, status, gc } = self.cni.timeouts;
        let limits = [("add", add), ("del", del), ("check", check), ("status", status), ("gc", gc)];
        let mut limits: Vec<_> = limits.map(|(name, limit)| (format!("cni.timeouts.{name}"), limit)).into();
        limits.push(("host_path_timeout".to_owned(), self.host_path_timeout));
        match limits.into_iter().find(|(_, limit)| limit.is_zero()) {
            Some((key, _)) => Err(Error::invalid_argument(format!("{key}: nothing is done in no time"))),
            None => Ok(()),
        }
    }
}

impl CniConfig {
    /// What the network crate is made with; `conf_dir` and `max_conf_num` may be a handler's own.
    pub fn network(&self, conf_dir: Option<&str>, max_conf_num: Option<usize>) -> kevel_cri_network::Config {
        let bin_dirs = match self.bin_dirs.is_empty() {
            true if !self.bin_dir.is_empty() => vec![PathBuf::from(&self.bin_dir)],
            _ => self.bin_dirs.clone(),
        };
        let fallback = kevel_cri_network::conf::Fallback {
            subnets: self.fallback_subnets.clone(),
            bridge: self.fallback_bridge.clone(),
            ..Default::default()
        };
        kevel_cri_network::Config {
            bin_dirs,
            conf_dir: conf_dir.map_or_else(|| self.conf_dir.clone(), PathBuf::from),
            max_conf_num: max_conf_num.unwrap_or(self.max_conf_num),
            setup_serially: self.setup_serially,
            ip_pref: self.ip_pref,
            use_internal_loopback: self.use_internal_loopback,
            cache_dir: self.cache_dir.clone(),
            fallback: self.fallback.then_some(fallback),
            timeouts: Timeouts {
                add: self.timeouts.add,
                del: self.timeouts.del,
                check: self.timeouts.check,
                status: self.timeouts.status,
                gc: self.timeouts.gc,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let check = |text: &str, want: Option<u64>| {
            let config = RuntimeConfig { stats_collect_period: text.to_owned(), ..RuntimeConfig::default() };
            assert_eq!(config.stats_period().ok().map(|period| period.as_millis()), want.map(u128::from), "{text}");
        };
        check("", Some(1000));
        check("10s", Some(10_000));
        check("500ms", Some(500));
        check("1.5m", Some(90_000));
        for bad in ["10", "s", "-1s", "1d", "10ms", "1e99h", "1s2"] {
            check(bad, None);
        }
    }
}
