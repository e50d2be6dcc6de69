//! Group commit, isolation, schema, and survival of power loss.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use kevel_model::Code;
use proptest::prelude::*;

use super::*;
use crate::crash::Disk;

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

const ONE: Table<Value> = Table::new("one");
const TWO: Table<Value> = Table::new("two");

fn value(data: &str) -> Value {
    Value { data: data.into() }
}

fn memory(disk: &Disk) -> Database {
    Database::on("test", disk.clone(), &Schema::first("test")).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[tokio::test]
async fn stores_reads_and_reopens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let database = Database::open(&path, &Schema::first("test")).unwrap();
    assert_eq!(database.read(|snapshot| snapshot.get(ONE, "a")).unwrap(), None);
    let before = database
        .write(|batch| {
            batch.put(ONE, "a", &value("1"));
            batch.put(TWO, b"a".to_vec(), &value("2"));
            batch.get(ONE, "a")
        })
        .await
        .unwrap();
    assert_eq!(before, Some(value("1")), "a batch sees its own changes");
    let busy = Database::open(&path, &Schema::first("test")).unwrap_err();
    assert_eq!(busy.code(), Code::Unavailable, "{}", busy.chain());
    drop(database);
    let database = Database::open(&path, &Schema::first("test")).unwrap();
    assert_eq!(database.read(|snapshot| snapshot.get(TWO, "a")).unwrap(), Some(value("2")));
    let write = database.write(|batch| {
        batch.delete(ONE, "a");
        Ok(())
    });
    write.await.unwrap();
    assert_eq!(database.read(|snapshot| snapshot.get(ONE, "a")).unwrap(), None);
}

#[tokio::test]
async fn without_syncs_a_file_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let schema = Schema::first("test");
    let database = Database::open_unsynced(&path, &schema).unwrap();
    let write = database.write(|batch| {
        batch.put(ONE, "a", &value("1"));
        Ok(())
    });
    write.await.unwrap();
    // Its lock is that of any other.
    for busy in [Database::open(&path, &schema), Database::open_unsynced(&path, &schema)] {
        assert_eq!(busy.unwrap_err().code(), Code::Unavailable);
    }
    drop(database);
    let database = Database::open(&path, &schema).unwrap();
    assert_eq!(database.read(|snapshot| snapshot.get(ONE, "a")).unwrap(), Some(value("1")));
    drop(database);
    let database = Database::open_unsynced(&path, &schema).unwrap();
    assert_eq!(database.read(|snapshot| snapshot.get(ONE, "a")).unwrap(), Some(value("1")));
}

#[tokio::test]
async fn a_failure_spoils_nobody_else() {
    let database = memory(&Disk::new());
    let writes = (0..100u32).map(|n| {
        let database = database.clone();
        async move {
            database
                .write(move |batch| {
                    batch.put(ONE, n.to_be_bytes(), &value("x"));
                    match n % 3 {
                        0 => Ok(()),
                        1 => Err(Error::failed_precondition("on purpose")),
                        _ => panic!("on purpose"),
                    }
                })
                .await
                .map_err(|error| error.code())
        }
    });
    let writes: Vec<_> = writes.map(|write| tokio::spawn(write)).collect();
    for (n, write) in writes.into_iter().enumerate() {
        let want = [Ok(()), Err(Code::FailedPrecondition), Err(Code::Internal)][n % 3];
        assert_eq!(write.await.unwrap(), want, "{n}");
        let stored = database.read(|snapshot| snapshot.get(ONE, (n as u32).to_be_bytes())).unwrap();
        assert_eq!(stored.is_some(), n % 3 == 0, "{n}");
    }
}

