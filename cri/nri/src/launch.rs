//! Plugins that the daemon starts: each with its connection as file descriptor 3. One that ends is started again, after
//! a pause that grows while it keeps ending.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt as _, FdMapping};
use kevel_model::{Error, Result};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::{
    name,
    nri::Nri,
    register::{Origin, register},
};

/// The file descriptor that a plugin finds its connection at.
const SOCKET: i32 = 3;
/// The first pause before a plugin is started again; it doubles up to [`LONGEST`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, and how long a plugin must have run for the pause to be short again.
const LONGEST: Duration = Duration::from_secs(60);
/// A configuration file is not larger.
const CONFIG: u64 = 1 << 20;
/// What a file in WebAssembly begins with.
const WASM: &[u8; 4] = b"\0asm";

/// A plugin's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    path: PathBuf,
    index: String,
    name: String,
    config: String,
}

/// Finds programs in `plugins`, and their configuration in `configs`, in the order of their names. Blocks. What can't be
/// a plugin is logged and left out.
///
/// # Errors
/// When the folder can't be read; one that is missing has no plugins.
pub(crate) fn discover(plugins: &Path, configs: &Path) -> Result<Vec<Installed>> {
    let failed = |error| Error::io(format!("reading NRI plugins in {}", plugins.display()), error);
    let entries = match fs::read_dir(plugins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let program = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        if !program {
            continue;
        }
        match installed(&path, &file, configs) {
            Ok(plugin) => found.push(plugin),
            Err(reason) => tracing::warn!(path = %path.display(), reason, "not an NRI plugin"),
        }
    }
    found.sort_by(|one, other| (&one.index, &one.name).cmp(&(&other.index, &other.name)));
    Ok(found)
}

fn installed(path: &Path, file: &str, configs: &Path) -> Result<Installed, String> {
    let (index, name) = name::parse(file).map_err(|error| error.to_string())?;
    let mut magic = [0; WASM.len()];
    let begins = fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut magic));
    if begins.is_ok() && magic == *WASM {
        return Err("plugins in WebAssembly are not supported".to_owned());
    }
    let config = config(configs, file, name).map_err(|error| format!("reading its configuration: {error}"))?;
    Ok(Installed { path: path.to_owned(), index: index.to_owned(), name: name.to_owned(), config })
}

fn config(folder: &Path, file: &str, name: &str) -> io::Result<String> {
    for file in [format!("{file}.conf"), format!("{name}.conf")] {
        let path = folder.join(file);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(meta) if meta.len() > CONFIG => return Err(io::Error::other(format!("more than {CONFIG} bytes"))),
            _ => return fs::read_to_string(path),
        }
    }
    Ok(String::new())
}

/// Keeps a plugin running until `stop`, and its process is gone then. Tells `first` when it is ready, or has failed, for
/// the first time.
pub(crate) async fn keep(nri: Arc<Nri>, plugin: Installed, first: oneshot::Sender<()>, stop: CancellationToken) {
    let mut first = Some(first);
    let mut pause = PAUSE;
    loop {
        let since = Instant::now();
        let ready = || {
            if let Some(first) = first.take() {
                let _ = first.send(()); // nobody waits when the daemon is stopping
            }
        };
        let ended = run(&nri, &plugin, ready, &stop).await;
        drop(first.take());
        if stop.is_cancelled() {
            return;
        }
        let error = ended.err().map_or_else(|| "it ended".to_owned(), |error| error.chain());
        tracing::error!(plugin = %plugin.path.display(), error, "an NRI plugin is not there");
        if since.elapsed() >= LONGEST {
            pause = PAUSE;
        }
        if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Runs a plugin once, until it ends, loses its connection or `stop`. Its process is gone when this returns.
async fn run(nri: &Arc<Nri>, plugin: &Installed, ready: impl FnOnce(), stop: &CancellationToken) -> Result<()> {
    let failed = |doing: &str, error| Error::io(format!("{doing} NRI plugin {}", plugin.path.display()), error);
    let (mut child, stream) = start(plugin).map_err(|error| failed("starting", error))?;
    let given = Some((plugin.index.clone(), plugin.name.clone()));
    let origin = Origin { given, config: plugin.config.clone() };
    let registered = tokio::select! {
        registered = register(nri, stream, origin) => registered,
        status = child.wait() => Err(Error::unavailable(format!("it ended early: {status:?}"))),
        () = stop.cancelled() => Err(Error::cancelled("the daemon is stopping")),
    };
    let outcome = match registered {
        Ok(peer) => {
            ready();
            tokio::select! {
                () = peer.client.closed() => {}
                _ = child.wait() => {}
                () = stop.cancelled() => {}
            }
            peer.close();
            Ok(())
        }
        Err(error) => Err(error.context(format!("registering NRI plugin {}", plugin.path.display()))),
    };
    child.kill().await.map_err(|error| failed("ending", error))?;
    outcome
}

fn start(plugin: &Installed) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = std::process::Command::new(&plugin.path);
    command
        .env_clear()
        .env("NRI_PLUGIN_IDX", &plugin.index)
        .env("NRI_PLUGIN_NAME", &plugin.name)
        .env("NRI_PLUGIN_SOCKET", SOCKET.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    let mapping = FdMapping { parent_fd: theirs.into(), child_fd: SOCKET };
    command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
    let child = Command::from(command).kill_on_drop(true).spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_with_their_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let (plugins, configs) = (dir.path().join("plugins"), dir.path().join("conf.d"));
        assert_eq!(discover(&plugins, &configs).unwrap(), []);
        fs::create_dir(&plugins).unwrap();
        fs::create_dir(&configs).unwrap();
        for (file, mode, content) in [
            ("20-b", 0o755, "#!"),
            ("10-a", 0o755, "#!"),
            ("30-c", 0o644, "#!"),
            ("nonsense", 0o755, "#!"),
            ("40-wasm", 0o755, "\0asm\u{1}\0\0\0"),
        ] {
            fs::write(plugins.join(file), content).unwrap();
            fs::set_permissions(plugins.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(configs.join("10-a.conf"), "of 10-a").unwrap();
        fs::write(configs.join("a.conf"), "of a").unwrap();
        fs::write(configs.join("b.conf"), "of b").unwrap();
        let found = discover(&plugins, &configs).unwrap();
        let found: Vec<_> =
            found.iter().map(|one| (one.index.as_str(), one.name.as_str(), one.config.as_str())).collect();
        assert_eq!(found, [("10", "a", "of 10-a"), ("20", "b", "of b")]);
    }
}
