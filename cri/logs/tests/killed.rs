//! What one daemon leaves to the next: a daemon that is killed while containers talk, in another process, loses and doubles
//! nothing; and what that costs while it runs. This process writes what a shim would.
#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kevel_cri_logs::{Fifos, Io, Log, Settings};
use tempfile::TempDir;

/// Tells the other process its directory.
const DIR: &str = "KEVEL_TEST_LOGS_DIR";
const ROUNDS: u64 = 200;
/// What each stream says in a round: more than is read at once, and than fits into a pipe.
const SAYS: usize = 256 << 10;
/// Short enough for many lines to be split.
const MAX_LINE: usize = 300;
const SOON: Duration = Duration::from_secs(60);

fn log(dir: &Path) -> PathBuf {
    dir.join("pod/app/0.log")
}

async fn start(dir: &Path) -> Io {
    let log = Log::open(Some(&log(dir))).await.unwrap();
    let settings = Settings { max_line: MAX_LINE, ..Settings::default() };
    let io = Io::start(Fifos::at(dir, "c1", false, false), log, &settings).unwrap();
    io.connected().await.unwrap();
    io
}

/// The daemon: another test starts it, and kills it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other process of a_daemon_that_is_killed_loses_and_doubles_nothing"]
async fn daemon() {
    #[expect(clippy::disallowed_methods, reason = "how this process is told what to do")]
    let Some(dir) = std::env::var_os(DIR) else { return };
    start(Path::new(&dir)).await.drained().await;
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "daemon", "--ignored"]).env(DIR, dir).stdout(Stdio::null()).spawn().unwrap()
}

/// Numbers that look random; the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Less than one of them.
    fn any(&mut self, limits: [u64; 4]) -> usize {
        let limit = limits[usize::try_from(self.below(4)).unwrap()];
        usize::try_from(self.below(limit)).unwrap()
    }
}

/// Writes lines of all lengths in pieces of all sizes, so many bytes and a few each time it is told to; answers all of them.
fn talk(mut pipe: fs::File, seed: u64, rounds: mpsc::Receiver<()>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut dice, mut said, mut written, mut line) = (Dice(seed), Vec::new(), 0, 0);
        for () in rounds {
            let goal = said.len() + SAYS;
            while said.len() < goal {
                said.extend(format!("{line} {}\n", "x".repeat(dice.any([1, 40, 200, 2000]))).into_bytes());
                line += 1;
            }
            // Not to the end of a line.
            while written < said.len() - 3 {
                let end = (written + 1 + dice.any([10, 300, 5000, 200_000])).min(said.len() - 3);
                pipe.write_all(&said[written..end]).unwrap();
                written = end;
            }
        }
        pipe.write_all(&said[written..]).unwrap();
        said
    })
}

/// Lets the log grow by so much, and then a little.
fn until_longer(dir: &Path, by: u64, then: u64) {
    let size = || fs::metadata(log(dir)).map_or(0, |file| file.len());
    let (before, begun) = (size(), Instant::now());
    while size() < before + by {
        assert!(begun.elapsed() < SOON, "the log stays at {} bytes", size());
        thread::yield_now();
    }
    for _ in 0..then {
        std::hint::black_box(size());
    }
}

/// The bytes of one stream, put together as kubelet does.
fn joined(log: &[u8], stream: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let mut parts = line.splitn(4, |byte| *byte == b' ').skip(1);
        let (name, tag, text) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        if name == stream.as_bytes() {
            assert!(text.len() <= MAX_LINE + 1 && text.ends_with(b"\n"), "{}", String::from_utf8_lossy(line));
            out.extend(if tag == b"F" { text } else { &text[..text.len() - 1] });
        }
    }
    out
}

fn assert_same(read: &[u8], written: &[u8], stream: &str) {
    let at = read.iter().zip(written).position(|(one, other)| one != other).unwrap_or(read.len().min(written.len()));
    let show =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[at.saturating_sub(50)..(at + 50).min(bytes.len())]).into_owned();
    assert!(read == written, "{stream}, byte {at} of {}: {:?} and not {:?}", written.len(), show(read), show(written));
}