#[tokio::test]
async fn waiting_writes_share_a_commit_and_hooks_come_before_answers() {
    let disk = Disk::new();
    let database = memory(&disk);
    let (entered, wait_entered) = std::sync::mpsc::channel();
    let (release, wait_release) = std::sync::mpsc::channel::<()>();
    let first = tokio::spawn({
        let database = database.clone();
        async move {
            database
                .write(move |batch| {
                    entered.send(()).unwrap();
                    wait_release.recv().unwrap();
                    batch.put(ONE, "first", &value(""));
                    Ok(())
                })
                .await
        }
    });
    tokio::task::spawn_blocking(move || wait_entered.recv().unwrap()).await.unwrap();
    let hooks = Arc::new(AtomicUsize::new(0));
    let mut waiting = Vec::new();
    for n in 0..50u32 {
        let (database, hooks) = (database.clone(), Arc::clone(&hooks));
        waiting.push(tokio::spawn(async move {
            let counted = Arc::clone(&hooks);
            let write = database.write(move |batch| {
                batch.put(ONE, n.to_be_bytes(), &value("x"));
                batch.after(move |done| {
                    assert!(done);
                    counted.fetch_add(1, Ordering::SeqCst);
                });
                Ok(())
            });
            write.await.unwrap();
            hooks.load(Ordering::SeqCst)
        }));
    }
    while database.0.jobs.as_ref().unwrap().capacity() > QUEUE - 50 {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    first.await.unwrap().unwrap();
    for write in waiting {
        assert_eq!(write.await.unwrap(), 50, "all hooks of the group ran before the first answer");
    }
}

#[tokio::test]
async fn a_failed_commit_fails_all_of_it() {
    let disk = Disk::new();
    let database = memory(&disk);
    let write = database.write(|batch| {
        batch.put(ONE, "a", &value("1"));
        Ok(())
    });
    write.await.unwrap();
    disk.fail_after(0);
    let outcome = Arc::new(Mutex::new(None));
    let told = Arc::clone(&outcome);
    let write = database.write(move |batch| {
        batch.put(ONE, "a", &value("2"));
        batch.after(move |done| *told.lock().unwrap() = Some(done));
        Ok(())
    });
    assert_eq!(write.await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(*outcome.lock().unwrap(), Some(false));
    let again = memory(&disk.after_power_loss(|_| true));
    assert_eq!(again.read(|snapshot| snapshot.get(ONE, "a")).unwrap(), Some(value("1")));
}

#[tokio::test]
async fn prefixes_see_stored_and_new() {
    let database = memory(&Disk::new());
    database
        .write(|batch| {
            for key in ["a/1", "a/2", "b/1"] {
                batch.put(ONE, key, &value(key));
            }
            Ok(())
        })
        .await
        .unwrap();
    let found = database
        .write(|batch| {
            batch.delete(ONE, "a/1");
            batch.put(ONE, "a/3", &value("new"));
            batch.prefix(ONE, "a/")
        })
        .await
        .unwrap();
    let keys: Vec<_> = found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect();
    assert_eq!(keys, ["a/2", "a/3"]);
}

#[tokio::test]
async fn schemas_migrate_forward_only() {
    let disk = Disk::new();
    drop(memory(&disk));
    let second = Schema {
        name: "test",
        version: 2,
        migrate: |from, batch| {
            assert_eq!(from, 1);
            batch.put(ONE, "migrated", &value(""));
            Ok(())
        },
    };
    let database = Database::on("test", disk.clone(), &second).unwrap();
    assert!(database.read(|snapshot| snapshot.get(ONE, "migrated")).unwrap().is_some());
    drop(database);
    for refused in [Schema::first("test"), Schema::first("other")] {
        let error = Database::on("test", disk.clone(), &refused).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    }
}

#[test]
fn a_damaged_file_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    std::fs::write(&path, vec![7u8; 1 << 16]).unwrap();
    let error = Database::open(&path, &Schema::first("test")).unwrap_err();
    assert!(error.to_string().starts_with("opening database"), "{}", error.chain());
}

/// Numbers as good as random from a seed, so that a failing case can be repeated.
fn survivor(seed: u64) -> impl FnMut(usize) -> bool {
    let mut state = seed | 1;
    move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 4 == 0
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Power fails at any write or sync, and any subset of the unsynced writes reaches the disk: what was acknowledged
    /// is there, what was not is there as a whole or not at all, and the file opens.
    #[test]
    fn acknowledged_writes_survive_power_loss(
        writes in prop::collection::vec((0u8..12, prop::option::weighted(0.8, 0u16..4000)), 1..24),
        fail_after in 0u64..200,
        seed: u64,
    ) {
        let disk = Disk::new();
        let database = memory(&disk);
        disk.fail_after(fail_after);
        let mut model = BTreeMap::new();
        let mut unsure = None;
        runtime().block_on(async {
            for (key, size) in &writes {
                let (key, size) = (*key, *size);
                let mut next = model.clone();
                match size {
                    Some(size) => next.insert(key, vec![key; size.into()]),
                    None => next.remove(&key),
                };
                let write = database.write(move |batch| {
                    // The same change in both tables: they must never differ.
                    for table in [ONE, TWO] {
                        match size {
                            Some(size) => batch.put(table, [key], &Value { data: vec![key; size.into()] }),
                            None => batch.delete(table, [key]),
                        }
                    }
                    Ok(())
                });
                if write.await.is_err() {
                    unsure = Some(next);
                    break;
                }
                model = next;
            }
        });
        let disk = disk.after_power_loss(survivor(seed));
        let reopened = memory(&disk);
        let all = |table| {
            let mut all = BTreeMap::new();
            reopened.read(|snapshot| snapshot.each(table, |key, value: Value| { all.insert(key[0], value.data); Ok(()) })).unwrap();
            all
        };
        let found = all(ONE);
        prop_assert_eq!(&found, &all(TWO));
        prop_assert!(found == model || Some(&found) == unsure.as_ref());
    }
}
