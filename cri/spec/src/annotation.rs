//! Annotations of the spec: the ones that sandboxed runtimes rely on, and the user's that a handler lets through.

use std::collections::BTreeMap;

use crate::{
    document::Spec,
    error::Result,
    input::{Pod, Resources},
};

/// `sandbox` or `container`.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The sandbox that the container belongs to. Shims group by it.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// The pod's name.
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// The pod's Kubernetes namespace.
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// The pod's uid.
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// The pod's log directory; on sandboxes only.
pub const SANDBOX_LOG_DIRECTORY: &str = "io.kubernetes.cri.sandbox-log-directory";
/// The pause image; on sandboxes only.
pub const SANDBOX_IMAGE_NAME: &str = "io.kubernetes.cri.podsandbox.image-name";
/// The container's name; on containers only.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// The container's image; on containers only.
pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";

const SANDBOX_CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
const SANDBOX_CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const SANDBOX_CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
const SANDBOX_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";

pub(crate) fn put(spec: &mut Spec, key: &str, value: impl Into<String>) -> Result<()> {
    spec.object("annotations")?.insert(key.into(), value.into().into());
    Ok(())
}

/// What both kinds say about their pod.
pub(crate) fn pod(spec: &mut Spec, pod: &Pod, kind: &str) -> Result<()> {
    put(spec, SANDBOX_ID, &pod.id)?;
    put(spec, SANDBOX_NAMESPACE, &pod.namespace)?;
    put(spec, SANDBOX_UID, &pod.uid)?;
    put(spec, SANDBOX_NAME, &pod.name)?;
    put(spec, CONTAINER_TYPE, kind)
}

/// What the pod as a whole may use: a runtime that boots a machine sizes it by this.
pub(crate) fn pod_resources(spec: &mut Spec, resources: &Resources) -> Result<()> {
    put(spec, SANDBOX_CPU_PERIOD, resources.cpu_period.to_string())?;
    put(spec, SANDBOX_CPU_QUOTA, resources.cpu_quota.to_string())?;
    put(spec, SANDBOX_CPU_SHARES, resources.cpu_shares.to_string())?;
    put(spec, SANDBOX_MEMORY, resources.memory_limit.to_string())
}

/// Copies the annotations whose key matches one of `globs`.
pub(crate) fn pass(spec: &mut Spec, annotations: &BTreeMap<String, String>, globs: &[String]) -> Result<()> {
    for (key, value) in annotations {
        if globs.iter().any(|glob| matches(glob.as_bytes(), key.as_bytes())) {
            put(spec, key, value)?;
        }
    }
    Ok(())
}

/// Matches like Go's `path.Match`: `*` and `?` stop at `/`, `[a-z]` and `[^a-z]` are classes, `\` takes the next byte
/// as it is. A malformed pattern matches nothing.
///
/// Keys are ASCII in Kubernetes, so bytes do for characters. Linear in both: only the last `*` is ever tried again,
/// and a `*` that met a `/` is never extended over it.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() || g < glob.len() {
        if glob.get(g) == Some(&b'*') {
            star = Some((g, t));
            g += 1;
            continue;
        }
        if let (Some(length), true) = (text.get(t).and_then(|byte| one(&glob[g..], *byte)), g < glob.len()) {
            g += length;
            t += 1;
            continue;
        }
        match star {
            Some((at, from)) if from < text.len() && text[from] != b'/' => {
                star = Some((at, from + 1));
                (g, t) = (at + 1, from + 1);
            }
            _ => return false,
        }
    }
    true
}

/// How long the pattern's first element is, if it takes `byte`.
fn one(glob: &[u8], byte: u8) -> Option<usize> {
    match glob.first()? {
        b'?' => (byte != b'/').then_some(1),
        b'[' => class(glob, byte),
        b'\\' => (*glob.get(1)? == byte).then_some(2),
        literal => (*literal == byte).then_some(1),
    }
}

fn class(glob: &[u8], byte: u8) -> Option<usize> {
    let negated = glob.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let (mut hit, mut ranges) = (false, 0);
    loop {
        if glob.get(at) == Some(&b']') && ranges > 0 {
            return (hit != negated && byte != b'/').then_some(at + 1);
        }
        let low = bound(glob, &mut at)?;
        let mut high = low;
        if glob.get(at) == Some(&b'-') {
            at += 1;
            high = bound(glob, &mut at)?;
        }
        hit |= (low..=high).contains(&byte);
        ranges += 1;
    }
}

fn bound(glob: &[u8], at: &mut usize) -> Option<u8> {
    if matches!(glob.get(*at)?, b'-' | b']') {
        return None;
    }
    if glob[*at] == b'\\' {
        *at += 1;
    }
    let byte = *glob.get(*at)?;
    *at += 1;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_go() {
        let cases = [
            ("dev.gvisor.*", "dev.gvisor.internal.nvproxy", true),
            ("dev.gvisor.*", "dev.gvisor/x", false),
            ("*", "plain", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdx", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[a-", "a", false),
            ("[]a]", "a", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("io.kubernetes.cri-o.*", "io.kubernetes.cri-o.TTYAllocation", true),
            ("a*", "a", true),
            ("**", "abc", true),
        ];
        for (glob, text, expected) in cases {
            assert_eq!(matches(glob.as_bytes(), text.as_bytes()), expected, "{glob} on {text}");
        }
    }

    #[test]
    fn a_hostile_glob_takes_no_time() {
        let glob = "a*".repeat(200) + "b";
        assert!(!matches(glob.as_bytes(), "a".repeat(2000).as_bytes()));
    }
}
