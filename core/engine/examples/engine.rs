//! The engine behind the command line that OCI runtimes have: create, start, state, kill, delete, exec, pause, resume, run
//! and features. For tests, which run the same cases against runc, and to try things by hand. What it must remember from
//! one call to the next it keeps below `--root`; the library itself keeps nothing.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use kevel_engine::{Container, Engine, Error, Options, Record, Status, seal, spec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};

fn main() {
    let outcome = seal::seal().map_err(anyhow::Error::from).and_then(|()| run());
    match outcome {
        Ok(code) => std::process::exit(code),
        Err(err) => {
            let mut stderr = io::stderr().lock();
            let _nobody_reads = writeln!(stderr, "engine: {err:#}");
            std::process::exit(255)
        }
    }
}

/// Flags with and without a value, and the rest.
struct Line {
    flags: HashMap<String, String>,
    rest: Vec<String>,
}

impl Line {
    fn parse() -> Result<Self> {
        const BARE: [&str; 6] = ["no-pivot", "no-new-keyring", "force", "all", "detach", "f"];
        let mut line = Self { flags: HashMap::new(), rest: Vec::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            // What follows the container's name of exec is its command.
            if line.rest.first().is_some_and(|verb| verb == "exec") && line.rest.len() > 1 {
                line.rest.push(arg);
                continue;
            }
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                line.rest.push(arg);
                continue;
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None if BARE.contains(&name) => (name, String::new()),
                None => (name, args.next().with_context(|| format!("{name} needs a value"))?),
            };
            line.flags.insert(name.to_owned(), value);
        }
        Ok(line)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.flags.contains_key(name)
    }

    fn options(&self) -> Options {
        Options {
            no_pivot: self.has("no-pivot"),
            no_new_keyring: self.has("no-new-keyring"),
            preserve_fds: self.get("preserve-fds").and_then(|text| text.parse().ok()).unwrap_or(0),
            ..Options::default()
        }
    }

    fn write_pid(&self, pid: i32) -> Result<()> {
        self.get("pid-file").map_or(Ok(()), |path| fs::write(path, pid.to_string()).context("write the pid file"))
    }
}

/// What is kept of one container.
struct Kept {
    dir: PathBuf,
}

impl Kept {
    fn load(&self) -> Result<Container> {
        let text = fs::read(self.dir.join("state.json")).context("the container does not exist")?;
        let record: Record = serde_json::from_slice(&text)?;
        Ok(Container::from_record(record))
    }

    fn save(&self, container: &Container) -> Result<()> {
        let new = self.dir.join("state.new");
        fs::write(&new, serde_json::to_vec(&container.record)?)?;
        Ok(fs::rename(new, self.dir.join("state.json"))?)
    }

    fn gate(&self) -> PathBuf {
        self.dir.join("gate")
    }
}

fn run() -> Result<i32> {
    let line = Line::parse()?;
    let root = PathBuf::from(line.get("root").unwrap_or("/run/kevel-engine"));
    let verb = line.rest.first().map(String::as_str).unwrap_or_default();
    if verb == "features" {
        writeln!(io::stdout(), "{:#}", kevel_engine::features())?;
        return Ok(0);
    }
    let id = line.rest.get(1).context("which container?")?;
    if id.contains('/') || id.starts_with('.') {
        bail!("{id:?} is no name for a container");
    }
    let kept = Kept { dir: root.join(id) };
    match verb {
        "create" => create(&line, id, &kept).map(|_| 0),
        "run" => {
            let mut container = create(&line, id, &kept)?;
            start(&kept, &mut container)?;
            if line.has("detach") {
                return Ok(0);
            }
            let code = container.wait().context("no child")?.code();
            delete(&kept, &mut container, false)?;
            Ok(code)
        }
        "start" => {
            let mut container = kept.load()?;
            start(&kept, &mut container).map(|()| 0)
        }
        "exec" => exec(&line, &kept),
        "delete" => match kept.load() {
            Ok(mut container) => delete(&kept, &mut container, line.has("force") || line.has("f")).map(|()| 0),
            Err(_) if line.has("force") || line.has("f") => Ok(0),
            Err(err) => Err(err),
        },
        "state" => {
            writeln!(io::stdout(), "{:#}", kept.load()?.state()?)?;
            Ok(0)
        }
        "kill" => {
            let name = line.rest.get(2).map_or("TERM", String::as_str);
            kept.load()?.kill(signal(name)?, line.has("all"))?;
            Ok(0)
        }
        "pause" => Ok(kept.load()?.pause().map(|()| 0)?),
        "resume" => Ok(kept.load()?.resume().map(|()| 0)?),
        "update" => {
            let text = fs::read(line.get("resources").context("--resources")?)?;
            Ok(kept.load()?.update(&serde_json::from_slice(&text)?).map(|()| 0)?)
        }
        other => bail!("unknown command {other:?}"),
    }
}

