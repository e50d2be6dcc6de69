//! What lies in the database of an activation. Never reuse a field number.

use kevel_contract::mounts::{Activation, ActiveMount};
use kevel_model::{Labels, Mount, Result};

use crate::record::{Stored, nanos, time};

/// An activation, with the manager's number for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Activated {
    pub(crate) number: u64,
    /// Whether everything is mounted.
    pub(crate) done: bool,
    pub(crate) activation: Activation,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MountRecord {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, tag = "3")]
    target: String,
    #[prost(string, repeated, tag = "4")]
    options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ActiveRecord {
    #[prost(message, optional, tag = "1")]
    mount: Option<MountRecord>,
    #[prost(int64, tag = "2")]
    mounted_at: i64,
    #[prost(string, tag = "3")]
    mount_point: String,
    #[prost(btree_map = "string, string", tag = "4")]
    data: Labels,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ActivatedRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(bool, tag = "3")]
    done: bool,
    #[prost(message, repeated, tag = "4")]
    active: Vec<ActiveRecord>,
    #[prost(message, repeated, tag = "5")]
    system: Vec<MountRecord>,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: Labels,
}

fn mount_record(mount: &Mount) -> MountRecord {
    let Mount { kind, source, target, options } = mount.clone();
    MountRecord { kind, source, target, options }
}

fn mount(record: MountRecord) -> Mount {
    let MountRecord { kind, source, target, options } = record;
    Mount { kind, source, target, options }
}

fn active_record(active: &ActiveMount) -> ActiveRecord {
    ActiveRecord {
        mount: Some(mount_record(&active.mount)),
        mounted_at: nanos(active.mounted_at),
        mount_point: active.mount_point.clone(),
        data: active.data.clone(),
    }
}

fn active(record: ActiveRecord) -> ActiveMount {
    ActiveMount {
        mount: mount(record.mount.unwrap_or_default()),
        mounted_at: time(record.mounted_at),
        mount_point: record.mount_point,
        data: record.data,
    }
}

impl Stored for Activated {
    type Record = ActivatedRecord;

    fn record(&self) -> ActivatedRecord {
        let Activation { name, active, system, labels } = &self.activation;
        ActivatedRecord {
            name: name.clone(),
            number: self.number,
            done: self.done,
            active: active.iter().map(active_record).collect(),
            system: system.iter().map(mount_record).collect(),
            labels: labels.clone(),
        }
    }

    fn object(record: ActivatedRecord) -> Result<Self> {
        let activation = Activation {
            name: record.name,
            active: record.active.into_iter().map(active).collect(),
            system: record.system.into_iter().map(mount).collect(),
            labels: record.labels,
        };
        Ok(Self { number: record.number, done: record.done, activation })
    }
}
