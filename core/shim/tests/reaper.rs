//! Processes and their ends. One test, because a process has one set of children.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{fs, process::Command, time::Duration};

use kevel_shim::Reaper;

fn zombie(pid: u32) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.trim_start().starts_with('Z'))
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while !reached() {
        assert!(tokio::time::Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn no_end_is_missed() {
    let reaper = Reaper::start().unwrap();
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    // Started ones, at once and many at a time.
    let ends: Vec<_> = (0..50).map(|n| reaper.spawn(&mut shell(&format!("exit {n}"))).unwrap().0).collect();
    for (n, child) in ends.into_iter().enumerate() {
        assert_eq!(child.exit().await.status, u32::try_from(n).unwrap());
    }
    let killed = reaper.spawn(&mut shell("kill -9 $$")).unwrap().0;
    assert_eq!(killed.exit().await.status, 137);
    assert!(reaper.spawn(&mut Command::new("/no/such/program")).is_err());

    // What a started one leaves becomes ours; it may have ended before its id is known, while it is held.
    let dir = tempfile::tempdir().unwrap();
    for script in ["(sleep 0.1; exit 7) & echo $! >$0", "sleep 0.2 & echo $! >$0"] {
        let file = dir.path().join("pid");
        let hold = reaper.hold();
        let (runtime, _) = reaper.spawn(shell(script).arg(&file)).unwrap();
        assert_eq!(runtime.exit().await.status, 0);
        let pid: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let status = if script.contains("exit") {
            until("it to end", || zombie(pid) == Some(true)).await;
            7
        } else {
            0
        };
        let child = reaper.adopt(pid).unwrap();
        drop(hold);
        assert_eq!(child.exit().await.status, status, "{script}");
        assert_eq!(zombie(pid), None);
    }
    assert!(reaper.adopt(1).is_err(), "no child of ours");

    // Nobody's are reaped as soon as nobody holds.
    let file = dir.path().join("stray");
    let hold = reaper.hold();
    let (runtime, _) = reaper.spawn(shell("(sleep 0.1; exit 1) & echo $! >$0").arg(&file)).unwrap();
    runtime.exit().await;
    let stray: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    until("it to end", || zombie(stray) == Some(true)).await;
    drop(hold);
    until("it to be reaped", || zombie(stray).is_none()).await;
}
