//! Everything that is known, in memory: a shelf per sort of object, filled from the database when it opens.

use std::sync::Arc;

use kevel_contract::{container::Container, content, image::Image, lease, sandbox::Sandbox};
use kevel_database::{Database, Table};
use kevel_model::{Labels, Namespace, Result};

use crate::{
    mounts::record::Activated,
    record::{Ingest, Snapshot, Stored},
    shelf::Shelf,
};

/// A sort of object: where it lies in memory and in the database, under the same key.
pub(crate) trait Kind {
    /// The object.
    type Object: Stored + Send + Sync + 'static;
    /// Its table.
    const TABLE: Table<<Self::Object as Stored>::Record>;
    /// What errors call it.
    const NAME: &'static str;
    /// Its shelf.
    fn shelf(state: &State) -> &Shelf<Self::Object>;
    /// Its shelf, to change.
    fn shelf_mut(state: &mut State) -> &mut Shelf<Self::Object>;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($object:ty) in $field:ident called $name:literal;)*) => {
        /// Everything that is known as of one commit. A clone is a snapshot and costs next to nothing.
        #[derive(Clone, Default)]
        pub(crate) struct State {
            /// The number of changes since the database opened.
            pub(crate) generation: u64,
            $($(#[$doc])* pub(crate) $field: Shelf<$object>,)*
        }

        impl State {
            /// Reads everything.
            pub(crate) fn load(database: &Database) -> Result<Self> {
                database.read(|snapshot| {
                    let mut state = Self::default();
                    $(snapshot.each($kind::TABLE, |key, record| {
                        state.$field.insert(&String::from_utf8_lossy(key), Arc::new(Stored::object(record)?));
                        Ok(())
                    })?;)*
                    Ok(state)
                })
            }
        }

        $(
            $(#[$doc])*
            pub(crate) enum $kind {}

            impl Kind for $kind {
                type Object = $object;
                const TABLE: Table<<$object as Stored>::Record> = Table::new(stringify!($field));
                const NAME: &'static str = $name;

                fn shelf(state: &State) -> &Shelf<$object> {
                    &state.$field
                }

                fn shelf_mut(state: &mut State) -> &mut Shelf<$object> {
                    &mut state.$field
                }
            }
        )*
    };
}

kinds! {
    /// Labels of namespaces; key: namespace.
    Namespaces(Labels) in namespaces called "namespace";
    /// Images; key: namespace, name.
    Images(Image) in images called "image";
    /// Containers; key: namespace, id.
    Containers(Container) in containers called "container";
    /// Sandboxes; key: namespace, id.
    Sandboxes(Sandbox) in sandboxes called "sandbox";
    /// Leases; key: namespace, id.
    Leases(lease::Lease) in leases called "lease";
    /// What leases keep; key: namespace, lease, kind, id.
    Resources(lease::Resource) in resources called "lease resource";
    /// Blobs; key: namespace, digest.
    Blobs(content::Info) in blobs called "content";
    /// Ingests; key: namespace, reference.
    Ingests(Ingest) in ingests called "ingest";
    /// Snapshots; key: namespace, snapshotter, name.
    Snapshots(Snapshot) in snapshots called "snapshot";
    /// Activated mounts; key: namespace, name.
    Mounts(Activated) in mounts called "mounts";
}

impl State {
    /// What is left in a namespace, by sort.
    pub(crate) fn remains(&self, namespace: &Namespace) -> Vec<&'static str> {
        let name = namespace.as_str();
        let mut remains = Vec::new();
        let mut note = |any: bool, what| {
            if any {
                remains.push(what);
            }
        };
        note(self.images.under(name).next().is_some(), "images");
        note(self.blobs.under(name).next().is_some() || self.ingests.under(name).next().is_some(), "content");
        note(self.snapshots.under(name).next().is_some(), "snapshots");
        note(self.containers.under(name).next().is_some(), "containers");
        note(self.sandboxes.under(name).next().is_some(), "sandboxes");
        note(self.leases.under(name).next().is_some(), "leases");
        note(self.mounts.under(name).next().is_some(), "mounts");
        remains
    }
}
