//! The graph's rules: order, statuses, requirements, configuration.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::{
    All, GraphError, InitContext, InitError, Kind, Maybe, One, Plugin, PluginStatus, Registration, Registry, Reload,
    Reloaded, Settings, deps,
};

enum Stores {}
impl Kind for Stores {
    const TYPE: &'static str = "io.example.store.v1";
    type Handle = Arc<str>;
}

enum Servers {}
impl Kind for Servers {
    const TYPE: &'static str = "io.example.server.v1";
    type Handle = Vec<String>;
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoreConfig {
    name: String,
    skip: bool,
    fail: bool,
}

struct Disk;
impl Plugin for Disk {
    type Kind = Stores;
    const ID: &'static str = "disk";
    type Config = StoreConfig;
    type Deps = ();

    async fn init(cx: InitContext, config: StoreConfig, (): ()) -> Result<Arc<str>, InitError> {
        cx.export("root", cx.root.display().to_string());
        if config.skip {
            return Err(InitError::Skip("no disk".to_owned()));
        }
        if config.fail {
            return Err(InitError::failed("disk on fire"));
        }
        Ok(config.name.into())
    }
}

deps! { struct OneStore { store: One<Stores> } }
struct Strict;
impl Plugin for Strict {
    type Kind = Servers;
    const ID: &'static str = "strict";
    type Config = ();
    type Deps = OneStore;

    async fn init(_: InitContext, (): (), deps: OneStore) -> Result<Vec<String>, InitError> {
        Ok(vec![deps.store.to_string()])
    }
}

deps! { struct AnyStores { stores: All<Stores>, one: Maybe<Stores> } }
struct Lenient;
impl Plugin for Lenient {
    type Kind = Servers;
    const ID: &'static str = "lenient";
    type Config = ();
    type Deps = AnyStores;

