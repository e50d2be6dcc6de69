//! The conformance suite of snapshotters: what every snapshotter promises, whoever wrote it and wherever it runs.
//!
//! Run [`run`] with a factory of empty snapshotters and something that mounts; [`run_rebase`] too where the snapshotter
//! takes parents at commit. A check fails by panicking with its name. Needs root.

#![expect(clippy::unwrap_used, reason = "a suite fails by panicking")]

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use kevel_model::{Code, Filters, Labels, Mount, Namespace, Result};

use super::{Commit, Info, Kind, Snapshotter};
use crate::Scope;

/// Mounts a list somewhere, runs the closure on that place, and unmounts.
pub type Mounter<'a> = &'a dyn Fn(&[Mount], Look<'_>);

/// What is run on mounts, with the path where they are.
pub type Look<'a> = &'a mut dyn FnMut(&Path);

/// A snapshotter under test.
struct Subject<'a> {
    snapshots: Snapshotter,
    mounter: Mounter<'a>,
}

/// Runs every check, each on a snapshotter of its own. The factory answers a snapshotter and whatever must outlive it.
pub async fn run<F: Future<Output = (Snapshotter, G)>, G>(factory: impl Fn() -> F, mounter: Mounter<'_>) {
    macro_rules! checks {
        ($($check:ident),* $(,)?) => { $({
            let (snapshots, guard) = factory().await;
            eprintln!("snapshot suite: {} on {}", stringify!($check), snapshots.target().name);
            $check(&Subject { snapshots, mounter }).await;
            drop(guard);
        })* };
    }
    checks!(
        layers_stack,
        chains_are_deep,
        removed_files_stay_removed,
        directories_are_replaced,
        hard_links_hold,
        files_are_renamed,
        attributes_change,
        views_are_read_only,
        parents_do_not_change,
        parents_outlive_children,
        usage_counts_own_files,
        names_are_unique,
        parents_must_be_committed,
        only_active_ones_commit,
        infos_tell,
        lists_are_sorted_and_filtered,
        labels_change,
        labels_are_not_inherited,
        removed_ones_are_gone,
        one_of_many_wins,
    );
}

/// Runs the check of snapshotters with the capability "rebase".
pub async fn run_rebase<F: Future<Output = (Snapshotter, G)>, G>(factory: impl Fn() -> F, mounter: Mounter<'_>) {
    let (snapshots, guard) = factory().await;
    eprintln!("snapshot suite: run_rebase on {}", snapshots.target().name);
    let subject = Subject { snapshots, mounter };
    let snapshots = &subject.snapshots;
    for (key, file) in [("top-key", "top"), ("bottom-key", "bottom")] {
        let mounts = snapshots.prepare(&scope(), key, "", Labels::new()).await.unwrap();
        subject.on(&mounts, |root| fs::write(root.join(file), file).unwrap());
    }
    let on = |parent: &str| Commit { parent: Some(parent.to_owned()), ..Commit::default() };
    assert_eq!(code(snapshots.commit(&scope(), "top", "top-key", on("missing")).await), Some(Code::NotFound));
    snapshots.commit(&scope(), "bottom", "bottom-key", Commit::default()).await.unwrap();
    snapshots.commit(&scope(), "top", "top-key", on("bottom")).await.unwrap();
    assert_eq!(snapshots.stat(&scope(), "top").await.unwrap().parent, "bottom");
    assert_eq!(code(snapshots.remove(&scope(), "bottom").await), Some(Code::FailedPrecondition));
    subject.view("top", |root| assert_eq!(names(root), ["bottom", "top"])).await;

    snapshots.prepare(&scope(), "other-key", "top", Labels::new()).await.unwrap();
    let refused = snapshots.commit(&scope(), "other", "other-key", on("bottom")).await;
    assert_eq!(code(refused), Some(Code::InvalidArgument));
    snapshots.commit(&scope(), "other", "other-key", on("top")).await.unwrap();
    drop(guard);
}

fn scope() -> Scope {
    Scope::new(Namespace::new("suite").unwrap())
}

