//! What processes take: memory and CPU time.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// The kernel shows process times in hundredths of a second, whatever it counts in.
const TICKS: u64 = 100;

/// A process's proportional share of memory, in MiB: pages that several have are split between them.
pub(crate) fn pss(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse_pss(&text).with_context(|| format!("process {pid} has no Pss"))
}

fn parse_pss(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

/// The name of a process's program, or nothing when it is gone.
pub(crate) fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// CPU time of a process's own threads.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = parse_ticks(&text).with_context(|| format!("stat of process {pid}"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

fn parse_ticks(stat: &str) -> Option<u64> {
    // The name may hold anything, a closing bracket included; fields count from the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words() {
        assert_eq!(parse_pss("Rss:    4096 kB\nPss:    1536 kB\nPss_Dirty: 1 kB\n"), Some(1.5));
        assert_eq!(parse_pss("Rss: 1 kB\n"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 1 0 12 30 5 6 20 0 9 0 1000 1 2";
        assert_eq!(parse_ticks(stat), Some(42));
        assert!(pss(std::process::id()).unwrap() > 0.0);
        cpu(std::process::id()).unwrap();
    }
}