    async fn init(_: InitContext, (): (), deps: AnyStores) -> Result<Vec<String>, InitError> {
        assert_eq!(deps.one.0.is_some(), !deps.stores.0.is_empty());
        Ok(deps.stores.0.into_keys().collect())
    }
}

fn settings(text: &str) -> Settings {
    let table: toml::Table = text.parse().unwrap();
    let plugins = table.into_iter().map(|(uri, table)| (uri, table.as_table().unwrap().clone())).collect();
    Settings { root: "/root".into(), state: "/state".into(), plugins, ..Settings::default() }
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add::<Strict>().add::<Lenient>().add::<Disk>();
    registry
}

async fn statuses(config: &str) -> Vec<(String, PluginStatus)> {
    let graph = registry().start(settings(config)).await.unwrap();
    graph.reports().iter().map(|report| (report.id.clone(), report.status.clone())).collect()
}

#[tokio::test]
async fn dependencies_start_first_and_are_handed_over() {
    let graph = registry().start(settings("[\"io.example.store.v1.disk\"]\nname = \"a\"")).await.unwrap();
    let order: Vec<_> = graph.reports().iter().map(|report| report.id.clone()).collect();
    assert_eq!(order, ["disk", "strict", "lenient"]);
    assert_eq!(graph.all::<Servers>()["strict"], ["a"]);
    assert_eq!(graph.all::<Servers>()["lenient"], ["disk"]);
    assert_eq!(graph.reports()[0].declared.exports["root"], "/root/io.example.store.v1.disk");
    assert_eq!(graph.reports()[1].requires, ["io.example.store.v1"]);
}

#[tokio::test]
async fn one_that_skips_or_fails_stops_only_who_needs_it() {
    let skipped = statuses("[\"io.example.store.v1.disk\"]\nskip = true").await;
    assert_eq!(skipped[0].1, PluginStatus::Skip("skip plugin: no disk".to_owned()));
    assert!(matches!(&skipped[1].1, PluginStatus::Skip(why) if why.contains("io.example.store.v1.disk")));
    assert_eq!(skipped[2].1, PluginStatus::Ok);
    let failed = statuses("[\"io.example.store.v1.disk\"]\nfail = true").await;
    assert_eq!(failed[0].1, PluginStatus::Error("disk on fire".to_owned()));
    assert_eq!(failed[1].1, PluginStatus::Error("no plugin of type io.example.store.v1 started".to_owned()));
    assert_eq!(failed[2].1, PluginStatus::Ok);
}

#[tokio::test]
async fn disabled_and_required_plugins() {
    let uri = || vec!["io.example.store.v1.disk".to_owned()];
    let disabled = Settings { disabled: uri(), ..Settings::default() };
    let graph = registry().start(disabled.clone()).await.unwrap();
    assert_eq!(graph.reports().len(), 2);
    let both = Settings { required: uri(), ..disabled };
    let why = "there is no such plugin".to_owned();
    let refused = registry().start(both).await.err();
    assert_eq!(refused, Some(GraphError::Required { uri: "io.example.store.v1.disk".to_owned(), why }));
    let failing = Settings { required: uri(), ..settings("[\"io.example.store.v1.disk\"]\nfail = true") };
    assert!(
        matches!(registry().start(failing).await.err(), Some(GraphError::Required { why, .. }) if why == "disk on fire")
    );
    let word = Settings { disabled: vec!["cri".to_owned()], ..Settings::default() };
    assert!(matches!(registry().start(word).await.err(), Some(GraphError::NotAUri { key: "disabled_plugins", .. })));
}

#[tokio::test]
async fn a_wrong_value_refuses_to_start_and_an_unknown_key_does_not() {
    let wrong = registry().start(settings("[\"io.example.store.v1.disk\"]\nname = 3")).await.err();
    assert!(matches!(&wrong, Some(GraphError::Config { message, .. }) if message.contains("name")), "{wrong:?}");
    let graph = registry().start(settings("[\"io.example.store.v1.disk\"]\nnmae = \"a\"")).await.unwrap();
    assert_eq!(graph.reports()[0].unknown_keys, ["nmae"]);
    assert!(graph.reports()[1].unknown_keys.is_empty());
    let graph = registry().start(settings("[\"io.example.server.v1.strict\"]\nname = \"a\"")).await.unwrap();
    assert_eq!(graph.reports()[1].unknown_keys, ["name"]);
}

#[tokio::test]
async fn what_was_checked_is_what_starts() {
    let given = settings("[\"io.example.store.v1.disk\"]\nname = \"a\"\n[\"io.example.store.v1.tape\"]\nname = \"b\"");
    let checked = registry().check(given).unwrap();
    assert_eq!(checked.strangers(), ["io.example.store.v1.tape"]);
    assert_eq!(checked.start().await.unwrap().all::<Servers>()["strict"], ["a"]);
    // A plugin that must not start is read all the same: the file that holds it is wrong.
    let wrong = settings("[\"io.example.store.v1.disk\"]\nname = 3");
    let wrong = Settings { disabled: vec!["io.example.store.v1.disk".to_owned()], ..wrong };
    assert!(matches!(registry().check(wrong).err(), Some(GraphError::Config { .. })));
}

/// Takes on another name, says that `skip` needs a new start, refuses to fail.
struct Careful;
static NAME: Mutex<String> = Mutex::new(String::new());
impl Plugin for Careful {
    type Kind = Stores;
    const ID: &'static str = "careful";
    type Config = StoreConfig;
    type Deps = ();