fn code<T>(result: Result<T>) -> Option<Code> {
    result.err().map(|error| error.code())
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (format!("containerd.io/snapshot/{key}"), (*value).to_owned())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

impl Subject<'_> {
    fn on(&self, mounts: &[Mount], work: impl FnOnce(&Path)) {
        let mut work = Some(work);
        (self.mounter)(mounts, &mut |root| (work.take().unwrap())(root));
        assert!(work.is_none(), "the mounter did not run the check");
    }

    /// Commits a layer `name` on `parent` that `work` makes.
    async fn layer(&self, name: &str, parent: &str, work: impl FnOnce(&Path)) {
        let key = format!("{name}-key");
        let mounts = self.snapshots.prepare(&scope(), &key, parent, Labels::new()).await.unwrap();
        self.on(&mounts, work);
        self.snapshots.commit(&scope(), name, &key, Commit::default()).await.unwrap();
    }

    /// Looks into a view of `parent`, removed afterwards.
    async fn view(&self, parent: &str, look: impl FnOnce(&Path)) {
        let key = format!("{parent}-view");
        let mounts = self.snapshots.view(&scope(), &key, parent, Labels::new()).await.unwrap();
        self.on(&mounts, look);
        self.snapshots.remove(&scope(), &key).await.unwrap();
    }

    async fn prepare(&self, key: &str, parent: &str) -> Vec<Mount> {
        self.snapshots.prepare(&scope(), key, parent, Labels::new()).await.unwrap()
    }

    async fn commit(&self, name: &str, key: &str) {
        self.snapshots.commit(&scope(), name, key, Commit::default()).await.unwrap();
    }
}

async fn layers_stack(subject: &Subject<'_>) {
    subject.layer("one", "", |root| fs::write(root.join("a"), "1").unwrap()).await;
    subject.view("one", |root| assert_eq!(names(root), ["a"])).await;
    let mounts = subject.prepare("two-key", "one").await;
    assert_eq!(subject.snapshots.mounts(&scope(), "two-key").await.unwrap(), mounts);
    subject.on(&mounts, |root| fs::write(root.join("b"), "2").unwrap());
    subject.on(&mounts, |root| {
        assert_eq!(names(root), ["a", "b"]); // mounted anew, the changes are there
        fs::write(root.join("a"), "changed").unwrap();
    });
    subject.commit("two", "two-key").await;
    subject
        .view("two", |root| {
            assert_eq!(names(root), ["a", "b"]);
            assert_eq!(text(&root.join("a")), "changed");
        })
        .await;
}

async fn chains_are_deep(subject: &Subject<'_>) {
    let mut parent = String::new();
    for n in 0..20 {
        let name = format!("layer-{n}");
        subject
            .layer(&name, &parent, |root| {
                fs::write(root.join(n.to_string()), n.to_string()).unwrap();
                fs::write(root.join("last"), n.to_string()).unwrap();
                if n % 5 == 4 {
                    fs::remove_file(root.join((n - 3).to_string())).unwrap();
                }
            })
            .await;
        parent = name;
    }
    let check = |root: &Path| {
        let mut want: Vec<_> = (0..20).filter(|n| n % 5 != 1).map(|n| n.to_string()).collect();
        want.push("last".to_owned());
        want.sort();
        assert_eq!(names(root), want);
        assert_eq!(text(&root.join("last")), "19");
        assert_eq!(text(&root.join("0")), "0");
    };
    subject.view("layer-19", check).await;
    let mounts = subject.prepare("active", "layer-19").await;
    subject.on(&mounts, check);
}

async fn removed_files_stay_removed(subject: &Subject<'_>) {
    subject
        .layer("one", "", |root| {
            fs::create_dir(root.join("dir")).unwrap();
            for name in ["gone", "back", "dir/gone", "dir/stays"] {
                fs::write(root.join(name), "old").unwrap();
            }
        })
        .await;
    subject
        .layer("two", "one", |root| {
            for name in ["gone", "back", "dir/gone"] {
                fs::remove_file(root.join(name)).unwrap();
            }
        })
        .await;
    subject.layer("three", "two", |root| fs::write(root.join("back"), "new").unwrap()).await;
    subject
        .view("two", |root| {
            assert_eq!((names(root), names(&root.join("dir"))), (vec!["dir".into()], vec!["stays".into()]));
        })
        .await;
    subject
        .view("three", |root| {
            assert_eq!(names(root), ["back", "dir"]);
            assert_eq!(text(&root.join("back")), "new");
        })
        .await;
}

async fn directories_are_replaced(subject: &Subject<'_>) {
    subject
        .layer("one", "", |root| {
            for dir in ["again", "to-file"] {
                fs::create_dir_all(root.join(dir).join("sub")).unwrap();
                fs::write(root.join(dir).join("old"), "old").unwrap();
            }
            fs::write(root.join("to-dir"), "old").unwrap();
        })
        .await;
    subject
        .layer("two", "one", |root| {
            fs::remove_dir_all(root.join("again")).unwrap();
            fs::create_dir(root.join("again")).unwrap();
            fs::write(root.join("again/new"), "new").unwrap();
            fs::remove_dir_all(root.join("to-file")).unwrap();
            symlink("again", root.join("to-file")).unwrap();
            fs::remove_file(root.join("to-dir")).unwrap();
            fs::create_dir(root.join("to-dir")).unwrap();
        })
        .await;
    subject
        .view("two", |root| {
            assert_eq!(names(&root.join("again")), ["new"]); // nothing of the old one shines through
            assert_eq!(fs::read_link(root.join("to-file")).unwrap(), Path::new("again"));
            assert!(names(&root.join("to-dir")).is_empty());
        })
        .await;
}

