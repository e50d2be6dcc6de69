//! Reading a directory of configurations. A broken file is reported and costs nobody else anything.

use super::{ConfigError, NetworkList, PluginConf};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// No sensible configuration is longer.
const MAX_FILE: u64 = 1 << 20;
/// Files beyond this number in one directory are not looked at.
const MAX_FILES: usize = 1024;

/// What a directory held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The valid networks, in the order of their file names, at most as many as were asked for.
    pub networks: Vec<NetworkList>,
    /// The file of each network.
    pub files: Vec<PathBuf>,
    /// Files that were no valid networks.
    pub errors: Vec<FileError>,
    /// How many files had a name of a configuration, valid or not.
    pub candidates: usize,
}

/// A file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("reading network configuration {path}", path = path.display())]
pub struct FileError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub source: ConfigError,
}

/// Reads `*.conflist`, `*.conf` and `*.json` in `dir` in the order of their names and keeps the first `max` valid
/// networks; 0 means all. A directory that does not exist is an empty one.
pub fn load(dir: &Path, max: usize) -> Loaded {
    let mut loaded = Loaded::default();
    let files = match candidates(dir, &["conflist", "conf", "json"]) {
        Ok(files) => files,
        Err(error) => {
            loaded.errors.push(FileError { path: dir.to_owned(), source: ConfigError::Read(error) });
            return loaded;
        }
    };
    loaded.candidates = files.len();
    for path in files {
        if max != 0 && loaded.networks.len() == max {
            break;
        }
        let read = read_network(&path).and_then(|list| unique(list, &loaded));
        match read {
            Ok(list) => {
                loaded.networks.push(list);
                loaded.files.push(path);
            }
            Err(source) => loaded.errors.push(FileError { path, source }),
        }
    }
    loaded
}

fn read_network(path: &Path) -> Result<NetworkList, ConfigError> {
    let bytes = read_bounded(path)?;
    if path.extension().is_none_or(|ext| ext != "conflist") {
        return NetworkList::parse_single(&bytes);
    }
    let mut list = NetworkList::parse(&bytes)?;
    if !list.load_only_inlined {
        let folder = path.with_file_name(&list.name);
        list.append(read_folder(&folder)?);
    }
    if list.plugins.is_empty() {
        return Err(ConfigError::NoPlugins { folder: list.name });
    }
    Ok(list)
}

/// Plugins that others added to a network (spec section 1, `loadOnlyInlinedPlugins`): `*.conf` in the folder named
/// like it. All of them must be valid, a chain with a link missing would not be what was asked for.
fn read_folder(folder: &Path) -> Result<Vec<PluginConf>, ConfigError> {
    let mut plugins = Vec::new();
    for path in candidates(folder, &["conf"]).map_err(ConfigError::Read)? {
        let plugin = PluginConf::parse(&read_bounded(&path)?).map_err(|e| name_file(e, &path))?;
        plugins.push(plugin);
    }
    Ok(plugins)
}

/// The error is about a file in the folder, while the caller will name the network's own file.
fn name_file(error: ConfigError, path: &Path) -> ConfigError {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match error {
        ConfigError::Field(e) => {
            ConfigError::Field(crate::FieldError::new(format!("{} of plugin file {name}", e.field), e.reason))
        }
        ConfigError::Syntax(e) => {
            ConfigError::Read(io::Error::new(io::ErrorKind::InvalidData, format!("plugin file {name}: {e}")))
        }
        other => other,
    }
}

fn unique(list: NetworkList, loaded: &Loaded) -> Result<NetworkList, ConfigError> {
    match loaded.networks.iter().position(|n| n.name == list.name) {
        None => Ok(list),
        Some(i) => Err(ConfigError::Duplicate { name: list.name, taken_by: loaded.files[i].display().to_string() }),
    }
}

/// Files with one of the extensions, sorted by name. Symbolic links count, as mounted config maps consist of them.
fn candidates(dir: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut files = Vec::new();
    for entry in entries.take(MAX_FILES) {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if extensions.contains(&extension) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ConfigError> {
    // Without blocking: a fifo in the directory must not stop the daemon.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(ConfigError::Read)?;
    read_file(file).map_err(ConfigError::Read)?.ok_or(ConfigError::TooLarge { limit: MAX_FILE })
}

fn read_file(file: File) -> io::Result<Option<Vec<u8>>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    crate::cache::read_limited(file, MAX_FILE)
}