    async fn init(cx: InitContext, started: StoreConfig, (): ()) -> Result<Arc<str>, InitError> {
        cx.on_reload(move |config: StoreConfig| {
            if config.fail {
                return Err(InitError::failed("never"));
            }
            let left = (config.skip != started.skip).then(|| "skip".to_owned());
            Ok(Reload::new(move || *NAME.lock().unwrap() = config.name).leaving(left))
        });
        Ok("careful".into())
    }
}

#[tokio::test]
async fn a_reload_changes_all_or_nothing() {
    let list = || {
        let mut list = Registry::default();
        list.add::<Careful>().add::<Disk>().add::<Lenient>();
        list
    };
    let read = |text: &str| list().check(settings(text)).unwrap();
    let name = || NAME.lock().unwrap().clone();
    let mut graph = read("").start().await.unwrap();
    let uri = "io.example.store.v1.careful";
    // What is said in other words is no change.
    assert_eq!(graph.reload(&read(&format!("[\"{uri}\"]\nskip = false"))).unwrap(), Reloaded::default());
    let done = graph.reload(&read(&format!("[\"{uri}\"]\nname = \"a\""))).unwrap();
    assert_eq!((done, name()), (Reloaded { changed: vec![uri.to_owned()], restart: vec![] }, "a".to_owned()));
    // One that cannot is named, and nobody else's business; so is a key.
    let disk = "[\"io.example.store.v1.disk\"]\nname = \"x\"";
    let both = format!("{disk}\n[\"{uri}\"]\nname = \"b\"\nskip = true");
    let restart = vec!["io.example.store.v1.disk".to_owned(), format!("{uri}: skip")];
    for _ in 0..2 {
        let done = graph.reload(&read(&both)).unwrap();
        assert_eq!((done.restart, name()), (restart.clone(), "b".to_owned()), "what is left is said each time");
    }
    let refused = graph.reload(&read(&format!("[\"{uri}\"]\nname = \"c\"\nfail = true"))).unwrap_err();
    assert_eq!(refused, GraphError::Config { uri: uri.to_owned(), message: "never".to_owned() });
    assert_eq!(name(), "b");
    let disabled = Settings { disabled: vec!["io.example.store.v1.disk".to_owned()], ..settings("") };
    let done = graph.reload(&list().check(disabled).unwrap()).unwrap();
    assert_eq!(done.restart, ["io.example.store.v1.disk"]);
}

#[tokio::test]
async fn plugins_see_what_became_of_the_others() {
    let seen = Arc::new(Mutex::new(None));
    let mut registry = Registry::default();
    let (early, later) = (seen.clone(), seen.clone());
    registry.push(Registration::remote::<Stores>("first", move |cx| {
        assert!(cx.reports.all().is_empty());
        *early.lock().unwrap() = Some(cx.reports.clone());
        Ok("first".into())
    }));
    registry.push(Registration::remote::<Stores>("second", move |_| {
        let first = later.lock().unwrap().clone().unwrap();
        assert_eq!(first.find("io.example.store.v1", "first").unwrap().status, PluginStatus::Ok);
        assert!(first.find("io.example.store.v1", "second").is_none());
        Err(InitError::failed("no luck"))
    }));
    registry.start(Settings::default()).await.unwrap();
    let reports = seen.lock().unwrap().clone().unwrap();
    let status = reports.find("io.example.store.v1", "second").unwrap().status.clone();
    assert_eq!(status, PluginStatus::Error("no luck".to_owned()));
}

#[test]
fn mistakes_in_the_list_are_named() {
    let check =
        |registry: Registry, want: GraphError| assert_eq!(registry.check(Settings::default()).err(), Some(want));
    let mut twice = registry();
    twice.add::<Disk>();
    check(twice, GraphError::Duplicate("io.example.store.v1.disk".to_owned()));
    let mut alone = Registry::default();
    alone.add::<Strict>();
    let missing =
        GraphError::Missing { plugin: "io.example.server.v1.strict".to_owned(), needs: "io.example.store.v1" };
    check(alone, missing);

    deps! { struct Selfish { me: One<Stores> } }
    struct Loop;
    impl Plugin for Loop {
        type Kind = Stores;
        const ID: &'static str = "loop";
        type Config = ();
        type Deps = Selfish;

        async fn init(_: InitContext, (): (), deps: Selfish) -> Result<Arc<str>, InitError> {
            Ok(deps.me.0)
        }
    }
    let mut circle = Registry::default();
    circle.add::<Loop>();
    check(circle, GraphError::Loop(vec!["io.example.store.v1.loop".to_owned(); 2]));
}

#[tokio::test]
async fn several_of_one_kind_are_ambiguous_where_one_is_needed() {
    let mut registry = Registry::default();
    registry.add::<Strict>().add::<Disk>();
    registry.push(Registration::remote::<Stores>("far", |_| Ok("far".into())));
    let graph = registry.start(Settings::default()).await.unwrap();
    let strict = graph.reports().into_iter().find(|report| report.id == "strict").unwrap();
    assert!(
        matches!(&strict.status, PluginStatus::Error(why) if why.starts_with("2 plugins of type io.example.store.v1"))
    );
}

#[tokio::test]
async fn plugins_close_in_reverse() {
    struct Closing(Arc<Mutex<Vec<&'static str>>>);
    let closed = Closing(Arc::default());
    let mut registry = Registry::default();
    for id in ["first", "second"] {
        let list = closed.0.clone();
        registry.push(Registration::remote::<Stores>(id, move |cx| {
            cx.on_close(move || async move { list.lock().unwrap().push(id) });
            Ok(id.into())
        }));
    }
    registry.start(Settings::default()).await.unwrap().stop().await;
    assert_eq!(*closed.0.lock().unwrap(), ["second", "first"]);
}
