//! How the daemon holds on to memory: in few arenas, and not longer than a burst of work lasts. It speaks to glibc's
//! allocator; with another one it does nothing.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "mallopt, mallinfo2 and malloc_trim have no safe wrapper")
)]

use std::time::Duration;

/// How often memory is looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// Growth that is not worth looking for free memory in, in bytes.
const GROWTH: u64 = 2 << 20;

/// Sets the allocator up. Must be called before the first thread is started.
///
/// By default every thread gets an arena of its own, up to eight for each core, and each keeps what its busiest moment took.
/// The daemon's threads allocate little at the same time, so that two arenas are enough.
#[cfg(target_env = "gnu")]
pub(crate) fn configure() {
    // SAFETY: mallopt changes numbers of the allocator's; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Said explicitly, the thresholds stay: by default they grow with the largest block that was ever freed.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
    }
}

/// Gives back what was freed, from the middle of the heap too, for as long as it is polled.
#[cfg(target_env = "gnu")]
pub(crate) async fn give_back() {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = 0;
    loop {
        timer.tick().await;
        if own().is_some_and(|now| now > last + GROWTH) {
            trim();
            last = own().unwrap_or_default();
        }
    }
}

/// Memory of the process that no file backs, in bytes.
#[cfg(target_env = "gnu")]
fn own() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = field.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib << 10)
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim takes the allocator's own locks and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn configure() {}

#[cfg(not(target_env = "gnu"))]
pub(crate) async fn give_back() {
    std::future::pending().await
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_in_the_middle_is_given_back() {
        const BLOCK: usize = 64 << 10; // below the threshold from which each block is a mapping of its own
        let before = own().unwrap();
        let blocks: Vec<Vec<u8>> = (0..512).map(|_| vec![1; BLOCK]).collect();
        let full = own().unwrap();
        assert!(full > before + (24 << 20), "{before} {full}");
        // The last one stays at the end of the heap, so that nothing goes by itself.
        let kept: Vec<Vec<u8>> = blocks.into_iter().skip(511).collect();
        trim();
        let after = own().unwrap();
        assert!(after + (24 << 20) < full, "{full} {after}");
        drop(kept);
    }
}
