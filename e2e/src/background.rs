//! A foreign program that serves while a test runs: a proxy plugin's backend, another daemon.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{program, wait};

/// A running program; killed when dropped.
pub struct Background {
    program: PathBuf,
    arguments: Vec<String>,
    socket: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Background {
    /// Starts a program of `hack/install-deps` and waits until it answers on its socket. What it says goes to a file beside
    /// that.
    pub fn start(name: &str, arguments: &[&str], socket: &Path) -> anyhow::Result<Self> {
        let mut this = Self {
            program: program::find(name)?,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            socket: socket.to_owned(),
            log: socket.with_extension("log"),
            child: None,
        };
        this.launch()?;
        Ok(this)
    }

    /// Starts it again after [`Background::kill`], on the socket's path, which a dead one may have left.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let _ = fs::remove_file(&self.socket);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        self.child = Some(child);
        let ready = wait::until("a program to listen", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            match ended {
                Some(status) => Some(Err(status)),
                None => UnixStream::connect(&self.socket).is_ok().then_some(Ok(())),
            }
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("{} ended with {status}:\n{}", self.program.display(), self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_none()))
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the program does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Freezes it: its socket takes connections, and nobody answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the program does not run")?;
        program::run(Path::new("/bin/kill"), &[signal, &child.id().to_string()])?.ok().map(drop)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.program.display(), self.log());
        }
        if self.child.is_some() {
            let _ = self.kill();
        }
    }
}
