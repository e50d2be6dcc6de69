//! The list of plugins, what the configuration says to each, and their order. Their start is `checked`'s.

use std::any::{Any, TypeId};

use crate::{
    Checked, Deps as _, Graph, GraphError, InitContext, InitError, Kind, Plugin, Requirement, Settings, config,
};
use futures::future::BoxFuture;

pub(crate) type Erased = Box<dyn Any + Send + Sync>;
type Outcome = Result<Erased, InitError>;
type Init = Box<dyn FnOnce(InitContext, &Graph) -> BoxFuture<'static, Outcome> + Send>;
/// Reads a plugin's table.
type Read = Box<dyn FnOnce(toml::Table) -> Result<Given, String> + Send>;

/// What a plugin's table said.
struct Given {
    init: Init,
    unknown_keys: Vec<String>,
    /// The table with every key that it left out.
    effective: toml::Table,
}

/// A plugin in the list.
pub struct Registration {
    kind: TypeId,
    type_name: &'static str,
    id: String,
    requires: Vec<Requirement>,
    default_config: Box<dyn Fn() -> toml::Table + Send>,
    read: Read,
}

/// A plugin whose table was read.
pub(crate) struct Ready {
    pub(crate) kind: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) id: String,
    pub(crate) requires: Vec<Requirement>,
    pub(crate) unknown_keys: Vec<String>,
    /// Its table with every key that the configuration left out.
    pub(crate) effective: toml::Table,
    pub(crate) init: Init,
}

impl Ready {
    pub(crate) fn uri(&self) -> String {
        format!("{}.{}", self.type_name, self.id)
    }
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
            read: Box::new(|given| {
                let (config, unknown_keys) = config::read::<Configured<P>>(given)?;
                let effective = table(&config.0);
                let init: Init = Box::new(move |cx, graph| {
                    let deps = P::Deps::resolve(graph);
                    Box::pin(async move { Ok(Box::new(P::init(cx, config.0, deps?).await?) as Erased) })
                });
                Ok(Given { init, unknown_keys, effective })
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
            read: Box::new(move |_| {
                let init: Init = Box::new(move |cx, _| {
                    let handle = connect(&cx).map(|handle| Box::new(handle) as Erased);
                    Box::pin(async move { handle })
                });
                Ok(Given { init, unknown_keys: Vec::new(), effective: toml::Table::new() })
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

    fn read(self, settings: &Settings) -> Result<Ready, GraphError> {
        let uri = self.uri();
        let given = settings.plugins.get(&uri).cloned().unwrap_or_default();
        let Given { init, unknown_keys, effective } =
            (self.read)(given).map_err(|message| GraphError::Config { uri, message })?;
        let Self { kind, type_name, id, requires, .. } = self;
        Ok(Ready { kind, type_name, id, requires, unknown_keys, effective, init })
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

    /// Reads every plugin's table and orders the graph without starting anything.
    ///
    /// # Errors
    ///
    /// The first wrong value in a table, that of a disabled plugin included, and any mistake in the list: nothing may
    /// start on them.
    pub fn check(self, settings: Settings) -> Result<Checked, GraphError> {
        check_uris("disabled_plugins", &settings.disabled)?;
        check_uris("required_plugins", &settings.required)?;
        let known = self.0.iter().map(Registration::uri).collect::<Vec<_>>();
        let strangers = settings.plugins.keys().filter(|uri| !known.contains(uri)).cloned().collect();
        let ready =
            self.0.into_iter().map(|registration| registration.read(&settings)).collect::<Result<Vec<_>, _>>()?;
        Ok(Checked { plugins: order(ready, &settings)?, settings, strangers })
    }

    /// Checks, then starts every plugin, dependencies first; see [`Checked::start`].
    pub async fn start(self, settings: Settings) -> Result<Graph, GraphError> {
        self.check(settings)?.start().await
    }
}

fn check_uris(key: &'static str, uris: &[String]) -> Result<(), GraphError> {
    match uris.iter().find(|uri| !uri.contains('.')) {
        Some(uri) => Err(GraphError::NotAUri { key, uri: uri.clone() }),
        None => Ok(()),
    }
}

/// The plugins that are not disabled, dependencies first; the order of the list breaks ties.
fn order(mut list: Vec<Ready>, settings: &Settings) -> Result<Vec<Ready>, GraphError> {
    // A type that nobody offers is a mistake of ours; one that the operator disabled is found missing by its users,
    // which fail alone.
    check_requirements(&list)?;
    list.retain(|plugin| !settings.disabled.contains(&plugin.uri()));
    for (index, plugin) in list.iter().enumerate() {
        if list[..index].iter().any(|other| other.uri() == plugin.uri()) {
            return Err(GraphError::Duplicate(plugin.uri()));
        }
    }
    let mut walk = Walk { list: &list, state: vec![Mark::New; list.len()], path: vec![], out: vec![] };
    for index in 0..list.len() {
        walk.visit(index)?;
    }
    let order = walk.out;
    let mut slots: Vec<Option<Ready>> = list.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| slots[index].take()).collect())
}

fn check_requirements(list: &[Ready]) -> Result<(), GraphError> {
    for plugin in list {
        let offered = |needs: &Requirement| list.iter().any(|other| other.kind == needs.kind);
        if let Some(needs) = plugin.requires.iter().find(|needs| !needs.optional && !offered(needs)) {
            return Err(GraphError::Missing { plugin: plugin.uri(), needs: needs.type_name });
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

struct Walk<'a> {
    list: &'a [Ready],
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
