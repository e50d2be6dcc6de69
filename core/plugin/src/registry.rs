//! The list of plugins, their order, and their start.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use crate::{
    Deps as _, Graph, GraphError, InitContext, InitError, Kind, Plugin, PluginStatus, Report, Requirement, Settings,
    config,
};
use futures::future::BoxFuture;

pub(crate) type Erased = Box<dyn Any + Send + Sync>;
type Outcome = (Result<Erased, InitError>, Vec<String>);
type Init = Box<dyn FnOnce(InitContext, toml::Table, &Graph) -> BoxFuture<'static, Outcome> + Send>;

/// A plugin in the list.
pub struct Registration {
    kind: TypeId,
    type_name: &'static str,
    id: String,
    requires: Vec<Requirement>,
    default_config: Box<dyn Fn() -> toml::Table + Send>,
    check_config: Box<dyn Fn(toml::Table) -> Result<Vec<String>, String> + Send>,
    init: Init,
}

impl Registration {
    /// The registration of a plugin.
    pub fn of<P: Plugin>() -> Self {
        Self {
            kind: TypeId::of::<P::Kind>(),
            type_name: P::Kind::TYPE,
            id: P::ID.to_owned(),
            requires: P::Deps::requires(),
            default_config: Box::new(|| table(&P::Config::default())),
            check_config: Box::new(|given| config::read::<Configured<P>>(given).map(|(_, unknown)| unknown)),
            init: Box::new(|cx, given, graph| {
                let uri = cx.uri.clone();
                let ready = P::Deps::resolve(graph).and_then(|deps| {
                    let (config, unknown) =
                        config::read::<Configured<P>>(given).map_err(|message| InitError::Config { uri, message })?;
                    Ok((deps, config.0, unknown))
                });
                Box::pin(async move {
                    match ready {
                        Err(error) => (Err(error), Vec::new()),
                        Ok((deps, config, unknown)) => {
                            let handle = P::init(cx, config, deps).await;
                            (handle.map(|handle| Box::new(handle) as Erased), unknown)
                        }
                    }
                })
            }),
        }
    }

    /// A handle made elsewhere, such as a proxy plugin of the configuration. `connect` must not block.
    pub fn remote<K: Kind>(
        id: impl Into<String>,
        connect: impl FnOnce(&InitContext) -> Result<K::Handle, InitError> + Send + 'static,
    ) -> Self {
        Self {
            kind: TypeId::of::<K>(),
            type_name: K::TYPE,
            id: id.into(),
            requires: Vec::new(),
            default_config: Box::new(toml::Table::new),
            check_config: Box::new(|_| Ok(Vec::new())),
            init: Box::new(move |cx, _, _| {
                let handle = connect(&cx).map(|handle| Box::new(handle) as Erased);
                Box::pin(async move { (handle, Vec::new()) })
            }),
        }
    }

    /// Type and id.
    pub fn uri(&self) -> String {
        format!("{}.{}", self.type_name, self.id)
    }

    /// The table that the configuration has when nobody changes it.
    pub fn default_config(&self) -> toml::Table {
        (self.default_config)()
    }
}

/// A plugin's config, read from its table: `()` takes any table and knows no key.
struct Configured<P: Plugin>(P::Config);

impl<'de, P: Plugin> serde::Deserialize<'de> for Configured<P> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if TypeId::of::<P::Config>() == TypeId::of::<()>() {
            #[derive(serde::Deserialize)]
            struct Nothing {}
            Nothing::deserialize(deserializer)?;
            return Ok(Self(P::Config::default()));
        }
        P::Config::deserialize(deserializer).map(Self)
    }
}

/// A config as a table; what is no table (`()`) has no keys.
fn table<C: serde::Serialize>(config: &C) -> toml::Table {
    toml::Table::try_from(config).unwrap_or_default()
}

/// The list of plugins.
#[derive(Default)]
pub struct Registry(Vec<Registration>);

impl Registry {
    /// Adds a plugin.
    pub fn add<P: Plugin>(&mut self) -> &mut Self {
        self.push(Registration::of::<P>())
    }

    /// Adds a registration.
    pub fn push(&mut self, registration: Registration) -> &mut Self {
        self.0.push(registration);
        self
    }

    /// Every registration, in the order of the list.
    pub fn registrations(&self) -> &[Registration] {
        &self.0
    }

    /// Reads every plugin's table without starting anything; answers unknown keys as `(uri, key)`. The first wrong value
    /// is an error: a daemon must not start on it.
    pub fn check(&self, plugins: &BTreeMap<String, toml::Table>) -> Result<Vec<(String, String)>, GraphError> {
        let mut unknown = Vec::new();
        for registration in &self.0 {
            let uri = registration.uri();
            let Some(table) = plugins.get(&uri) else { continue };
            let keys = (registration.check_config)(table.clone())
                .map_err(|message| GraphError::Config { uri: uri.clone(), message })?;
            unknown.extend(keys.into_iter().map(|key| (uri.clone(), key)));
        }
        Ok(unknown)
    }

