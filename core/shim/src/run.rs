//! What a shim says of itself, and the way from its command line to the action.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use kevel_plugin::Registry;
use kevel_proto::{containerd::types::RuntimeInfo, shim::task::DeleteResponse};
use prost::Message as _;
use prost_types::Any;

use crate::{
    Error, Facts, GROUPS, Start,
    command::{self, Action},
    group, launch, serve, socket,
};

/// The most that is read from standard input, in bytes.
const INPUT: u64 = 10 << 20;

/// A shim. Everything but [`Shim::plugins`] runs in short-lived processes, and may block.
pub trait Shim {
    /// The runtime type that stands for it, e.g. `io.containerd.kevel.v1`.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;

    /// Adds its plugins to those that every shim has. Runs in the process that serves.
    fn plugins(&self, registry: &mut Registry);

    /// Ends and removes whatever is left of a container whose shim is gone.
    ///
    /// # Errors
    /// When something stays; the daemon is told.
    fn delete(&self, delete: &Delete) -> Result<Deleted, Error>;

    /// Says what it and the runtime behind it can do.
    ///
    /// # Errors
    /// When the options name a runtime that is not there.
    fn info(&self, info: &Info) -> Result<RuntimeInfo, Error>;

    /// The group of a container, whose members share one process; none for a process of its own.
    ///
    /// # Errors
    /// When the bundle cannot be read.
    fn group(&self, start: &Start) -> Result<Option<String>, Error> {
        group::of_bundle(&start.bundle, &GROUPS)
    }

    /// The process that serves has been started, and nobody has been told yet.
    ///
    /// # Errors
    /// What `start` then fails with; the process is killed.
    fn started(&self, start: &Start, pid: u32) -> Result<(), Error> {
        let _ = (start, pid);
        Ok(())
    }
}

/// What is to be deleted.
#[derive(Clone, Debug)]
pub struct Delete {
    /// What the command line and the environment say.
    pub facts: Facts,
    /// The container's bundle. The working directory may be that of another one in the group.
    pub bundle: PathBuf,
}

/// How what was deleted had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The first process.
    pub pid: u32,
    /// Its status.
    pub status: u32,
    /// When it ended.
    pub at: SystemTime,
}

impl Deleted {
    /// Ended by SIGKILL, now.
    pub fn killed(pid: u32) -> Self {
        Self { pid, status: 128 + 9, at: SystemTime::now() }
    }
}

/// What `-info` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// The options of a handler, if there are any.
    pub options: Option<Any>,
}

/// Does what the command line says.
pub fn main<S: Shim>(shim: S) -> ExitCode {
    match run(&shim) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(S::NAME, &error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the daemon reads errors there")]
fn complain(name: &str, error: &Error) {
    eprintln!("{name}: {}", error.chain());
}

fn run<S: Shim>(shim: &S) -> Result<(), Error> {
    let (action, facts) = command::parse(std::env::args().skip(1))?;
    let facts = facts.with_environment();
    let bundle = || std::env::current_dir().map_err(|error| Error::system("finding the working directory", error));
    match action {
        Action::Version => {
            let program = std::env::args().next().unwrap_or_default();
            let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
            say(format!("{program}:\n  Runtime: {}\n  Version: {}\n", S::NAME, S::VERSION).as_bytes())
        }
        Action::Info => {
            let input = input()?;
            let any = Any::decode(input.as_slice()).map_err(|error| Error::Parameters(format!("options: {error}")))?;
            let options = (!any.type_url.is_empty()).then_some(any);
            say(&shim.info(&Info { options })?.encode_to_vec())
        }
        Action::Start => {
            let start = Start::read(facts, &bundle()?, &input()?)?;
            say(&launch::launch(shim, &start)?)
        }
        Action::Delete => {
            let delete = Delete { bundle: bundle_of(&facts, &bundle()?), facts };
            let deleted = shim.delete(&delete)?;
            if let Some(socket) = launch::noted(&delete.bundle) {
                socket::remove_dead(&socket);
            }
            let Deleted { pid, status: exit_status, at } = deleted;
            say(&DeleteResponse { pid, exit_status, exited_at: Some(at.into()) }.encode_to_vec())
        }
        Action::Serve => serve::serve(shim, &facts, &bundle()?),
    }
}

/// The bundle of a container: daemons name it, or run us in the bundle of one of the group, beside which it lies.
fn bundle_of(facts: &Facts, working: &Path) -> PathBuf {
    if !facts.bundle.is_empty() {
        return working.join(&facts.bundle);
    }
    working.parent().unwrap_or(working).join(&facts.id)
}

fn input() -> Result<Vec<u8>, Error> {
    let mut input = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "limited by take")]
    let read = io::stdin().lock().take(INPUT + 1).read_to_end(&mut input);
    read.map_err(|error| Error::system("reading standard input", error))?;
    if input.len() as u64 > INPUT {
        return Err(Error::Parameters(format!("longer than {INPUT} bytes")));
    }
    Ok(input)
}

fn say(output: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(output).and_then(|()| stdout.flush()).map_err(|error| Error::system("answering", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_named_or_lie_beside() {
        let of = |bundle: &str| {
            let facts = Facts { id: "b".into(), bundle: bundle.into(), ..Facts::default() };
            bundle_of(&facts, Path::new("/s/n/a"))
        };
        assert_eq!(of(""), Path::new("/s/n/b"));
        assert_eq!(of("/x/b"), Path::new("/x/b"));
        assert_eq!(of("sub"), Path::new("/s/n/a/sub"));
    }
}
