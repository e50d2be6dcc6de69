//! What plugins want of containers that exist: other limits, or their end.

use crate::api::{ContainerEviction, ContainerUpdate, LinuxResources};

use super::{Conflict, Owners, overlay, resources};

/// Why what a plugin wants cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Two plugins set the same thing.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A plugin updates what it is asked about as a new container.
    #[error("plugin {plugin:?} asked to update container {container} while it is made")]
    Unmade {
        /// The plugin.
        plugin: String,
        /// The container.
        container: String,
    },
}

/// Updates and evictions, as they are collected.
#[derive(Debug, Default)]
pub struct Changes {
    /// The container that a request is about, and what it is to have: changed for plugins that come later.
    target: Option<(String, LinuxResources)>,
    /// Whether a plugin changed the target.
    touched: bool,
    /// A container that is being made, and so cannot be updated.
    unmade: Option<String>,
    updates: Vec<ContainerUpdate>,
    evict: Vec<ContainerEviction>,
    pub(super) owners: Owners,
}

/// What all plugins together want of containers that exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    /// What the container that the request is about is to have instead of what was asked.
    pub target: Option<LinuxResources>,
    /// Limits of others.
    pub updates: Vec<ContainerUpdate>,
    /// Containers to be stopped.
    pub evict: Vec<ContainerEviction>,
}

impl Changes {
    /// For an event that no limits come with.
    pub fn new() -> Self {
        Self::default()
    }

    /// For an event about a container that cannot be updated because it is being made.
    pub(super) fn without(unmade: Option<String>) -> Self {
        Self { unmade, ..Self::default() }
    }

    /// For a request to update `container` to `limits`.
    pub fn of(container: &str, limits: LinuxResources) -> Self {
        Self { target: Some((container.to_owned(), limits)), ..Self::default() }
    }

    /// What the container of the request is to have, as it stands.
    pub fn target(&self) -> Option<&LinuxResources> {
        self.target.as_ref().map(|(_, limits)| limits)
    }

    /// Adds what a plugin wants.
    ///
    /// # Errors
    /// [`Refused`]; an update whose failure may be ignored is left out as a whole instead.
    pub fn apply(
        &mut self,
        plugin: &str,
        updates: Vec<ContainerUpdate>,
        evict: Vec<ContainerEviction>,
    ) -> Result<(), Refused> {
        for update in updates {
            match self.update(plugin, &update) {
                Err(Refused::Conflict(conflict)) if update.ignore_failure => {
                    tracing::warn!(plugin, container = update.container_id, %conflict, "an NRI update is left out");
                }
                other => other?,
            }
        }
        for eviction in evict {
            if !self.evict.iter().any(|have| have.container_id == eviction.container_id) {
                self.evict.push(eviction);
            }
        }
        Ok(())
    }

    fn update(&mut self, plugin: &str, update: &ContainerUpdate) -> Result<(), Refused> {
        let container = update.container_id.as_str();
        if self.unmade.as_deref() == Some(container) {
            return Err(Refused::Unmade { plugin: plugin.to_owned(), container: container.to_owned() });
        }
        let none = LinuxResources::default();
        let limits = update.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&none);
        resources::claim(limits, &mut self.owners, container, plugin)?;
        if let Some((_, target)) = self.target.as_mut().filter(|(target, _)| target == container) {
            overlay(target, limits);
            self.touched = true;
            return Ok(());
        }
        match self.updates.iter_mut().find(|have| have.container_id == container) {
            Some(have) => {
                have.ignore_failure &= update.ignore_failure;
                overlay(have.linux.get_or_insert_default().resources.get_or_insert_default(), limits);
            }
            None => self.updates.push(update.clone()),
        }
        Ok(())
    }

    /// Updates of other containers so far.
    pub(super) fn updates(&self) -> &[ContainerUpdate] {
        &self.updates
    }

    /// What came together.
    pub fn finish(self) -> Changed {
        let target = self.target.filter(|_| self.touched).map(|(_, limits)| limits);
        Changed { target, updates: self.updates, evict: self.evict }
    }
}
