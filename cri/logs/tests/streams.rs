//! Streams from a pipe to a log and to clients, with the pipes, files and disks of the machine.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kevel_cri_logs::{Attachment, Fifos, Io, Log, Settings, Stream};
use tempfile::TempDir;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);

/// A process whose streams are watched: this test writes what a shim would.
struct Bench {
    dir: TempDir,
    fifos: Fifos,
    io: Io,
}

impl Bench {
    async fn new(tty: bool, settings: Settings) -> Self {
        let dir = TempDir::new().unwrap();
        let log = Log::open(Some(&dir.path().join("pod/app/0.log"))).await.unwrap();
        Self::with(dir, tty, settings, log)
    }

    fn with(dir: TempDir, tty: bool, settings: Settings, log: Log) -> Self {
        let fifos = Fifos::create(dir.path(), "c1", true, tty).unwrap();
        let io = Io::start(fifos.clone(), log, &settings).unwrap();
        Self { dir, fifos, io }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("pod/app/0.log")
    }

    fn shim(&self, stream: Stream) -> fs::File {
        let path = if stream == Stream::Stdout { self.fifos.stdout() } else { self.fifos.stderr() };
        fs::File::options().write(true).open(path).unwrap()
    }

    async fn drained(&self) {
        timeout(SOON, self.io.drained()).await.expect("the streams end");
    }
}

/// Writes on a thread of its own, as a shim does, and closes.
fn write(mut pipe: fs::File, bytes: Vec<u8>) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || pipe.write_all(&bytes).unwrap())
}

/// The bytes of one stream, put together from a log as kubelet does.
fn joined(log: &[u8], stream: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("a log ends with a line");
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, name, tag) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(time.len(), 30, "{}", String::from_utf8_lossy(line));
        if name == stream.as_bytes() {
            out.extend(parts.next().unwrap());
            if tag == b"F" {
                out.push(b'\n');
            }
        }
    }
    out
}

fn numbered(lines: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("line {line} {}\n", "x".repeat(line % 97)).into_bytes()).collect()
}

