//! CRIU, which runtimes run for a checkpoint: whether it is here and works, asked before anything is changed, and what it
//! said when it failed.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kevel_model::{Error, Result};
use tokio::{process::Command, sync::OnceCell};

/// The longest that `criu check` may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest log that is looked through, in bytes.
const LOG: u64 = 64 << 20;

/// CRIU as runtimes find it.
#[derive(Debug, Default)]
pub(crate) struct Criu {
    search: Vec<PathBuf>,
    works: OnceCell<()>,
}

impl Criu {
    /// CRIU in one of these directories.
    pub(crate) fn new(search: Vec<PathBuf>) -> Self {
        Self { search, works: OnceCell::new() }
    }

    /// Whether it works with this kernel. Once it does it is not asked again; one that is missing may be installed.
    pub(crate) async fn check(&self) -> Result<()> {
        self.works.get_or_try_init(|| self.ask()).await.copied()
    }

    async fn ask(&self) -> Result<()> {
        let missing = || Error::failed_precondition("criu is not in the daemon's PATH; checkpoint and restore need it");
        let criu = self.find().ok_or_else(missing)?;
        let mut command = Command::new(&criu);
        command.arg("check").stdin(Stdio::null()).kill_on_drop(true);
        let failed = |error| Error::io(format!("running {} check", criu.display()), error);
        let late = |_| Error::deadline_exceeded(format!("{} check did not end within {LIMIT:?}", criu.display()));
        let output = tokio::time::timeout(LIMIT, command.output()).await.map_err(late)?.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.lines().find(|line| line.contains("Error")).unwrap_or("it does not say why").into();
        let message = format!("criu does not work on this node: {}", said.chars().take(200).collect::<String>());
        Err(Error::failed_precondition(message))
    }

    fn find(&self) -> Option<PathBuf> {
        let runs =
            |path: &PathBuf| path.metadata().is_ok_and(|at| at.is_file() && at.permissions().mode() & 0o111 != 0);
        self.search.iter().filter(|dir| dir.is_absolute()).map(|dir| dir.join("criu")).find(runs)
    }
}

/// The last error in one of CRIU's logs. Blocks.
pub(super) fn complaint(log: &Path) -> Option<String> {
    let log = BufReader::new(File::open(log).ok()?.take(LOG));
    let errors = log.lines().map_while(std::result::Result::ok).filter(|line| line.contains("Error ("));
    // The last one only says that it failed.
    let errors: Vec<String> = errors.take(1000).filter(|line| !line.contains("FAILED")).collect();
    errors.last().map(|line| line.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path, text: &str) {
        // Beside it first: a file that is open for writing somewhere can't be run.
        let new = dir.join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(new, dir.join("criu")).unwrap();
    }

    #[tokio::test]
    async fn it_is_asked_until_it_works() {
        let dir = tempfile::tempdir().unwrap();
        let criu = Criu::new(vec!["relative".into(), dir.path().to_owned()]);
        let error = criu.check().await.unwrap_err();
        assert!(error.to_string().contains("not in the daemon's PATH"), "{error}");
        program(dir.path(), "echo 'Warn (x)' >&2; echo 'Error (criu/vdso.c:1): no' >&2; exit 1");
        let error = criu.check().await.unwrap_err();
        assert_eq!(error.code(), kevel_model::Code::FailedPrecondition);
        assert!(error.to_string().ends_with("Error (criu/vdso.c:1): no"), "{error}");
        program(dir.path(), "[ \"$1\" = check ]");
        criu.check().await.unwrap();
        std::fs::remove_file(dir.path().join("criu")).unwrap();
        criu.check().await.unwrap();
    }

    #[test]
    fn a_log_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("dump.log");
        assert_eq!(complaint(&log), None);
        std::fs::write(
            &log,
            "(0.1) fine\n(0.2) Error (criu/mem.c:1): bad\n(0.3) Error (criu/x.c:2): Dumping FAILED.\n",
        )
        .unwrap();
        assert_eq!(complaint(&log).as_deref(), Some("(0.2) Error (criu/mem.c:1): bad"));
    }
}