async fn hard_links_hold(subject: &Subject<'_>) {
    subject
        .layer("one", "", |root| {
            fs::write(root.join("a"), "same").unwrap();
            fs::hard_link(root.join("a"), root.join("b")).unwrap();
        })
        .await;
    subject
        .layer("two", "one", |root| {
            assert_eq!(fs::metadata(root.join("a")).unwrap().ino(), fs::metadata(root.join("b")).unwrap().ino());
            fs::hard_link(root.join("b"), root.join("c")).unwrap();
            fs::remove_file(root.join("a")).unwrap();
        })
        .await;
    subject
        .view("two", |root| {
            assert_eq!(names(root), ["b", "c"]);
            assert_eq!((text(&root.join("b")), text(&root.join("c"))), ("same".into(), "same".into()));
        })
        .await;
}

async fn files_are_renamed(subject: &Subject<'_>) {
    subject
        .layer("one", "", |root| {
            fs::create_dir(root.join("dir")).unwrap();
            for name in ["a", "b", "dir/c"] {
                fs::write(root.join(name), name).unwrap();
            }
        })
        .await;
    subject
        .layer("two", "one", |root| {
            fs::rename(root.join("a"), root.join("dir/a")).unwrap();
            fs::rename(root.join("dir/c"), root.join("b")).unwrap();
        })
        .await;
    subject
        .view("two", |root| {
            assert_eq!((names(root), names(&root.join("dir"))), (vec!["b".into(), "dir".into()], vec!["a".into()]));
            assert_eq!((text(&root.join("b")), text(&root.join("dir/a"))), ("dir/c".into(), "a".into()));
        })
        .await;
}

async fn attributes_change(subject: &Subject<'_>) {
    subject
        .layer("one", "", |root| {
            fs::create_dir(root.join("dir")).unwrap();
            fs::write(root.join("file"), "x").unwrap();
            chown(root, Some(77), Some(78)).unwrap();
        })
        .await;
    subject
        .layer("two", "one", |root| {
            let metadata = fs::metadata(root).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (77, 78), "the root belongs to who had it in the parent");
            chown(root.join("file"), Some(5), Some(6)).unwrap();
            fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
            fs::set_permissions(root.join("dir"), fs::Permissions::from_mode(0o1777)).unwrap();
        })
        .await;
    subject
        .view("two", |root| {
            let file = fs::metadata(root.join("file")).unwrap();
            assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (5, 6, 0o4750));
            assert_eq!(fs::metadata(root.join("dir")).unwrap().mode() & 0o7777, 0o1777);
        })
        .await;
}

async fn views_are_read_only(subject: &Subject<'_>) {
    subject.layer("one", "", |root| fs::write(root.join("a"), "1").unwrap()).await;
    subject.layer("two", "one", |_| {}).await;
    for parent in ["", "one", "two"] {
        let key = format!("view-of-{parent}");
        let mounts = subject.snapshots.view(&scope(), &key, parent, Labels::new()).await.unwrap();
        assert!(mounts.iter().all(Mount::is_read_only), "{mounts:?}");
        subject.on(&mounts, |root| {
            let refused = fs::write(root.join("b"), "").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem, "view of {parent:?}");
        });
    }
}

async fn parents_do_not_change(subject: &Subject<'_>) {
    subject.layer("one", "", |root| fs::write(root.join("a"), "1").unwrap()).await;
    let (left, right) = (subject.prepare("left", "one").await, subject.prepare("right", "one").await);
    subject.on(&left, |root| fs::write(root.join("a"), "left").unwrap());
    subject.on(&right, |root| {
        assert_eq!(text(&root.join("a")), "1");
        fs::remove_file(root.join("a")).unwrap();
    });
    subject.on(&left, |root| assert_eq!(text(&root.join("a")), "left"));
    subject.view("one", |root| assert_eq!(text(&root.join("a")), "1")).await;
}

