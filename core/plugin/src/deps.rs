//! What a plugin needs. One declaration orders the graph and fetches the handles.

use std::{any::TypeId, collections::BTreeMap, ops::Deref};

use crate::{Graph, InitError, Kind};

/// Everything that a plugin needs; made by [`deps!`](crate::deps!).
pub trait Deps: Sized + Send + 'static {
    /// What must start before.
    fn requires() -> Vec<Requirement>;
    /// The handles.
    fn resolve(graph: &Graph) -> Result<Self, InitError>;
}

/// One thing that must start before.
#[derive(Clone, Copy, Debug)]
pub struct Requirement {
    /// The kind.
    pub kind: TypeId,
    /// Its wire name.
    pub type_name: &'static str,
    /// Whether none of it is fine too.
    pub optional: bool,
}

impl Requirement {
    fn of<K: Kind>(optional: bool) -> Self {
        Self { kind: TypeId::of::<K>(), type_name: K::TYPE, optional }
    }
}

/// One field of a [`deps!`](crate::deps!) struct.
pub trait Dep: Sized + Send + 'static {
    /// What must start before.
    fn requirement() -> Requirement;
    /// The handle or handles.
    fn resolve(graph: &Graph) -> Result<Self, InitError>;
}

/// Exactly one plugin of kind `K`.
pub struct One<K: Kind>(pub K::Handle);
/// The plugin of kind `K`, if there is one.
pub struct Maybe<K: Kind>(pub Option<K::Handle>);
/// Every plugin of kind `K` that started, by id.
pub struct All<K: Kind>(pub BTreeMap<String, K::Handle>);

impl<K: Kind> Deref for One<K> {
    type Target = K::Handle;

    fn deref(&self) -> &K::Handle {
        &self.0
    }
}

impl<K: Kind> Dep for One<K> {
    fn requirement() -> Requirement {
        Requirement::of::<K>(false)
    }

    fn resolve(graph: &Graph) -> Result<Self, InitError> {
        let mut all = graph.all::<K>();
        match (all.pop_first(), all.len()) {
            (Some((_, handle)), 0) => Ok(Self(handle)),
            (Some(_), more) => Err(InitError::Ambiguous(K::TYPE, more + 1)),
            // What needs a plugin that is not for this node is not for this node either.
            (None, _) => Err(match graph.skipped::<K>() {
                Some(why) => InitError::Skip(format!("needs {}: {why}", K::TYPE)),
                None => InitError::Missing(K::TYPE),
            }),
        }
    }
}

impl<K: Kind> Dep for Maybe<K> {
    fn requirement() -> Requirement {
        Requirement::of::<K>(true)
    }

    fn resolve(graph: &Graph) -> Result<Self, InitError> {
        let mut all = graph.all::<K>();
        match (all.pop_first(), all.len()) {
            (first, 0) => Ok(Self(first.map(|(_, handle)| handle))),
            (_, more) => Err(InitError::Ambiguous(K::TYPE, more + 1)),
        }
    }
}

impl<K: Kind> Dep for All<K> {
    fn requirement() -> Requirement {
        Requirement::of::<K>(true)
    }

    fn resolve(graph: &Graph) -> Result<Self, InitError> {
        Ok(Self(graph.all::<K>()))
    }
}

impl Deps for () {
    fn requires() -> Vec<Requirement> {
        Vec::new()
    }

    fn resolve(_: &Graph) -> Result<Self, InitError> {
        Ok(())
    }
}

/// Declares what a plugin needs: a struct whose fields are [`One`], [`Maybe`] or [`All`] of a kind.
#[macro_export]
macro_rules! deps {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$fmeta])* pub $field: $type),* }

        impl $crate::Deps for $name {
            fn requires() -> Vec<$crate::Requirement> {
                vec![$(<$type as $crate::Dep>::requirement()),*]
            }

            fn resolve(graph: &$crate::Graph) -> Result<Self, $crate::InitError> {
                Ok(Self { $($field: <$type as $crate::Dep>::resolve(graph)?),* })
            }
        }
    };
}