fn signal(name: &str) -> Result<i32> {
    let named = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
    ];
    let short = name.trim_start_matches("SIG");
    let found = named.iter().find(|(known, _)| *known == short).map(|(_, number)| *number);
    found.map_or_else(|| name.parse().with_context(|| format!("unknown signal {name:?}")), Ok)
}

fn create(line: &Line, id: &str, kept: &Kept) -> Result<Container> {
    let bundle = PathBuf::from(line.get("bundle").or(line.get("b")).unwrap_or("."));
    let parsed = spec::load(&bundle)?;
    let engine = Engine::new()?;
    fs::create_dir_all(kept.dir.parent().context("--root is /")?)?;
    fs::DirBuilder::new().mode(0o711).create(&kept.dir).context("the container exists already")?;
    let made = made(line, id, kept, &bundle, &engine, &parsed.value);
    if made.is_err() {
        fs::remove_dir_all(&kept.dir)?;
    }
    made
}

fn made(
    line: &Line,
    id: &str,
    kept: &Kept,
    bundle: &Path,
    engine: &Engine,
    parsed: &kevel_engine::Spec,
) -> Result<Container> {
    let terminal = parsed.process().as_ref().and_then(kevel_engine::ProcessSpec::terminal) == Some(true);
    if terminal != line.has("console-socket") {
        bail!("process.terminal and --console-socket go together");
    }
    rustix::fs::mknodat(rustix::fs::CWD, kept.gate(), rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
    let gate = OpenOptions::new().read(true).write(true).open(kept.gate())?;
    let options = Options { gate: Some(gate.into()), ..line.options() };
    let mut container = engine.create(id, bundle, parsed, options)?;
    if let (Some(console), Some(path)) = (container.take_console(), line.get("console-socket")) {
        send(&console, path)?;
    }
    kept.save(&container)?;
    line.write_pid(container.record.pid)?;
    Ok(container)
}

fn start(kept: &Kept, container: &mut Container) -> Result<()> {
    if container.status()? != Status::Created || !kept.gate().exists() {
        bail!("the container is {}, cannot start", container.status()?.as_str());
    }
    OpenOptions::new().write(true).open(kept.gate())?.write_all(b"0")?;
    fs::remove_file(kept.gate())?;
    for warning in container.started() {
        warn(&warning);
    }
    kept.save(container)
}

fn delete(kept: &Kept, container: &mut Container, force: bool) -> Result<()> {
    for warning in container.delete(force)? {
        warn(&warning);
    }
    Ok(fs::remove_dir_all(&kept.dir)?)
}

fn warn(warning: &Error) {
    let _nobody_reads = writeln!(io::stderr(), "engine: {warning}");
}

fn exec(line: &Line, kept: &Kept) -> Result<i32> {
    let container = kept.load()?;
    let text = match line.get("process").or(line.get("p")) {
        Some(path) => fs::read(path)?,
        None => {
            // As the container's own process, with another command.
            let whole = serde_json::to_value(&container.record)?;
            let mut process = whole["spec"]["process"].clone();
            process["args"] = serde_json::json!(line.rest[2..]);
            process["terminal"] = serde_json::json!(false);
            if let Some(cwd) = line.get("cwd") {
                process["cwd"] = serde_json::json!(cwd);
            }
            process.to_string().into_bytes()
        }
    };
    let parsed = spec::parse_process(&text)?;
    let process = Engine::new()?.exec(&container, &parsed.value, line.options())?;
    line.write_pid(process.pid)?;
    if let (Some(console), Some(path)) = (&process.console, line.get("console-socket")) {
        send(console, path)?;
    }
    if line.has("detach") {
        return Ok(0);
    }
    Ok(process.wait().context("no child")?.code())
}

/// Hands a terminal to who listens at the socket.
fn send(console: &OwnedFd, path: &str) -> Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let fds = [std::os::fd::AsFd::as_fd(console)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(&socket, &[io::IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