async fn parents_outlive_children(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    subject.layer("one", "", |_| {}).await;
    subject.layer("two", "one", |_| {}).await;
    subject.prepare("active", "two").await;
    for parent in ["one", "two"] {
        assert_eq!(code(snapshots.remove(&scope(), parent).await), Some(Code::FailedPrecondition), "{parent}");
    }
    for name in ["active", "two", "one"] {
        snapshots.remove(&scope(), name).await.unwrap();
    }
    assert!(snapshots.list(&scope(), &Filters::default()).await.unwrap().is_empty());
}

async fn usage_counts_own_files(subject: &Subject<'_>) {
    let size = 1 << 20;
    let mounts = subject.prepare("key", "").await;
    let empty = subject.snapshots.usage(&scope(), "key").await.unwrap();
    subject.on(&mounts, |root| {
        fs::write(root.join("a"), vec![1; size]).unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        fs::File::open(root.join("a")).and_then(|file| file.sync_all()).unwrap(); // blocks are counted when allocated
    });
    let active = subject.snapshots.usage(&scope(), "key").await.unwrap();
    assert_eq!(active.inodes, empty.inodes + 1);
    let grown = active.size - empty.size;
    assert!((size as u64..size as u64 * 3 / 2).contains(&grown), "{grown} bytes for {size}");
    subject.commit("name", "key").await;
    assert_eq!(subject.snapshots.usage(&scope(), "name").await.unwrap(), active);
    assert_eq!(code(subject.snapshots.usage(&scope(), "key").await), Some(Code::NotFound));
}

async fn names_are_unique(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    subject.layer("one", "", |_| {}).await;
    subject.prepare("key", "").await;
    for taken in ["one", "key"] {
        let exists = Some(Code::AlreadyExists);
        assert_eq!(code(snapshots.prepare(&scope(), taken, "", Labels::new()).await), exists, "{taken}");
        assert_eq!(code(snapshots.view(&scope(), taken, "one", Labels::new()).await), exists, "{taken}");
    }
    assert_eq!(code(snapshots.commit(&scope(), "one", "key", Commit::default()).await), Some(Code::AlreadyExists));
    assert_eq!(snapshots.stat(&scope(), "key").await.unwrap().kind, Kind::Active, "a refused commit changes nothing");
}

async fn parents_must_be_committed(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    subject.prepare("active", "").await;
    for (parent, want) in [("active", Code::InvalidArgument), ("missing", Code::NotFound)] {
        let refused = snapshots.prepare(&scope(), "key", parent, Labels::new()).await;
        assert_eq!(code(refused), Some(want), "{parent}");
        assert_eq!(code(snapshots.view(&scope(), "key", parent, Labels::new()).await), Some(want), "{parent}");
    }
    assert_eq!(code(snapshots.stat(&scope(), "key").await), Some(Code::NotFound));
}

async fn only_active_ones_commit(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    subject.layer("one", "", |_| {}).await;
    snapshots.view(&scope(), "view", "one", Labels::new()).await.unwrap();
    for (key, want) in
        [("view", Code::FailedPrecondition), ("one", Code::FailedPrecondition), ("missing", Code::NotFound)]
    {
        let refused = snapshots.commit(&scope(), "new", key, Commit::default()).await;
        assert_eq!(code(refused), Some(want), "{key}");
    }
    assert_eq!(code(snapshots.mounts(&scope(), "one").await), Some(Code::FailedPrecondition));
    assert_eq!(code(snapshots.mounts(&scope(), "missing").await), Some(Code::NotFound));
}

async fn infos_tell(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    subject.layer("one", "", |_| {}).await;
    snapshots.prepare(&scope(), "active", "one", labels(&[("a", "1")])).await.unwrap();
    snapshots.view(&scope(), "view", "one", Labels::new()).await.unwrap();
    let tell = |info: Info| (info.name, info.parent, info.kind);
    let active = snapshots.stat(&scope(), "active").await.unwrap();
    assert!(labels(&[("a", "1")]).iter().all(|(key, value)| active.labels.get(key) == Some(value)), "{active:?}");
    assert!(active.created_at <= active.updated_at);
    assert_eq!(tell(active), ("active".into(), "one".into(), Kind::Active));
    let view = snapshots.stat(&scope(), "view").await.unwrap();
    assert_eq!(tell(view), ("view".into(), "one".into(), Kind::View));
    let one = snapshots.stat(&scope(), "one").await.unwrap();
    assert_eq!(tell(one), ("one".into(), String::new(), Kind::Committed));
    assert_eq!(code(snapshots.stat(&scope(), "one-key").await), Some(Code::NotFound));
}

