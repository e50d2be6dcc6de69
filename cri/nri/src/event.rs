//! What plugins subscribe to.

use crate::api::Event;

/// Every event, in the order of their numbers.
const ALL: [Event; 14] = [
    Event::RunPodSandbox,
    Event::StopPodSandbox,
    Event::RemovePodSandbox,
    Event::CreateContainer,
    Event::PostCreateContainer,
    Event::StartContainer,
    Event::PostStartContainer,
    Event::UpdateContainer,
    Event::PostUpdateContainer,
    Event::StopContainer,
    Event::RemoveContainer,
    Event::UpdatePodSandbox,
    Event::PostUpdatePodSandbox,
    Event::ValidateContainerAdjustment,
];

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask(i32);

impl Mask {
    /// Every event.
    pub(crate) const ALL: Self = Self((1 << ALL.len()) - 1);

    /// What a plugin answered: none means all, and what nobody knows is refused with its bits.
    pub(crate) fn subscribed(bits: i32) -> Result<Self, i32> {
        match (bits, bits & !Self::ALL.0) {
            (0, _) => Ok(Self::ALL),
            (_, 0) => Ok(Self(bits)),
            (_, unknown) => Err(unknown),
        }
    }

    /// Whether the event is in the set.
    pub(crate) fn has(self, event: Event) -> bool {
        event as i32 > 0 && self.0 & (1 << (event as i32 - 1)) != 0
    }
}

/// The name of the method of an event.
pub(crate) fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

#[cfg(test)]
mod tests {
    use kevel_proto::nri::pkg::api::v1alpha1::plugin_ttrpc;

    use super::*;

    #[test]
    fn masks() {
        for event in ALL {
            assert!(Mask::ALL.has(event), "{event:?}");
            assert!(plugin_ttrpc::METHODS.contains(&method(event)), "{event:?}");
        }
        assert_eq!(Mask::subscribed(0), Ok(Mask::ALL));
        assert_eq!(Mask::subscribed(1 << 13), Ok(Mask(1 << 13)));
        assert_eq!(Mask::subscribed(1 | 1 << 14), Err(1 << 14));
        assert!(Mask::subscribed(-1).is_err());
        let one = Mask::subscribed(1).unwrap();
        assert!(one.has(Event::RunPodSandbox) && !one.has(Event::StopPodSandbox));
        assert!(!Mask::ALL.has(Event::Unknown) && !Mask::ALL.has(Event::Last));
    }
}
