//! How far each pod and container is, as plugins were told: an end is told once, a removal after it, and two steps of one
//! object never at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::api::Event;

/// How far a pod or container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A container that was made and not started.
    Made,
    /// It runs.
    Running,
    /// It has ended.
    Ended,
}

impl Stage {
    /// What `event` makes of an object at `now`; `None` when plugins are not to be told. The inner value is `None` for an
    /// object that is gone.
    pub(crate) fn after(now: Option<Self>, event: Event) -> Option<Option<Self>> {
        match event {
            Event::RunPodSandbox | Event::StartContainer => Some(Some(Self::Running)),
            Event::CreateContainer => Some(Some(Self::Made)),
            Event::StopPodSandbox | Event::StopContainer => match now {
                Some(Self::Made | Self::Running) => Some(Some(Self::Ended)),
                Some(Self::Ended) | None => None,
            },
            Event::RemovePodSandbox | Event::RemoveContainer => now.map(|_| None),
            // What ran so shortly that its end was told first.
            Event::PostStartContainer if now == Some(Self::Ended) => None,
            _ => Some(now),
        }
    }
}

/// The objects by identifier.
#[derive(Default)]
pub(crate) struct Stages {
    objects: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Stage>>>>>,
}

impl Stages {
    /// Waits for its turn with an object.
    pub(crate) async fn alone(&self, id: &str) -> OwnedMutexGuard<Option<Stage>> {
        let object = {
            let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
            objects.entry(id.to_owned()).or_default().clone()
        };
        object.lock_owned().await
    }

    /// Forgets an object that is gone, unless somebody waits for it.
    pub(crate) fn forget(&self, id: &str, object: OwnedMutexGuard<Option<Stage>>) {
        let gone = object.is_none();
        drop(object);
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if gone && objects.get(id).is_some_and(|object| Arc::strong_count(object) == 1) {
            objects.remove(id);
        }
    }

    /// What was there before plugins were.
    pub(crate) fn begin(&self, found: impl IntoIterator<Item = (String, Stage)>) {
        let objects = found.into_iter().map(|(id, stage)| (id, Arc::new(tokio::sync::Mutex::new(Some(stage)))));
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).extend(objects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_once_and_a_removal_only_of_what_was_there() {
        use Stage::{Ended, Made, Running};
        for (now, event, expected) in [
            (None, Event::RunPodSandbox, Some(Some(Running))),
            (Some(Running), Event::StopPodSandbox, Some(Some(Ended))),
            (Some(Ended), Event::StopPodSandbox, None),
            (None, Event::StopPodSandbox, None),
            (Some(Ended), Event::RemovePodSandbox, Some(None)),
            (None, Event::RemovePodSandbox, None),
            (None, Event::CreateContainer, Some(Some(Made))),
            (Some(Made), Event::PostCreateContainer, Some(Some(Made))),
            (Some(Made), Event::StartContainer, Some(Some(Running))),
            (Some(Made), Event::StopContainer, Some(Some(Ended))),
            (Some(Running), Event::StopContainer, Some(Some(Ended))),
            (Some(Ended), Event::StopContainer, None),
            (Some(Running), Event::RemoveContainer, Some(None)),
            (None, Event::RemoveContainer, None),
            (Some(Running), Event::PostStartContainer, Some(Some(Running))),
            (Some(Ended), Event::PostStartContainer, None),
        ] {
            assert_eq!(Stage::after(now, event), expected, "{now:?} {event:?}");
        }
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten() {
        let stages = Stages::default();
        stages.begin([("a".to_owned(), Stage::Running)]);
        let mut object = stages.alone("a").await;
        *object = None;
        stages.forget("a", object);
        assert!(stages.objects.lock().unwrap().is_empty());
        let object = stages.alone("b").await;
        stages.forget("b", object);
        assert!(stages.objects.lock().unwrap().is_empty());
    }
}