#[test]
fn a_daemon_that_is_killed_loses_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let fifos = Fifos::create(dir.path(), "c1", false, false).unwrap();
    let (mut tell, mut talkers) = (Vec::new(), Vec::new());
    for (seed, path) in [(1, fifos.stdout()), (2, fifos.stderr())] {
        // A shim holds both ends of its pipes.
        let pipe = fs::File::options().read(true).write(true).open(path).unwrap();
        let (sender, rounds) = mpsc::channel();
        tell.push(sender);
        talkers.push(talk(pipe, seed, rounds));
    }
    let (mut dice, mut rotated) = (Dice(3), Vec::new());
    for round in 0..ROUNDS {
        let mut child = spawn(dir.path());
        tell.iter().for_each(|talker| talker.send(()).unwrap());
        until_longer(dir.path(), dice.below(u64::try_from(SAYS).unwrap()), dice.below(300));
        child.kill().unwrap();
        child.wait().unwrap();
        // What kubelet does before it asks for a new file; it may be killed as well.
        if round % 5 == 0 {
            let old = dir.path().join(format!("pod/app/0.log.{round}"));
            fs::rename(log(dir.path()), &old).unwrap();
            rotated.push(old);
        }
    }
    drop(tell);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let said: Vec<_> = runtime.block_on(async {
        let io = start(dir.path()).await;
        let said = talkers.into_iter().map(|talker| talker.join().unwrap()).collect();
        tokio::time::timeout(SOON, io.drained()).await.unwrap();
        said
    });
    rotated.push(log(dir.path()));
    let whole: Vec<u8> = rotated.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    for (stream, said) in ["stdout", "stderr"].into_iter().zip(&said) {
        assert_same(&joined(&whole, stream), said, stream);
    }
}

/// A stream of one container, as a shim has it: both ends of the pipe.
fn shim(dir: &Path) -> fs::File {
    let fifos = Fifos::create(dir, "c1", false, false).unwrap();
    fs::File::options().read(true).write(true).open(fifos.stdout()).unwrap()
}

/// Waits until all that was written is read, and for whatever else.
async fn until_read(pipe: &fs::File, and: impl Fn() -> bool) {
    let begun = Instant::now();
    while rustix::io::ioctl_fionread(pipe).unwrap() > 0 || !and() {
        assert!(begun.elapsed() < SOON, "it stays as it is");
        tokio::task::yield_now().await;
    }
}

/// Waits until nobody writes to the log any more: whoever is still busy with what he read has the spool until then.
async fn until_released(dir: &Path) {
    let spool = fs::File::open(dir.join("c1-stdout.spool")).unwrap();
    let lock = move || rustix::fs::flock(&spool, rustix::fs::FlockOperation::LockExclusive);
    tokio::task::spawn_blocking(lock).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_of_a_line_is_not_lost_with_a_daemon_that_stops() {
    let dir = TempDir::new().unwrap();
    let mut pipe = shim(dir.path());
    for part in ["one\ntwo", " of ", "two"] {
        pipe.write_all(part.as_bytes()).unwrap();
        let io = start(dir.path()).await;
        until_read(&pipe, || true).await;
        drop(io);
        until_released(dir.path()).await;
        assert_eq!(joined(&fs::read(log(dir.path())).unwrap(), "stdout"), b"one\n");
    }
    let io = start(dir.path()).await;
    drop(pipe);
    tokio::time::timeout(SOON, io.drained()).await.unwrap();
    assert_eq!(joined(&fs::read(log(dir.path())).unwrap(), "stdout"), b"one\ntwo of two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_takes_no_room() {
    let dir = TempDir::new().unwrap();
    let mut pipe = shim(dir.path());
    let io = start(dir.path()).await;
    let bytes = b"a line of some length\n".repeat(400_000);
    let written = bytes.clone();
    let pipe = tokio::task::spawn_blocking(move || pipe.write_all(&written).map(|()| pipe)).await.unwrap().unwrap();
    let spool = || fs::metadata(dir.path().join("c1-stdout.spool")).unwrap();
    // Some is given back at once, the rest in the pause.
    until_read(&pipe, || spool().blocks() * 512 <= 64 << 10).await;
    assert!(spool().len() > u64::try_from(bytes.len()).unwrap());
    drop(pipe);
    tokio::time::timeout(SOON, io.drained()).await.unwrap();
    assert!(joined(&fs::read(log(dir.path())).unwrap(), "stdout") == bytes);
    io.fifos().remove().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the log stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_it_output_is_logged_all_the_same() {
    let (dir, logs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=32768", "kevel-logs-test"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("SKIPPED: cannot mount a small tmpfs");
        return;
    }
    let mut pipe = shim(dir.path());
    let log = Log::open(Some(&log(logs.path()))).await.unwrap();
    let io = Io::start(Fifos::at(dir.path(), "c1", false, false), log, &Settings::default()).unwrap();
    io.connected().await.unwrap();
    let bytes = b"a line of some length\n".repeat(100_000);
    let written = bytes.clone();
    let talk = tokio::task::spawn_blocking(move || pipe.write_all(&written));
    let outcome = tokio::time::timeout(SOON, talk).await;
    let drained = tokio::time::timeout(SOON, io.drained()).await;
    drop(io);
    assert!(Command::new("umount").arg("-l").arg(dir.path()).status().unwrap().success());
    outcome.expect("the container does not wait").unwrap().unwrap();
    drained.unwrap();
    let read = fs::read(logs.path().join("pod/app/0.log")).unwrap();
    assert!(joined(&read, "stdout") == bytes);
}