    /// The same plugins, dependencies first; the order of the list breaks ties.
    pub fn order(mut self, settings: &Settings) -> Result<Vec<Registration>, GraphError> {
        check_uris("disabled_plugins", &settings.disabled)?;
        check_uris("required_plugins", &settings.required)?;
        // A type that nobody offers is a mistake of ours; one that the operator disabled is found missing by its users,
        // which fail alone.
        self.check_requirements()?;
        self.0.retain(|registration| !settings.disabled.contains(&registration.uri()));
        for (index, registration) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|other| other.uri() == registration.uri()) {
                return Err(GraphError::Duplicate(registration.uri()));
            }
        }
        let mut walk = Walk { list: &self.0, state: vec![Mark::New; self.0.len()], path: vec![], out: vec![] };
        for index in 0..self.0.len() {
            walk.visit(index)?;
        }
        let order = walk.out;
        let mut slots: Vec<Option<Registration>> = self.0.into_iter().map(Some).collect();
        Ok(order.into_iter().filter_map(|index| slots[index].take()).collect())
    }

    fn check_requirements(&self) -> Result<(), GraphError> {
        for registration in &self.0 {
            let offered = |needs: &Requirement| self.0.iter().any(|other| other.kind == needs.kind);
            if let Some(needs) = registration.requires.iter().find(|needs| !needs.optional && !offered(needs)) {
                return Err(GraphError::Missing { plugin: registration.uri(), needs: needs.type_name });
            }
        }
        Ok(())
    }

    /// Starts every plugin, dependencies first. One that fails or skips does not stop the others, unless it is required.
    pub async fn start(self, settings: Settings) -> Result<Graph, GraphError> {
        self.check(&settings.plugins)?;
        let properties = Arc::new(settings.properties.clone());
        let mut graph = Graph::default();
        for registration in self.order(&settings)? {
            let uri = registration.uri();
            let cx = InitContext::new(
                uri.clone(),
                settings.root.join(&uri),
                settings.state.join(&uri),
                properties.as_ref().clone(),
            );
            let given = settings.plugins.get(&uri).cloned().unwrap_or_default();
            let told = cx.told.clone();
            let (result, unknown_keys) = (registration.init)(cx, given, &graph).await;
            let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
            let status = match &result {
                Ok(_) => PluginStatus::Ok,
                Err(InitError::Skip(why)) => PluginStatus::Skip(format!("skip plugin: {why}")),
                Err(error) => PluginStatus::Error(error.chain()),
            };
            log(&uri, &status, &unknown_keys);
            let report = Report {
                type_name: registration.type_name.to_owned(),
                id: registration.id,
                requires: registration.requires.iter().map(|needs| needs.type_name.to_owned()).collect(),
                declared: told.declared,
                status,
                unknown_keys,
            };
            graph.add(registration.kind, report, result.ok(), told.closers);
        }
        check_required(&settings.required, graph).await
    }
}

fn log(uri: &str, status: &PluginStatus, unknown_keys: &[String]) {
    for key in unknown_keys {
        tracing::warn!(plugin = uri, key, "unknown configuration key");
    }
    match status {
        PluginStatus::Ok => tracing::info!(plugin = uri, "plugin started"),
        PluginStatus::Skip(why) => tracing::info!(plugin = uri, why, "plugin skipped"),
        PluginStatus::Error(why) => tracing::error!(plugin = uri, why, "plugin failed"),
    }
}

fn check_uris(key: &'static str, uris: &[String]) -> Result<(), GraphError> {
    match uris.iter().find(|uri| !uri.contains('.')) {
        Some(uri) => Err(GraphError::NotAUri { key, uri: uri.clone() }),
        None => Ok(()),
    }
}

async fn check_required(required: &[String], graph: Graph) -> Result<Graph, GraphError> {
    for uri in required {
        let why = match graph.reports().iter().find(|report| report.uri() == *uri).map(|report| &report.status) {
            Some(PluginStatus::Ok) => continue,
            Some(PluginStatus::Skip(why) | PluginStatus::Error(why)) => why.clone(),
            None => "there is no such plugin".to_owned(),
        };
        graph.stop().await;
        return Err(GraphError::Required { uri: uri.clone(), why });
    }
    Ok(graph)
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

struct Walk<'a> {
    list: &'a [Registration],
    state: Vec<Mark>,
    path: Vec<usize>,
    out: Vec<usize>,
}

impl Walk<'_> {
    fn visit(&mut self, index: usize) -> Result<(), GraphError> {
        match self.state[index] {
            Mark::Done => return Ok(()),
            Mark::Open => {
                let start = self.path.iter().position(|open| *open == index).unwrap_or(0);
                let mut uris: Vec<_> = self.path[start..].iter().map(|open| self.list[*open].uri()).collect();
                uris.push(self.list[index].uri());
                return Err(GraphError::Loop(uris));
            }
            Mark::New => {}
        }
        self.state[index] = Mark::Open;
        self.path.push(index);
        for needs in &self.list[index].requires {
            for other in 0..self.list.len() {
                if self.list[other].kind == needs.kind {
                    self.visit(other)?;
                }
            }
        }
        self.path.pop();
        self.state[index] = Mark::Done;
        self.out.push(index);
        Ok(())
    }
}