async fn lists_are_sorted_and_filtered(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    subject.layer("b", "", |_| {}).await;
    subject.layer("a", "b", |_| {}).await;
    snapshots.prepare(&scope(), "c", "a", labels(&[("zone", "eu")])).await.unwrap();
    for (filters, want) in [
        (vec![], vec!["a", "b", "c"]),
        (vec!["kind==committed"], vec!["a", "b"]),
        (vec!["kind==active"], vec!["c"]),
        (vec!["parent==b", "name==c"], vec!["a", "c"]),
        (vec!["labels.\"containerd.io/snapshot/zone\"==eu"], vec!["c"]),
        (vec!["name==x"], vec![]),
    ] {
        let listed = snapshots.list(&scope(), &Filters::parse(&filters).unwrap()).await.unwrap();
        let listed: Vec<_> = listed.into_iter().map(|info| info.name).collect();
        assert_eq!(listed, want, "{filters:?}");
    }
}

async fn labels_change(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    snapshots.prepare(&scope(), "key", "", labels(&[("a", "1"), ("b", "2")])).await.unwrap();
    let mut info = snapshots.stat(&scope(), "key").await.unwrap();
    let before = info.updated_at;
    info.labels = labels(&[("a", "9"), ("c", "3")]);
    let path = format!("labels.{}", labels(&[("a", "")]).into_keys().next().unwrap());
    let info = snapshots.update(&scope(), info, &[path]).await.unwrap();
    let ours = |info: &Info| -> Vec<String> {
        let ours = info.labels.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix("containerd.io/snapshot/").filter(|key| key.len() == 1)?;
            Some(format!("{key}={value}"))
        });
        ours.collect()
    };
    assert_eq!(ours(&info), ["a=9", "b=2"]);
    assert!(info.updated_at >= before);
    let mut info = snapshots.stat(&scope(), "key").await.unwrap();
    assert_eq!(ours(&info), ["a=9", "b=2"]);
    info.labels = labels(&[("c", "3")]);
    snapshots.update(&scope(), info.clone(), &[]).await.unwrap();
    assert_eq!(ours(&snapshots.stat(&scope(), "key").await.unwrap()), ["c=3"]);
    let refused = snapshots.update(&scope(), info.clone(), &["parent".to_owned()]).await;
    assert_eq!(code(refused), Some(Code::InvalidArgument));
    info.name = "missing".into();
    assert_eq!(code(snapshots.update(&scope(), info, &[]).await), Some(Code::NotFound));
}

async fn labels_are_not_inherited(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    snapshots.prepare(&scope(), "key", "", labels(&[("active", "1")])).await.unwrap();
    let commit = Commit { labels: labels(&[("committed", "2")]), ..Commit::default() };
    snapshots.commit(&scope(), "name", "key", commit).await.unwrap();
    let stored = snapshots.stat(&scope(), "name").await.unwrap().labels;
    assert!(!stored.contains_key("containerd.io/snapshot/active"), "{stored:?}");
    assert_eq!(stored.get("containerd.io/snapshot/committed").map(String::as_str), Some("2"));
}

async fn removed_ones_are_gone(subject: &Subject<'_>) {
    let snapshots = &subject.snapshots;
    let mounts = subject.prepare("key", "").await;
    subject.on(&mounts, |root| fs::write(root.join("old"), "x").unwrap());
    snapshots.remove(&scope(), "key").await.unwrap();
    for gone in [
        code(snapshots.stat(&scope(), "key").await),
        code(snapshots.mounts(&scope(), "key").await),
        code(snapshots.remove(&scope(), "key").await),
    ] {
        assert_eq!(gone, Some(Code::NotFound));
    }
    let mounts = subject.prepare("key", "").await;
    subject.on(&mounts, |root| assert!(names(root).is_empty()));
    match snapshots.cleanup(&scope()).await {
        Err(error) if error.is_unimplemented() => {}
        other => other.unwrap(),
    }
    subject.on(&mounts, |root| assert!(names(root).is_empty())); // not taken for a leftover
}

async fn one_of_many_wins(subject: &Subject<'_>) {
    let tries = (0..8).map(|_| {
        let snapshots = subject.snapshots.clone();
        tokio::spawn(async move { code(snapshots.prepare(&scope(), "key", "", Labels::new()).await) })
    });
    let results = futures::future::join_all(tries.collect::<Vec<_>>()).await;
    let results: Vec<_> = results.into_iter().map(|result| result.unwrap()).collect();
    assert_eq!(results.iter().filter(|code| code.is_none()).count(), 1, "{results:?}");
    assert!(results.iter().flatten().all(|code| *code == Code::AlreadyExists), "{results:?}");
}
