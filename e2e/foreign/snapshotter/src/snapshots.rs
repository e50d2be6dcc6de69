//! Snapshots as directories: what was changed in `fs`, put over the layers below by an overlay mount.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use containerd_snapshots::{
    Info, Kind, Snapshotter, Usage,
    api::types::Mount,
    tonic::{Code, Status, async_trait},
};
use futures::stream;
use tokio::sync::Mutex;

/// The snapshotter.
pub struct Directories {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    by_name: BTreeMap<String, Snapshot>,
}

struct Snapshot {
    kind: Kind,
    parent: String,
    labels: HashMap<String, String>,
    created_at: SystemTime,
    updated_at: SystemTime,
    folder: PathBuf,
}

impl Directories {
    /// A snapshotter with its snapshots below a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default() }
    }

    async fn make(
        &self,
        kind: Kind,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Status> {
        let mut state = self.state.lock().await;
        if state.by_name.contains_key(&key) {
            return Err(Status::already_exists(format!("snapshot {key}")));
        }
        if !parent.is_empty() && state.find(&parent)?.kind != Kind::Committed {
            return Err(Status::invalid_argument(format!("parent {parent} is not committed")));
        }
        state.next += 1;
        let folder = self.folder.join(state.next.to_string());
        let made = fs::create_dir_all(folder.join("fs")).and_then(|()| fs::create_dir(folder.join("work")));
        made.map_err(failed)?;
        let now = SystemTime::now();
        let snapshot = Snapshot { kind, parent, labels, created_at: now, updated_at: now, folder };
        state.by_name.insert(key.clone(), snapshot);
        state.mounts(&key)
    }
}

impl State {
    fn find(&self, name: &str) -> Result<&Snapshot, Status> {
        self.by_name.get(name).ok_or_else(|| Status::not_found(format!("snapshot {name}")))
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let snapshot = self.find(key)?;
        let mut lower = Vec::new();
        let mut below = snapshot.parent.as_str();
        while !below.is_empty() {
            let found = self.find(below)?;
            lower.push(found.folder.join("fs").display().to_string());
            below = &found.parent;
        }
        let own = |name: &str| snapshot.folder.join(name).display().to_string();
        let bind = |source: String, mode: &str| mount("bind", source, vec![mode.to_owned(), "rbind".to_owned()]);
        let mount = match (&snapshot.kind, lower.len()) {
            (Kind::View, 0) => bind(own("fs"), "ro"),
            (Kind::View, 1) => bind(lower.remove(0), "ro"),
            (Kind::View, _) => mount("overlay", "overlay".into(), vec![format!("lowerdir={}", lower.join(":"))]),
            (_, 0) => bind(own("fs"), "rw"),
            _ => {
                let upper = [format!("upperdir={}", own("fs")), format!("workdir={}", own("work"))];
                let options = upper.into_iter().chain([format!("lowerdir={}", lower.join(":"))]);
                mount("overlay", "overlay".into(), options.collect())
            }
        };
        Ok(vec![mount])
    }
}

fn mount(kind: &str, source: String, options: Vec<String>) -> Mount {
    Mount { r#type: kind.to_owned(), source, target: String::new(), options }
}

fn info(name: &str, snapshot: &Snapshot) -> Info {
    Info {
        kind: match snapshot.kind {
            Kind::View => Kind::View,
            Kind::Active => Kind::Active,
            Kind::Committed => Kind::Committed,
            Kind::Unknown => Kind::Unknown,
        },
        name: name.to_owned(),
        parent: snapshot.parent.clone(),
        labels: snapshot.labels.clone(),
        created_at: snapshot.created_at,
        updated_at: snapshot.updated_at,
    }
}

fn failed(error: io::Error) -> Status {
    Status::new(Code::Internal, error.to_string())
}

/// Bytes and inodes below a directory.
fn measure(folder: &Path) -> io::Result<Usage> {
    let mut usage = Usage { inodes: 1, size: 0 };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            usage += measure(&entry.path())?;
        } else {
            usage += Usage { inodes: 1, size: i64::try_from(meta.blocks() * 512).unwrap_or(i64::MAX) };
        }
    }
    Ok(usage)
}

#[async_trait]
impl Snapshotter for Directories {
    type Error = Status;
    type InfoStream = stream::Iter<std::vec::IntoIter<Result<Info, Status>>>;

    async fn stat(&self, key: String) -> Result<Info, Status> {
        Ok(info(&key, self.state.lock().await.find(&key)?))
    }

    async fn update(&self, wanted: Info, fieldpaths: Option<Vec<String>>) -> Result<Info, Status> {
        let mut state = self.state.lock().await;
        state.find(&wanted.name)?;
        let Some(snapshot) = state.by_name.get_mut(&wanted.name) else {
            return Err(Status::not_found(wanted.name));
        };
        for path in fieldpaths.unwrap_or_else(|| vec!["labels".to_owned()]) {
            match path.strip_prefix("labels.") {
                Some(label) => match wanted.labels.get(label) {
                    Some(value) => drop(snapshot.labels.insert(label.to_owned(), value.clone())),
                    None => drop(snapshot.labels.remove(label)),
                },
                None if path == "labels" => snapshot.labels.clone_from(&wanted.labels),
                None => return Err(Status::invalid_argument(format!("field {path} can not be changed"))),
            }
        }
        snapshot.updated_at = SystemTime::now();
        Ok(info(&wanted.name, snapshot))
    }

    async fn usage(&self, key: String) -> Result<Usage, Status> {
        let folder = self.state.lock().await.find(&key)?.folder.join("fs");
        measure(&folder).map_err(failed)
    }

    async fn mounts(&self, key: String) -> Result<Vec<Mount>, Status> {
        self.state.lock().await.mounts(&key)
    }

    async fn prepare(
        &self,
        key: String,
        parent: String,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>, Status> {
        self.make(Kind::Active, key, parent, labels).await
    }

    async fn view(&self, key: String, parent: String, labels: HashMap<String, String>) -> Result<Vec<Mount>, Status> {
        self.make(Kind::View, key, parent, labels).await
    }

    async fn commit(&self, name: String, key: String, labels: HashMap<String, String>) -> Result<(), Status> {
        let mut state = self.state.lock().await;
        if state.by_name.contains_key(&name) {
            return Err(Status::already_exists(format!("snapshot {name}")));
        }
        if state.find(&key)?.kind != Kind::Active {
            return Err(Status::failed_precondition(format!("snapshot {key} is not active")));
        }
        if let Some(mut snapshot) = state.by_name.remove(&key) {
            (snapshot.kind, snapshot.updated_at) = (Kind::Committed, SystemTime::now());
            snapshot.labels.extend(labels);
            state.by_name.insert(name, snapshot);
        }
        Ok(())
    }

    async fn remove(&self, key: String) -> Result<(), Status> {
        let mut state = self.state.lock().await;
        let folder = state.find(&key)?.folder.clone();
        if state.by_name.values().any(|other| other.parent == key) {
            return Err(Status::failed_precondition(format!("snapshot {key} has children")));
        }
        state.by_name.remove(&key);
        fs::remove_dir_all(folder).map_err(failed)
    }

    /// Filters are not understood, and said to be so.
    async fn list(&self, _: String, filters: Vec<String>) -> Result<Self::InfoStream, Status> {
        if !filters.is_empty() {
            return Err(Status::unimplemented("filters"));
        }
        let state = self.state.lock().await;
        let all: Vec<_> = state.by_name.iter().map(|(name, snapshot)| Ok(info(name, snapshot))).collect();
        Ok(stream::iter(all))
    }
}
