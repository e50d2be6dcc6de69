//! The versions of the protocol for commands, and what differs between them.

/// A version. The first three tell failures as text; the later ones tell every end as a Kubernetes status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// `channel.k8s.io`, or nothing.
    V1,
    /// `v2.channel.k8s.io`: the client can close its standard input.
    V2,
    /// `v3.channel.k8s.io`: terminals change their size.
    V3,
    /// `v4.channel.k8s.io`: exit codes.
    V4,
    /// `v5.channel.k8s.io`, for WebSocket only: single streams can be closed there too.
    V5,
}

impl Version {
    /// The names for SPDY, best first.
    pub(crate) const SPDY: [&str; 4] =
        ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    /// The version of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "channel.k8s.io" => Self::V1,
            "v2.channel.k8s.io" => Self::V2,
            "v3.channel.k8s.io" => Self::V3,
            "v4.channel.k8s.io" => Self::V4,
            "v5.channel.k8s.io" => Self::V5,
            _ => return None,
        })
    }

    /// Whether the client opens a stream for sizes of its terminal.
    pub(crate) fn resizes(self) -> bool {
        self >= Self::V3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_names() {
        let versions: Vec<_> = Version::SPDY.iter().map(|name| Version::named(name)).collect();
        assert_eq!(versions, [Some(Version::V4), Some(Version::V3), Some(Version::V2), Some(Version::V1)]);
        assert_eq!(Version::named("v6.channel.k8s.io"), None);
        assert!(Version::V3.resizes() && !Version::V2.resizes());
    }
}
