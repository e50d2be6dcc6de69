//! The shim's place in the kernel's list of whom to kill for want of memory: one after the daemon.

use std::{fs, io};

/// The last place.
const LAST: i32 = 1000;

/// Puts a process right behind another, which protects the daemon more than its shims and these more than containers.
pub(crate) fn behind(parent: i32, pid: u32) -> io::Result<()> {
    let score = fs::read_to_string(format!("/proc/{parent}/oom_score_adj"))?;
    let score = score.trim().parse::<i32>().map_err(io::Error::other)?;
    fs::write(format!("/proc/{pid}/oom_score_adj"), next(score).to_string())
}

fn next(score: i32) -> i32 {
    score.saturating_add(1).clamp(-LAST, LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_stay_within_their_range() {
        for (score, want) in [(-1000, -999), (-999, -998), (0, 1), (999, 1000), (1000, 1000), (i32::MAX, 1000)] {
            assert_eq!(next(score), want);
        }
    }

    #[test]
    fn a_child_comes_after_its_parent() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let result = behind(own, child.id());
        let read = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap();
        let scores: (i32, i32) = (read(std::process::id()), read(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        result.unwrap();
        assert_eq!(scores.1, next(scores.0));
    }
}
