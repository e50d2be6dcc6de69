//! Graphs in, survivors out: a table, and a comparison with a slower and simpler way to say the same.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kevel_contract::{
    container::Container, content, image::Image, lease, mounts::Activation, sandbox::Sandbox, snapshot,
};
use kevel_model::{Descriptor, Digest, Labels, Namespace};
use proptest::prelude::*;

use super::mark::garbage;
use crate::{
    mounts::record::Activated,
    record::{Ingest, Snapshot},
    shelf::key,
    state::State,
};

const SNAPSHOTTER: &str = "s";

/// A graph in the making. Blobs, snapshots, images and containers are named by letters.
#[derive(Default)]
struct Graph(State);

fn space(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

const PAST: &str = "2020-01-01T00:00:00Z";
const FUTURE: &str = "2990-01-01T00:00:00Z";

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

/// Labels from `key=value`, with `content` values turned into digests.
fn labels(texts: &[&str]) -> Labels {
    let pair = |text: &&str| {
        let (key, value) = text.split_once('=').unwrap();
        let value = if key.contains("content") { digest(value).to_string() } else { value.to_owned() };
        (format!("containerd.io/gc.{key}"), value)
    };
    texts.iter().map(pair).collect()
}

impl Graph {
    fn namespace(mut self, name: &str) -> Self {
        self.0.namespaces.insert(name, Arc::default());
        self
    }

    fn blob(mut self, name: &str, texts: &[&str]) -> Self {
        let (digest, labels) = (digest(name), labels(texts));
        let key = key(&space("n"), &[digest.as_str()]);
        let info = content::Info { digest, size: 1, created_at: now(), updated_at: now(), labels };
        self.0.blobs.insert(&key, Arc::new(info));
        self
    }

    fn snapshot(mut self, name: &str, parent: &str, texts: &[&str]) -> Self {
        let info = snapshot::Info {
            name: name.into(),
            parent: parent.into(),
            kind: snapshot::Kind::Committed,
            created_at: now(),
            updated_at: now(),
            labels: labels(texts),
        };
        let key = key(&space("n"), &[SNAPSHOTTER, name]);
        self.0.snapshots.insert(&key, Arc::new(Snapshot { info, backend: name.into() }));
        self
    }

    fn image(mut self, name: &str, target: &str, texts: &[&str]) -> Self {
        let image = Image::new(name, Descriptor::new("m", digest(target), 1), labels(texts));
        self.0.images.insert(&key(&space("n"), &[name]), Arc::new(image));
        self
    }

    fn container(mut self, id: &str, snapshot: &str, texts: &[&str]) -> Self {
        let (snapshotter, snapshot_key) = (SNAPSHOTTER.into(), snapshot.into());
        let container = Container { snapshotter, snapshot_key, labels: labels(texts), ..Container::new(id) };
        self.0.containers.insert(&key(&space("n"), &[id]), Arc::new(container));
        self
    }

    fn sandbox(mut self, id: &str, texts: &[&str]) -> Self {
        let sandbox = Sandbox { labels: labels(texts), ..Sandbox::new(id) };
        self.0.sandboxes.insert(&key(&space("n"), &[id]), Arc::new(sandbox));
        self
    }

    fn mounts(mut self, name: &str, done: bool, texts: &[&str]) -> Self {
        let activation = Activation { name: name.into(), labels: labels(texts), ..Activation::default() };
        self.0.mounts.insert(&key(&space("n"), &[name]), Arc::new(Activated { number: 1, done, activation }));
        self
    }

    fn ingest(mut self, reference: &str, expected: Option<&str>, live: bool) -> Self {
        let hour = Duration::from_secs(3600);
        let ingest = Ingest {
            reference: reference.into(),
            backend: reference.into(),
            expected: expected.map(digest),
            total: 0,
            started_at: now(),
            expires_at: if live { now() + hour } else { now() - hour },
        };
        self.0.ingests.insert(&key(&space("n"), &[reference]), Arc::new(ingest));
        self
    }

    fn lease(self, id: &str, texts: &[&str], resources: &[&str]) -> Self {
        self.lease_in("n", id, texts, resources)
    }

    fn lease_in(mut self, namespace: &str, id: &str, texts: &[&str], resources: &[&str]) -> Self {
        let lease = lease::Lease { id: id.into(), created_at: now(), labels: labels(texts) };
        self.0.leases.insert(&key(&space(namespace), &[id]), Arc::new(lease));
        for text in resources {
            let (kind, name) = text.split_once('=').unwrap();
            let kind = if kind == "snapshot" { format!("snapshots/{SNAPSHOTTER}") } else { kind.to_owned() };
            let name = if kind == "content" { digest(name).to_string() } else { name.to_owned() };
            let key = key(&space(namespace), &[id, &kind, &name]);
            self.0.resources.insert(&key, Arc::new(lease::Resource { kind, id: name }));
        }
        self
    }

    /// What survives, as `b:`, `s:`, `i:` (images), `g:` (ingests), `m:` (mounts), `l:` (leases) and the name.
    fn survivors(&self) -> BTreeSet<String> {
        let garbage = garbage(&self.0, now());
        let mut left = BTreeSet::new();
        for name in ('a'..='h').map(String::from) {
            let blob = key(&space("n"), &[digest(&name).as_str()]);
            if self.0.blobs.get(&blob).is_some() && !garbage.blobs.contains(&blob) {
                left.insert(format!("b:{name}"));
            }
        }
        let mut rest = |prefix: &str, keys: Vec<&str>, gone: &[String]| {
            let kept = keys.into_iter().filter(|key| !gone.iter().any(|gone| gone == key));
            left.extend(kept.map(|key| format!("{prefix}:{}", key.rsplit('\0').next().unwrap())));
        };
        rest("s", self.0.snapshots.all().map(|(key, _)| key).collect(), &garbage.snapshots);
        rest("i", self.0.images.all().map(|(key, _)| key).collect(), &garbage.images);
        rest("g", self.0.ingests.all().map(|(key, _)| key).collect(), &garbage.ingests);
        rest("m", self.0.mounts.all().map(|(key, _)| key).collect(), &garbage.mounts);
        rest("l", self.0.leases.all().map(|(key, _)| key).collect(), &garbage.leases);
        left
    }
}

#[test]
fn graphs_in_survivors_out() {
    let check = |what: &str, build: fn(Graph) -> Graph, want: &[&str]| {
        let graph = build(Graph::default().namespace("n"));
        let want: BTreeSet<_> = want.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(graph.survivors(), want, "{what}");
    };
    check("nothing refers to it", |g| g.blob("a", &[]).snapshot("x", "", &[]), &[]);
    check("a root stays", |g| g.blob("a", &["root=1"]).snapshot("x", "", &["root=1"]), &["b:a", "s:x"]);
    check("an image keeps its target", |g| g.image("i", "a", &[]).blob("a", &[]).blob("b", &[]), &["i:i", "b:a"]);
    check(
        "references are followed",
        |g| {
            g.image("i", "a", &[])
                .blob("a", &["ref.content.config=b", "ref.content.l.0=c"])
                .blob("b", &["ref.snapshot.s=x"])
                .blob("c", &[])
                .snapshot("x", "y", &[])
                .snapshot("y", "", &[])
                .snapshot("z", "y", &[])
        },
        &["i:i", "b:a", "b:b", "b:c", "s:x", "s:y"],
    );
    check("a loop without a root goes", |g| g.blob("a", &["ref.content=b"]).blob("b", &["ref.content=a"]), &[]);
    check("a container keeps its snapshot", |g| g.container("c", "x", &[]).snapshot("x", "", &[]), &["s:x"]);
    check("a container's labels refer", |g| g.container("c", "", &["ref.content=a"]).blob("a", &[]), &["b:a"]);
    check("a sandbox's labels refer", |g| g.sandbox("p", &["ref.snapshot.s/1=x"]).snapshot("x", "", &[]), &["s:x"]);
    check(
        "a lease keeps",
        |g| g.lease("l", &[], &["content=a", "snapshot=x"]).blob("a", &[]).snapshot("x", "", &[]),
        &["l:l", "b:a", "s:x"],
    );
    check("mounts that nothing keeps go", |g| g.mounts("m", true, &[]), &[]);
    check("mounts in the making stay", |g| g.mounts("m", false, &[]), &["m:m"]);
    check("a lease keeps mounts", |g| g.lease("l", &[], &["mounts=m"]).mounts("m", true, &[]), &["l:l", "m:m"]);
    check(
        "mounts live as long as what they are of",
        |g| {
            g.container("c", "x", &[])
                .snapshot("x", "", &[])
                .mounts("m", true, &["bref.container=c"])
                .mounts("n", true, &["bref.snapshot.s/1=x"])
                .mounts("o", true, &["bref.container=gone"])
        },
        &["s:x", "m:m", "m:n"],
    );
    check(
        "mounts keep what they refer to, and are kept by who refers to them",
        |g| {
            g.mounts("m", true, &["root=1", "ref.snapshot.s=x"]).snapshot("x", "", &["ref.mount=n"]).mounts(
                "n",
                true,
                &[],
            )
        },
        &["s:x", "m:m", "m:n"],
    );
    check(
        "a lease that ran out does not",
        |g| g.lease("l", &[&format!("expire={PAST}")], &["content=a"]).blob("a", &[]),
        &[],
    );
    check(
        "a lease that did not does",
        |g| g.lease("l", &[&format!("expire={FUTURE}")], &["content=a"]).blob("a", &[]),
        &["l:l", "b:a"],
    );
    check(
        "a flat lease keeps no more than it names, and parents",
        |g| {
            g.lease("l", &["flat=1"], &["content=a", "snapshot=x"])
                .blob("a", &["ref.content=b"])
                .blob("b", &[])
                .snapshot("x", "y", &["ref.content=b"])
                .snapshot("y", "", &[])
        },
        &["l:l", "b:a", "s:x", "s:y"],
    );
    check(
        "what a flat lease keeps may be kept whole by another",
        |g| {
            g.lease("l", &["flat=1"], &["content=a"])
                .lease("m", &[], &["content=a"])
                .blob("a", &["ref.content=b"])
                .blob("b", &[])
        },
        &["l:l", "l:m", "b:a", "b:b"],
    );
    check(
        "a lease of another namespace does not",
        |g| g.lease_in("o", "l", &[], &["content=a"]).blob("a", &[]),
        &["l:l"],
    );
    check(
        "a lease keeps an ingest, time another",
        |g| g.lease("l", &[], &["ingests=x"]).ingest("x", None, false).ingest("y", None, true).ingest("z", None, false),
        &["l:l", "g:x", "g:y"],
    );
    check("an ingest keeps what it expects", |g| g.ingest("x", Some("a"), true).blob("a", &[]), &["g:x", "b:a"]);
    check("an image runs out", |g| g.image("i", "a", &[&format!("expire={PAST}")]).blob("a", &[]), &[]);
    check(
        "a leased image does not",
        |g| g.image("i", "a", &[&format!("expire={PAST}")]).blob("a", &[]).lease("l", &[], &["images=i"]),
        &["l:l", "i:i", "b:a"],
    );
    check(
        "a reference back lives as long as what it names",
        |g| g.image("i", "a", &[]).blob("a", &[]).blob("b", &["bref.image=i"]).blob("c", &["bref.image=j"]),
        &["i:i", "b:a", "b:b"],
    );
    check(
        "references back chain",
        |g| {
            g.container("c", "", &[])
                .snapshot("x", "", &["bref.container=c"])
                .blob("a", &["bref.snapshot.s=x"])
                .blob("b", &["bref.content=a"])
        },
        &["s:x", "b:a", "b:b"],
    );
    check("a reference back to nothing keeps nothing", |g| g.blob("a", &["bref.container=c"]), &[]);
    check(
        "what is referred to need not be there",
        |g| g.image("i", "a", &["ref.snapshot.s=x", "ref.image=j"]),
        &["i:i"],
    );
}

/// A graph of blobs a-h and snapshots a-h: edges, roots and back references as pairs of letters.
#[derive(Debug)]
struct Plan {
    edges: Vec<(u8, u8)>,
    backs: Vec<(u8, u8)>,
    roots: Vec<u8>,
    leased: Vec<u8>,
    flat: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let pairs = || prop::collection::vec((0u8..16, 0u8..16), 0..24);
    let nodes = || prop::collection::vec(0u8..16, 0..4);
    let fields = (pairs(), prop::collection::vec((0u8..16, 0u8..16), 0..6), nodes(), nodes(), any::<bool>());
    fields.prop_map(|(edges, backs, roots, leased, flat)| Plan { edges, backs, roots, leased, flat })
}

/// Letters below 8 are blobs, others snapshots.
fn letter(node: u8) -> String {
    char::from(b'a' + node % 8).to_string()
}

fn reference(prefix: &str, node: u8, number: usize) -> String {
    match node < 8 {
        true => format!("{prefix}.content.{number}={}", letter(node)),
        false => format!("{prefix}.snapshot.{SNAPSHOTTER}/{number}={}", letter(node)),
    }
}

fn built(plan: &Plan) -> Graph {
    let mut graph = Graph::default().namespace("n");
    for node in 0..16 {
        let mut texts = Vec::new();
        let edges = plan.edges.iter().enumerate().filter(|(_, (from, _))| *from == node);
        texts.extend(edges.map(|(number, (_, to))| reference("ref", *to, number)));
        let backs = plan.backs.iter().enumerate().filter(|(_, (from, _))| *from == node);
        texts.extend(backs.map(|(number, (_, to))| reference("bref", *to, number)));
        if plan.roots.contains(&node) {
            texts.push("root=1".into());
        }
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        // Snapshots stack on the letter before them, in pairs.
        let parent = if node % 2 == 1 { letter(node - 1) } else { String::new() };
        graph = match node < 8 {
            true => graph.blob(&letter(node), &texts),
            false => graph.snapshot(&letter(node), &parent, &texts),
        };
    }
    let resource = |node: &u8| match *node < 8 {
        true => format!("content={}", letter(*node)),
        false => format!("snapshot={}", letter(*node)),
    };
    let resources: Vec<_> = plan.leased.iter().map(resource).collect();
    let resources: Vec<_> = resources.iter().map(String::as_str).collect();
    graph.lease("l", if plan.flat { &["flat=1"] } else { &[] }, &resources)
}

/// The same by repeating until nothing changes.
fn naive(plan: &Plan) -> BTreeSet<String> {
    let mut whole: BTreeSet<u8> = plan.roots.iter().copied().collect();
    let mut flat = BTreeSet::new();
    match plan.flat {
        true => flat.extend(plan.leased.iter().copied()),
        false => whole.extend(plan.leased.iter().copied()),
    }
    let parent = |node: &u8| (*node >= 8 && node % 2 == 1).then(|| node - 1);
    loop {
        let before = (whole.len(), flat.len());
        for (from, to) in &plan.edges {
            if whole.contains(from) {
                whole.insert(*to);
            }
        }
        for (kept, keeper) in &plan.backs {
            if whole.contains(keeper) {
                whole.insert(*kept);
            }
        }
        whole.extend(whole.clone().iter().filter_map(parent));
        flat.extend(flat.clone().iter().filter_map(parent));
        if before == (whole.len(), flat.len()) {
            break;
        }
    }
    let name = |node: &u8| format!("{}:{}", if *node < 8 { "b" } else { "s" }, letter(*node));
    whole.union(&flat).map(name).chain(["l:l".to_owned()]).collect()
}

proptest! {
    #[test]
    fn agrees_with_a_naive_model(plan in plan()) {
        prop_assert_eq!(built(&plan).survivors(), naive(&plan));
    }
}
