//! What lies in the database: protobuf messages of our own, and how they become the contract's types. Never reuse a
//! field number.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use kevel_contract::{container, content, image, lease, sandbox, snapshot};
use kevel_model::{Any, Descriptor, Error, Labels, Result};

/// An object that is kept in memory and in the database.
pub(crate) trait Stored: Sized {
    /// Its form in the database.
    type Record: kevel_database::Record;

    /// The form to store.
    fn record(&self) -> Self::Record;
    /// The object of a stored form.
    fn object(record: Self::Record) -> Result<Self>;
}

/// An ingest: the client's name for it, and the backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ingest {
    pub(crate) reference: String,
    pub(crate) backend: String,
    pub(crate) expected: Option<kevel_model::Digest>,
    pub(crate) total: u64,
    pub(crate) started_at: SystemTime,
    /// When the garbage collector may take it if no lease keeps it.
    pub(crate) expires_at: SystemTime,
}

/// A snapshot: what its clients know, and the backend's name for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) info: snapshot::Info,
    pub(crate) backend: String,
}

pub(crate) fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
    }
}

pub(crate) fn time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AnyRecord {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

fn any_record(any: &Any) -> AnyRecord {
    AnyRecord { type_url: any.type_url.clone(), value: any.value.clone() }
}

fn any(record: AnyRecord) -> Any {
    Any { type_url: record.type_url, value: record.value }
}

fn any_records(map: &BTreeMap<String, Any>) -> BTreeMap<String, AnyRecord> {
    map.iter().map(|(key, value)| (key.clone(), any_record(value))).collect()
}

fn anys(map: BTreeMap<String, AnyRecord>) -> BTreeMap<String, Any> {
    map.into_iter().map(|(key, value)| (key, any(value))).collect()
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LabelsRecord {
    #[prost(btree_map = "string, string", tag = "1")]
    labels: Labels,
}

impl Stored for Labels {
    type Record = LabelsRecord;

    fn record(&self) -> LabelsRecord {
        LabelsRecord { labels: self.clone() }
    }

    fn object(record: LabelsRecord) -> Result<Self> {
        Ok(record.labels)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ImageRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: Labels,
    #[prost(string, tag = "3")]
    media_type: String,
    #[prost(string, tag = "4")]
    digest: String,
    #[prost(uint64, tag = "5")]
    size: u64,
    #[prost(btree_map = "string, string", tag = "6")]
    annotations: Labels,
    #[prost(int64, tag = "7")]
    created_at: i64,
    #[prost(int64, tag = "8")]
    updated_at: i64,
    #[prost(string, repeated, tag = "9")]
    urls: Vec<String>,
    #[prost(string, optional, tag = "10")]
    artifact_type: Option<String>,
    #[prost(message, optional, tag = "11")]
    platform: Option<PlatformRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PlatformRecord {
    #[prost(string, tag = "1")]
    architecture: String,
    #[prost(string, tag = "2")]
    os: String,
    #[prost(string, tag = "3")]
    variant: String,
    #[prost(string, tag = "4")]
    os_version: String,
    #[prost(string, repeated, tag = "5")]
    os_features: Vec<String>,
}

fn platform_record(platform: &kevel_model::Platform) -> PlatformRecord {
    PlatformRecord {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

fn platform(record: PlatformRecord) -> kevel_model::Platform {
    kevel_model::Platform {
        architecture: record.architecture,
        os: record.os,
        variant: record.variant,
        os_version: record.os_version,
        os_features: record.os_features,
    }
}

impl Stored for image::Image {
    type Record = ImageRecord;

    fn record(&self) -> ImageRecord {
        ImageRecord {
            name: self.name.clone(),
            labels: self.labels.clone(),
            media_type: self.target.media_type.clone(),
            digest: self.target.digest.to_string(),
            size: self.target.size,
            annotations: self.target.annotations.clone(),
            created_at: nanos(self.created_at),
            updated_at: nanos(self.updated_at),
            urls: self.target.urls.clone(),
            artifact_type: self.target.artifact_type.clone(),
            platform: self.target.platform.as_ref().map(platform_record),
        }
    }

    fn object(record: ImageRecord) -> Result<Self> {
        Ok(Self {
            name: record.name,
            labels: record.labels,
            target: Descriptor {
                media_type: record.media_type,
                digest: record.digest.parse().map_err(Error::from)?,
                size: record.size,
                urls: record.urls,
                annotations: record.annotations,
                platform: record.platform.map(platform),
                artifact_type: record.artifact_type,
            },
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RuntimeRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    options: Option<AnyRecord>,
}

fn runtime_record(runtime: &container::Runtime) -> RuntimeRecord {
    RuntimeRecord { name: runtime.name.clone(), options: runtime.options.as_ref().map(any_record) }
}

fn runtime(record: Option<RuntimeRecord>) -> container::Runtime {
    let record = record.unwrap_or_default();
    container::Runtime { name: record.name, options: record.options.map(any) }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: Labels,
    #[prost(string, tag = "3")]
    image: String,
    #[prost(message, optional, tag = "4")]
    runtime: Option<RuntimeRecord>,
    #[prost(message, optional, tag = "5")]
    spec: Option<AnyRecord>,
    #[prost(string, tag = "6")]
    snapshotter: String,
    #[prost(string, tag = "7")]
    snapshot_key: String,
    #[prost(int64, tag = "8")]
    created_at: i64,
    #[prost(int64, tag = "9")]
    updated_at: i64,
    #[prost(btree_map = "string, message", tag = "10")]
    extensions: BTreeMap<String, AnyRecord>,
    #[prost(string, tag = "11")]
    sandbox: String,
}

impl Stored for container::Container {
    type Record = ContainerRecord;

    fn record(&self) -> ContainerRecord {
        ContainerRecord {
            id: self.id.clone(),
            labels: self.labels.clone(),
            image: self.image.clone(),
            runtime: Some(runtime_record(&self.runtime)),
            spec: self.spec.as_ref().map(any_record),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: self.snapshot_key.clone(),
            created_at: nanos(self.created_at),
            updated_at: nanos(self.updated_at),
            extensions: any_records(&self.extensions),
            sandbox: self.sandbox.clone(),
        }
    }

    fn object(record: ContainerRecord) -> Result<Self> {
        Ok(Self {
            id: record.id,
            labels: record.labels,
            image: record.image,
            runtime: runtime(record.runtime),
            spec: record.spec.map(any),
            snapshotter: record.snapshotter,
            snapshot_key: record.snapshot_key,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
            extensions: anys(record.extensions),
            sandbox: record.sandbox,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    runtime: Option<RuntimeRecord>,
    #[prost(message, optional, tag = "3")]
    spec: Option<AnyRecord>,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: Labels,
    #[prost(int64, tag = "5")]
    created_at: i64,
    #[prost(int64, tag = "6")]
    updated_at: i64,
    #[prost(btree_map = "string, message", tag = "7")]
    extensions: BTreeMap<String, AnyRecord>,
    #[prost(string, tag = "8")]
    sandboxer: String,
}

impl Stored for sandbox::Sandbox {
    type Record = SandboxRecord;

    fn record(&self) -> SandboxRecord {
        SandboxRecord {
            id: self.id.clone(),
            runtime: Some(runtime_record(&self.runtime)),
            spec: self.spec.as_ref().map(any_record),
            labels: self.labels.clone(),
            created_at: nanos(self.created_at),
            updated_at: nanos(self.updated_at),
            extensions: any_records(&self.extensions),
            sandboxer: self.sandboxer.clone(),
        }
    }

    fn object(record: SandboxRecord) -> Result<Self> {
        Ok(Self {
            id: record.id,
            runtime: runtime(record.runtime),
            spec: record.spec.map(any),
            labels: record.labels,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
            extensions: anys(record.extensions),
            sandboxer: record.sandboxer,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LeaseRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    created_at: i64,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: Labels,
}

impl Stored for lease::Lease {
    type Record = LeaseRecord;

    fn record(&self) -> LeaseRecord {
        LeaseRecord { id: self.id.clone(), created_at: nanos(self.created_at), labels: self.labels.clone() }
    }

    fn object(record: LeaseRecord) -> Result<Self> {
        Ok(Self { id: record.id, created_at: time(record.created_at), labels: record.labels })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResourceRecord {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    id: String,
}

impl Stored for lease::Resource {
    type Record = ResourceRecord;

    fn record(&self) -> ResourceRecord {
        ResourceRecord { kind: self.kind.clone(), id: self.id.clone() }
    }

    fn object(record: ResourceRecord) -> Result<Self> {
        Ok(Self { kind: record.kind, id: record.id })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlobRecord {
    #[prost(string, tag = "1")]
    digest: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: Labels,
    #[prost(int64, tag = "4")]
    created_at: i64,
    #[prost(int64, tag = "5")]
    updated_at: i64,
}

impl Stored for content::Info {
    type Record = BlobRecord;

    fn record(&self) -> BlobRecord {
        BlobRecord {
            digest: self.digest.to_string(),
            size: self.size,
            labels: self.labels.clone(),
            created_at: nanos(self.created_at),
            updated_at: nanos(self.updated_at),
        }
    }

    fn object(record: BlobRecord) -> Result<Self> {
        Ok(Self {
            digest: record.digest.parse().map_err(Error::from)?,
            size: record.size,
            labels: record.labels,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IngestRecord {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    backend: String,
    #[prost(string, tag = "3")]
    expected: String,
    #[prost(uint64, tag = "4")]
    total: u64,
    #[prost(int64, tag = "5")]
    started_at: i64,
    #[prost(int64, tag = "6")]
    expires_at: i64,
}

impl Stored for Ingest {
    type Record = IngestRecord;

    fn record(&self) -> IngestRecord {
        IngestRecord {
            reference: self.reference.clone(),
            backend: self.backend.clone(),
            expected: self.expected.as_ref().map(ToString::to_string).unwrap_or_default(),
            total: self.total,
            started_at: nanos(self.started_at),
            expires_at: nanos(self.expires_at),
        }
    }

    fn object(record: IngestRecord) -> Result<Self> {
        let expected = Some(record.expected).filter(|text| !text.is_empty());
        Ok(Self {
            reference: record.reference,
            backend: record.backend,
            expected: expected.map(|text| text.parse()).transpose().map_err(Error::from)?,
            total: record.total,
            started_at: time(record.started_at),
            expires_at: time(record.expires_at),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SnapshotRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    parent: String,
    /// 1 view, 2 active, 3 committed.
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(int64, tag = "4")]
    created_at: i64,
    #[prost(int64, tag = "5")]
    updated_at: i64,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: Labels,
    #[prost(string, tag = "7")]
    backend: String,
}

impl Stored for Snapshot {
    type Record = SnapshotRecord;

    fn record(&self) -> SnapshotRecord {
        SnapshotRecord {
            name: self.info.name.clone(),
            parent: self.info.parent.clone(),
            kind: match self.info.kind {
                snapshot::Kind::View => 1,
                snapshot::Kind::Active => 2,
                snapshot::Kind::Committed => 3,
            },
            created_at: nanos(self.info.created_at),
            updated_at: nanos(self.info.updated_at),
            labels: self.info.labels.clone(),
            backend: self.backend.clone(),
        }
    }

    fn object(record: SnapshotRecord) -> Result<Self> {
        let kind = match record.kind {
            1 => snapshot::Kind::View,
            2 => snapshot::Kind::Active,
            3 => snapshot::Kind::Committed,
            other => return Err(Error::data_loss(format!("snapshot {:?} has unknown kind {other}", record.name))),
        };
        let info = snapshot::Info {
            name: record.name,
            parent: record.parent,
            kind,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
            labels: record.labels,
        };
        Ok(Self { info, backend: record.backend })
    }
}