async fn all(mut attachment: Attachment) -> Vec<(Stream, Vec<u8>)> {
    let mut out: Vec<(Stream, Vec<u8>)> = Vec::new();
    while let Some(chunk) = timeout(SOON, attachment.next()).await.expect("output or its end") {
        match out.last_mut() {
            Some((stream, bytes)) if *stream == chunk.stream => bytes.extend_from_slice(&chunk.data),
            _ => out.push((chunk.stream, chunk.data.to_vec())),
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_reach_one_log_whole() {
    let bench = Bench::new(false, Settings { max_line: 50, ..Settings::default() }).await;
    let (out, err) = (numbered(5000), numbered(3000).repeat(2));
    let writers = [
        write(bench.shim(Stream::Stdout), [&out[..], b"no end"].concat()),
        write(bench.shim(Stream::Stderr), err.clone()),
    ];
    bench.io.connected().await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    bench.drained().await;
    let log = fs::read(bench.log()).unwrap();
    assert_eq!(joined(&log, "stdout"), [&out[..], b"no end"].concat());
    assert_eq!(joined(&log, "stderr"), err);
    let stats = bench.io.log().stats();
    assert_eq!(stats.bytes, u64::try_from(log.len()).unwrap());
    assert_eq!(stats.lines, u64::try_from(log.iter().filter(|byte| **byte == b'\n').count()).unwrap());
    assert_eq!((stats.dropped_bytes, stats.failures), (0, 0));
    assert!(stats.splits > 0);
    assert_eq!(fs::metadata(bench.log()).unwrap().permissions().mode() & 0o137, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_does_not_end_before_the_shim_came() {
    let bench = Bench::new(false, Settings::default()).await;
    write(bench.shim(Stream::Stdout), b"first\n".to_vec()).await.unwrap();
    // That writer is gone; the next one still reaches the log.
    write(bench.shim(Stream::Stdout), b"second\n".to_vec()).await.unwrap();
    assert!(!bench.io.is_drained());
    bench.io.connected().await.unwrap();
    bench.drained().await;
    assert_eq!(joined(&fs::read(bench.log()).unwrap(), "stdout"), b"first\nsecond\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_loses_and_tears_no_line() {
    let bench = Bench::new(false, Settings { max_line: 64, ..Settings::default() }).await;
    let bytes = numbered(60_000);
    let writer = write(bench.shim(Stream::Stdout), bytes.clone());
    bench.io.connected().await.unwrap();
    let mut rotated = Vec::new();
    while !writer.is_finished() {
        let old = bench.dir.path().join(format!("old.{}", rotated.len()));
        fs::rename(bench.log(), &old).unwrap();
        bench.io.log().reopen().await.unwrap();
        rotated.push(old);
    }
    writer.await.unwrap();
    bench.drained().await;
    rotated.push(bench.log());
    assert!(rotated.len() > 2, "rotated {} times", rotated.len());
    let whole: Vec<u8> = rotated
        .iter()
        .flat_map(|path| {
            let part = fs::read(path).unwrap();
            assert!(part.is_empty() || part.ends_with(b"\n"));
            part
        })
        .collect();
    assert!(joined(&whole, "stdout") == bytes, "{} rotations changed the stream", rotated.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_reopen_keeps_the_old_file() {
    let bench = Bench::new(false, Settings::default()).await;
    let old = bench.dir.path().join("old");
    fs::rename(bench.log(), &old).unwrap();
    fs::create_dir(bench.log()).unwrap();
    let error = bench.io.log().reopen().await.unwrap_err();
    assert!(error.to_string().starts_with("reopening the container log"), "{error}");
    write(bench.shim(Stream::Stdout), b"still here\n".to_vec()).await.unwrap();
    bench.io.connected().await.unwrap();
    bench.drained().await;
    assert_eq!(joined(&fs::read(old).unwrap(), "stdout"), b"still here\n");
}

#[tokio::test]
async fn a_log_is_not_opened_through_links_and_pipes() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "").unwrap();
    let link = dir.path().join("link");
    symlink(&target, &link).unwrap();
    let fifos = Fifos::create(dir.path(), "p", false, true).unwrap();
    let pipe = PathBuf::from(fifos.stdout());
    // With a reader, or opening fails for another reason.
    let _reader = fifos.open().unwrap();
    for path in [link, pipe, dir.path().to_path_buf(), PathBuf::from("/dev/null"), target.join("below")] {
        Log::open(Some(&path)).await.expect_err(&format!("{}", path.display()));
    }
    Log::open(Some(&dir.path().join("new/dirs/log"))).await.unwrap();
    assert_eq!(fs::metadata(dir.path().join("new/dirs")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_path_output_is_read_and_thrown_away() {
    let bench = Bench::with(TempDir::new().unwrap(), true, Settings::default(), Log::open(None).await.unwrap());
    let writer = write(bench.shim(Stream::Stdout), vec![b'x'; 4 << 20]);
    bench.io.connected().await.unwrap();
    timeout(SOON, writer).await.expect("nobody waits").unwrap();
    bench.drained().await;
    assert!(!bench.log().exists());
    bench.io.log().reopen().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_and_stops_nobody() {
    let dir = TempDir::new().unwrap();
    let disk = dir.path().join("pod");
    fs::create_dir(&disk).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=65536", "kevel-logs-test"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: cannot mount a small tmpfs");
        return;
    }
    let log = Log::open(Some(&disk.join("app/0.log"))).await.unwrap();
    let bench = Bench::with(dir, true, Settings::default(), log);
    let bytes = numbered(20_000);
    let writer = write(bench.shim(Stream::Stdout), bytes.clone());
    bench.io.connected().await.unwrap();
    let outcome = timeout(SOON, writer).await;
    bench.drained().await;
    let log = fs::read(bench.log()).unwrap();
    let stats = bench.io.log().stats();
    drop(bench.io);
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    outcome.expect("a full disk stops no container").unwrap();
    // What is kept are whole lines in their order: a short one may still fit after a long one did not.
    let mut printed = bytes.split_inclusive(|byte| *byte == b'\n');
    for line in joined(&log, "stdout").split_inclusive(|byte| *byte == b'\n') {
        assert!(printed.any(|one| one == line), "{}", String::from_utf8_lossy(line));
    }
    assert!(stats.dropped_bytes > 0 && stats.failures > 0, "{stats:?}");
    assert_eq!(stats.bytes, u64::try_from(log.len()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_what_they_asked_for_from_then_on() {
    let bench = Bench::new(false, Settings::default()).await;
    let both = bench.io.attach(true, true);
    let only_err = bench.io.attach(false, true);
    let (mut out, mut err) = (bench.shim(Stream::Stdout), bench.shim(Stream::Stderr));
    bench.io.connected().await.unwrap();
    out.write_all(b"out").unwrap();
    err.write_all(b"err").unwrap();
    drop((out, err));
    let mut seen = all(both).await;
    seen.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    assert_eq!(seen, [(Stream::Stdout, b"out".to_vec()), (Stream::Stderr, b"err".to_vec())]);
    assert_eq!(all(only_err).await, [(Stream::Stderr, b"err".to_vec())]);
    bench.drained().await;
    assert_eq!(all(bench.io.attach(true, true)).await, [], "after the end there is nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_let_go() {
    let patience = Duration::from_millis(50);
    let bench = Bench::new(true, Settings { patience, ..Settings::default() }).await;
    let sleeper = bench.io.attach(true, false);
    let reader = tokio::spawn(all(bench.io.attach(true, false)));
    let bytes = numbered(200_000);
    let writer = write(bench.shim(Stream::Stdout), bytes.clone());
    bench.io.connected().await.unwrap();
    timeout(SOON, writer).await.expect("the sleeper stops nobody").unwrap();
    bench.drained().await;
    let seen: Vec<u8> = reader.await.unwrap().into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert!(seen == bytes, "the reader gets all");
    let late: usize = all(sleeper).await.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(late <= 1 << 20, "{late} bytes waited for the sleeper");
    assert_eq!(joined(&fs::read(bench.log()).unwrap(), "stdout").len(), bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn input_ends_with_the_last_writer_only_when_closed() {
    let bench = Bench::new(false, Settings::default()).await;
    let stdin = bench.fifos.stdin();
    let mut process = fs::File::options().read(true).open(&stdin).unwrap();
    bench.io.connected().await.unwrap();
    for word in ["one ", "two"] {
        let sender = bench.io.stdin().await.unwrap();
        sender.writable().await.unwrap();
        assert_eq!(sender.try_write(word.as_bytes()).unwrap(), word.len());
    }
    bench.io.close_stdin().await;
    let text = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut process).unwrap());
    assert_eq!(timeout(SOON, text).await.expect("the input ends").unwrap(), "one two");
    bench.io.stdin().await.expect_err("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_goes_on_in_the_same_log() {
    let Bench { dir, fifos, io } = Bench::new(false, Settings::default()).await;
    // A shim holds both ends of its pipes, or its container would die with the daemon.
    let open = |path: String| fs::File::options().read(true).write(true).open(path).unwrap();
    let mut shim = [open(fifos.stdout()), open(fifos.stderr())];
    io.connected().await.unwrap();
    drop(io);
    shim[0].write_all(b"while nobody read\n").unwrap();
    let log = Log::open(Some(&dir.path().join("pod/app/0.log"))).await.unwrap();
    let io = Io::start(Fifos::at(dir.path(), "c1", true, false), log, &Settings::default()).unwrap();
    io.connected().await.unwrap();
    let mut attached = io.attach(true, false);
    shim[0].write_all(b"and then\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"and then\n") {
        seen.extend(timeout(SOON, attached.next()).await.unwrap().unwrap().data);
    }
    drop(shim);
    timeout(SOON, io.drained()).await.unwrap();
    assert_eq!(
        joined(&fs::read(dir.path().join("pod/app/0.log")).unwrap(), "stdout"),
        b"while nobody read\nand then\n"
    );
}

#[test]
fn pipes_are_private_replaced_and_removed() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("c1-stdout"), "a leftover").unwrap();
    let fifos = Fifos::create(dir.path(), "c1", false, false).unwrap();
    assert_eq!(fifos.stdin(), "");
    for path in [fifos.stdout(), fifos.stderr()] {
        let kind = fs::symlink_metadata(path).unwrap();
        assert!(kind.file_type().is_fifo());
        assert_eq!(kind.permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(Fifos::at(dir.path(), "c1", false, true).stderr(), "", "a terminal has one stream");
    fifos.remove().unwrap();
    fifos.remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let error = Fifos::create(Path::new("/nonexistent"), "c1", false, false).unwrap_err();
    assert_eq!(error.to_string(), "making the pipe /nonexistent/c1-stdout");
}

/// Not a promise, a measurement: run it by name with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    for line in [100, 1000, 100_000] {
        let bench = Bench::new(true, Settings::default()).await;
        let bytes = [vec![b'x'; line - 1], vec![b'\n']].concat().repeat((256 << 20) / line);
        let size = bytes.len();
        let start = std::time::Instant::now();
        let writer = write(bench.shim(Stream::Stdout), bytes);
        bench.io.connected().await.unwrap();
        writer.await.unwrap();
        timeout(4 * SOON, bench.io.drained()).await.unwrap();
        let seconds = start.elapsed().as_secs_f64();
        println!("lines of {line} bytes: {:.0} MB/s", size as f64 / seconds / 1e6);
    }
}
