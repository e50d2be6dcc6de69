//! The daemon's own OOM score adjustment.

use std::fs;

const PATH: &str = "/proc/self/oom_score_adj";

/// Sets the score, or the nearest that the kernel permits: lowering it below what the daemon was started with needs
/// CAP_SYS_RESOURCE, and a node without that is an ordinary case.
pub(crate) fn adjust(score: i32) {
    if score == 0 {
        return;
    }
    let wanted = score.clamp(-1000, 1000);
    if let Err(error) = fs::write(PATH, wanted.to_string()) {
        let current = fs::read_to_string(PATH).unwrap_or_default();
        tracing::warn!(wanted, current = current.trim(), %error, "can't set the OOM score adjustment; it stays as it is");
    }
}
