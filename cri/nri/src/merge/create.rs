//! A container that is being made: what plugins want of it, and what each of them is shown.

use crate::api::{
    ContainerAdjustment, ContainerUpdate, CreateContainerRequest, CreateContainerResponse, OwningPlugins,
};

use super::{Changed, Changes, Refused, adjust};

/// A creation, as plugin after plugin is asked about it.
#[derive(Debug)]
pub struct Creation {
    pub(super) request: CreateContainerRequest,
    pub(super) adjust: ContainerAdjustment,
    pub(super) changes: Changes,
}

/// What all plugins together want.
#[derive(Clone, Debug, PartialEq)]
pub struct Created {
    /// Of the new container.
    pub adjust: ContainerAdjustment,
    /// Of others.
    pub changes: Changed,
    /// Who wants what.
    pub owners: OwningPlugins,
}

impl Creation {
    /// Before anybody was asked.
    pub fn new(request: CreateContainerRequest) -> Self {
        let id = request.container.as_ref().map(|container| container.id.clone());
        Self { request, adjust: ContainerAdjustment::default(), changes: Changes::without(id) }
    }

    /// What the next plugin is asked: the container with everything that was adjusted so far.
    pub fn request(&self) -> &CreateContainerRequest {
        &self.request
    }

    /// Adds what a plugin answered.
    ///
    /// # Errors
    /// [`Refused`]; the creation is not to go on then.
    pub fn apply(&mut self, plugin: &str, answer: CreateContainerResponse) -> Result<(), Refused> {
        if let Some(wanted) = answer.adjust {
            adjust::apply(self, plugin, wanted)?;
        }
        self.changes.apply(plugin, answer.update, answer.evict)
    }

    /// Updates of other containers so far.
    pub fn updates(&self) -> &[ContainerUpdate] {
        self.changes.updates()
    }

    /// What came together.
    pub fn finish(mut self) -> Created {
        let owners = std::mem::take(&mut self.changes.owners).into_inner();
        Created { adjust: self.adjust, changes: self.changes.finish(), owners }
    }
}
