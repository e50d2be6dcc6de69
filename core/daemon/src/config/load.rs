//! Reading configuration files: versions, imports, unknown keys.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Config, merge, migrate, migrate::MigrateError};

/// A file is refused when it is larger, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Imports go this deep.
const MAX_DEPTH: usize = 8;
/// Imports name at most this many files.
const MAX_FILES: usize = 256;

/// What was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The merged configuration.
    pub config: Config,
    /// Keys at the top level that nothing reads.
    pub unknown_keys: Vec<String>,
    /// What migration could not carry over or had to say.
    pub warnings: Vec<String>,
    /// Every file read, in order.
    pub files: Vec<PathBuf>,
}

/// Why a configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A file can't be read.
    #[error("reading configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too large.
    #[error("configuration {path} is larger than {MAX_FILE} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not TOML.
    #[error("configuration {path} is not TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A file's version is not known, or a value in it can't be migrated.
    #[error("configuration {path}: {source}")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MigrateError,
    },
    /// Too many files, or files that import each other.
    #[error("configuration {path}: imports go too deep or name too many files")]
    Imports {
        /// The file.
        path: PathBuf,
    },
    /// A value has the wrong type.
    #[error("configuration {path}: {message}")]
    Value {
        /// The first file.
        path: PathBuf,
        /// Which key and why.
        message: String,
    },
}

/// Reads a file and what it imports. A file that does not exist is the default configuration if `optional`.
pub(crate) fn load(path: &Path, optional: bool) -> Result<Loaded, LoadError> {
    if optional && !path.exists() {
        return Ok(Loaded { config: Config::default(), unknown_keys: vec![], warnings: vec![], files: vec![] });
    }
    let mut reader = Reader::default();
    reader.read(path, 0)?;
    let (config, unknown_keys) = decode(reader.merged, path)?;
    Ok(Loaded { config, unknown_keys, warnings: reader.warnings, files: reader.files })
}

/// Reads one document without imports.
#[cfg(test)]
pub(crate) fn parse(text: &str, path: &Path) -> Result<Loaded, LoadError> {
    let (document, warnings) = document(text, path)?;
    let (config, unknown_keys) = decode(document, path)?;
    Ok(Loaded { config, unknown_keys, warnings, files: vec![path.to_owned()] })
}

fn decode(document: toml::Table, path: &Path) -> Result<(Config, Vec<String>), LoadError> {
    let mut unknown = Vec::new();
    let config = serde_ignored::deserialize(toml::Value::Table(document), |key| unknown.push(key.to_string()))
        .map_err(|error: toml::de::Error| LoadError::Value {
            path: path.to_owned(),
            message: error.to_string().trim().replace('\n', " "),
        })?;
    Ok((config, unknown))
}

fn document(text: &str, path: &Path) -> Result<(toml::Table, Vec<String>), LoadError> {
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| LoadError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim().to_owned(),
    })?;
    migrate(document).map_err(|source| LoadError::Migrate { path: path.to_owned(), source })
}

#[derive(Default)]
struct Reader {
    merged: toml::Table,
    warnings: Vec<String>,
    files: Vec<PathBuf>,
}

impl Reader {
    fn read(&mut self, path: &Path, depth: usize) -> Result<(), LoadError> {
        if self.files.iter().any(|read| read == path) {
            return Ok(()); // files may import each other; each counts once
        }
        if depth > MAX_DEPTH || self.files.len() >= MAX_FILES {
            return Err(LoadError::Imports { path: path.to_owned() });
        }
        let text = read_file(path)?;
        self.files.push(path.to_owned());
        let (mut document, warnings) = document(&text, path)?;
        self.warnings.extend(warnings.into_iter().map(|warning| format!("{}: {warning}", path.display())));
        let imports = match document.remove("imports") {
            Some(toml::Value::Array(imports)) => imports,
            _ => Vec::new(),
        };
        merge::tables(&mut self.merged, document);
        for import in imports.iter().filter_map(toml::Value::as_str) {
            for file in expand(path, import)? {
                self.read(&file, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The files that an import names, sorted. `*` may stand in the last part of the path; a plain path must exist.
fn expand(from: &Path, import: &str) -> Result<Vec<PathBuf>, LoadError> {
    let path = from.parent().unwrap_or(Path::new("/")).join(import);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !name.contains('*') {
        return Ok(vec![path]);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => return Err(LoadError::Read { path: folder.to_owned(), source }),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.file_name().and_then(|file| file.to_str()).is_some_and(|file| wildcard(&name, file)))
        .collect();
    files.sort();
    Ok(files)
}

/// Whether `name` matches `pattern`, in which `*` stands for anything.
fn wildcard(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| wildcard(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_relative_sorted_and_merged() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        write(
            "config.toml",
            "version = 4\nroot = \"/a\"\nimports = [\"conf.d/*.toml\"]\ndisabled_plugins = [\"a.b\"]\n",
        );
        write("conf.d/2.toml", "version = 4\nroot = \"/c\"\ndisabled_plugins = [\"c.d\"]\n");
        write("conf.d/1.toml", "version = 3\nroot = \"/b\"\n[grpc]\naddress = \"/x.sock\"\n");
        write("conf.d/readme", "no toml");
        let loaded = load(&dir.path().join("config.toml"), false).unwrap();
        assert_eq!(loaded.config.root, PathBuf::from("/c"));
        assert_eq!(loaded.config.disabled_plugins, ["a.b", "c.d"]);
        assert_eq!(loaded.config.plugins["io.containerd.server.v1.grpc"]["address"].as_str(), Some("/x.sock"));
        assert_eq!(loaded.files.len(), 3);
    }

    #[test]
    fn wrong_files_say_where() {
        let check = |text: &str, want: &str| {
            let error = parse(text, Path::new("/etc/x.toml")).unwrap_err().to_string();
            assert!(error.contains("/etc/x.toml") && error.contains(want), "{text}: {error}");
        };
        check("version = ", "not TOML");
        check("version = 99", "version 99");
        check("version = \"4\"", "version");
        check("version = 4\noom_score = \"high\"", "oom_score");
        check("version = 4\nplugins = 3", "plugins");
        check("version = 4\ndisabled_plugins = \"cri\"", "disabled_plugins");
        check("version = 4\n[debug]\nlevel = 3", "level");
        check("version = 4\n[plugins]\n\"io.containerd.grpc.v1.cri\" = 5", "cri");
        check("version = 4\nroot = 1", "root");
        assert!(load(Path::new("/nonexistent/config.toml"), false).is_err());
        assert!(load(Path::new("/nonexistent/config.toml"), true).is_ok());
    }

    #[test]
    fn unknown_keys_are_named() {
        let loaded = parse("version = 4\nroto = \"/x\"\n[debug]\nlvl = \"x\"", Path::new("/etc/x.toml")).unwrap();
        assert_eq!(loaded.unknown_keys, ["roto", "debug.lvl"]);
    }
}
