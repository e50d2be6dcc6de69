//! Older configuration documents rewritten into the current version.
//!
//! 1 and 2 name the same plugins, 1 by id alone; 3 splits the CRI plugin and renames some; 4 turns `[grpc]`, `[ttrpc]`,
//! `[debug] address` and `[metrics]` into server plugins. See the configuration reference of containerd 2 for the
//! mapping; every value that has a place in the current version keeps it.

use toml::{Table, Value};

use super::merge;

/// The current version.
pub(crate) const VERSION: u32 = 4;

const CRI: &str = "io.containerd.grpc.v1.cri";
const IMAGES: &str = "io.containerd.cri.v1.images";
const RUNTIME: &str = "io.containerd.cri.v1.runtime";
const GRPC: &str = "io.containerd.server.v1.grpc";
const GRPC_TCP: &str = "io.containerd.server.v1.grpc-tcp";
const TTRPC: &str = "io.containerd.server.v1.ttrpc";
const DEBUG: &str = "io.containerd.server.v1.debug";
const METRICS: &str = "io.containerd.server.v1.metrics";

/// Why a document can't be migrated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum MigrateError {
    /// A version of the future, or no number.
    #[error("version {0} is not one of 1 to {VERSION}")]
    Version(String),
    /// A value that must be a table is none.
    #[error("{0} must be a table")]
    NotATable(String),
}

/// Rewrites a document of any version into the current one; answers warnings too.
pub(crate) fn migrate(mut document: Table) -> Result<(Table, Vec<String>), MigrateError> {
    let version = match document.get("version") {
        None => 1,
        Some(Value::Integer(version @ 1..=4)) => *version,
        Some(other) => return Err(MigrateError::Version(other.to_string())),
    };
    let mut warnings = Vec::new();
    if version < 2 {
        names_to_uris(&mut document, &mut warnings)?;
    }
    if version < 3 {
        rename_plugins(&mut document)?;
        split_cri(&mut document)?;
    }
    if version < 4 {
        servers(&mut document)?;
    }
    document.insert("version".to_owned(), Value::Integer(VERSION.into()));
    Ok((document, warnings))
}

fn table<'a>(parent: &'a mut Table, key: &str) -> Result<&'a mut Table, MigrateError> {
    parent
        .entry(key.to_owned())
        .or_insert_with(|| Value::Table(Table::new()))
        .as_table_mut()
        .ok_or_else(|| MigrateError::NotATable(key.to_owned()))
}

fn take_table(parent: &mut Table, key: &str) -> Result<Option<Table>, MigrateError> {
    match parent.remove(key) {
        None => Ok(None),
        Some(Value::Table(table)) => Ok(Some(table)),
        Some(_) => Err(MigrateError::NotATable(key.to_owned())),
    }
}

/// Moves keys from one table to another, with new names; what is absent stays absent.
fn carry(from: &mut Table, to: &mut Table, keys: &[(&str, &str)]) {
    for (old, new) in keys {
        if let Some(value) = from.remove(*old) {
            to.insert((*new).to_owned(), value);
        }
    }
}

/// Version 1 names plugins by id.
fn names_to_uris(document: &mut Table, warnings: &mut Vec<String>) -> Result<(), MigrateError> {
    let uri = |id: &str| match id {
        "cri" => Some(CRI),
        "linux" => None, // the runtime of version 1, gone for long
        "bolt" => Some("io.containerd.metadata.v1.bolt"),
        "scheduler" => Some("io.containerd.gc.v1.scheduler"),
        "cgroups" => Some("io.containerd.monitor.v1.cgroups"),
        "restart" => Some("io.containerd.internal.v1.restart"),
        "opt" => Some("io.containerd.internal.v1.opt"),
        "diff-service" => Some("io.containerd.service.v1.diff-service"),
        "overlayfs" => Some("io.containerd.snapshotter.v1.overlayfs"),
        "native" => Some("io.containerd.snapshotter.v1.native"),
        "btrfs" => Some("io.containerd.snapshotter.v1.btrfs"),
        "devmapper" => Some("io.containerd.snapshotter.v1.devmapper"),
        _ => None,
    };
    let mut moved = Table::new();
    for (id, value) in take_table(document, "plugins")?.unwrap_or_default() {
        match uri(&id) {
            Some(uri) => {
                moved.insert(uri.to_owned(), value);
            }
            None if id.contains('.') => {
                moved.insert(id, value);
            }
            None => warnings.push(format!("plugins.{id} of version 1 has no successor and is ignored")),
        }
    }
    if !moved.is_empty() {
        document.insert("plugins".to_owned(), Value::Table(moved));
    }
    for key in ["disabled_plugins", "required_plugins"] {
        let Some(Value::Array(list)) = document.get_mut(key) else { continue };
        for entry in list {
            if let Some(uri) = entry.as_str().and_then(uri) {
                *entry = Value::String(uri.to_owned());
            }
        }
    }
    Ok(())
}

/// Plugins that moved between versions 2 and 3.
fn rename_plugins(document: &mut Table) -> Result<(), MigrateError> {
    let plugins = table(document, "plugins")?;
    let renames = [
        ("io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups"),
        ("io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"),
        ("io.containerd.tracing.processor.v1.otlp", "io.containerd.tracing.processor.v1.otlp"),
    ];
    for (old, new) in renames {
        if let Some(value) = plugins.remove(old) {
            plugins.insert(new.to_owned(), value);
        }
    }
    let sched_core = plugins
        .get_mut("io.containerd.runtime.v2.task")
        .and_then(Value::as_table_mut)
        .and_then(|task| task.remove("sched_core"));
    if sched_core == Some(Value::Boolean(true)) {
        let shim = table(plugins, "io.containerd.shim.v1.manager")?;
        let env = shim.entry("env").or_insert_with(|| Value::Array(vec![]));
        if let Value::Array(env) = env {
            env.push(Value::String("SCHED_CORE=1".to_owned()));
        }
    }
    Ok(())
}

/// The CRI plugin of version 2 became three.
fn split_cri(document: &mut Table) -> Result<(), MigrateError> {
    let plugins = table(document, "plugins")?;
    let Some(mut cri) = take_table(plugins, CRI)? else { return Ok(()) };
    let mut images = Table::new();
    carry(
        &mut cri,
        &mut images,
        &[
            ("registry", "registry"),
            ("image_decryption", "image_decryption"),
            ("max_concurrent_downloads", "max_concurrent_downloads"),
            ("image_pull_progress_timeout", "image_pull_progress_timeout"),
            ("image_pull_with_sync_fs", "image_pull_with_sync_fs"),
            ("stats_collect_period", "stats_collect_period"),
        ],
    );
    if let Some(sandbox) = cri.remove("sandbox_image") {
        table(&mut images, "pinned_images")?.insert("sandbox".to_owned(), sandbox);
    }
    if let Some(mut containerd) = take_table(&mut cri, "containerd")? {
        carry(
            &mut containerd,
            &mut images,
            &[
                ("snapshotter", "snapshotter"),
                ("disable_snapshot_annotations", "disable_snapshot_annotations"),
                ("discard_unpacked_layers", "discard_unpacked_layers"),
            ],
        );
        rename_handlers(&mut containerd, &mut images)?;
        cri.insert("containerd".to_owned(), Value::Table(containerd));
    }
    if let Some(Value::Table(cni)) = cri.get_mut("cni")
        && let Some(bin_dir) = cni.remove("bin_dir")
    {
        cni.entry("bin_dirs").or_insert(Value::Array(vec![bin_dir]));
    }
    let mut grpc = Table::new();
    let streaming = [
        "disable_tcp_service",
        "stream_server_address",
        "stream_server_port",
        "stream_idle_timeout",
        "enable_tls_streaming",
        "x509_key_pair_streaming",
    ];
    carry(&mut cri, &mut grpc, &streaming.map(|key| (key, key)));
    cri.remove("systemd_cgroup");
    cri.remove("enable_cdi");
    for (uri, part) in [(IMAGES, images), (RUNTIME, cri), (CRI, grpc)] {
        if !part.is_empty() {
            let mut older = Table::new();
            older.insert(uri.to_owned(), Value::Table(part));
            // What the document says under the new name already wins.
            let newer = take_table(plugins, uri)?;
            merge::tables(plugins, older);
            if let Some(newer) = newer {
                merge::tables(table(plugins, uri)?, newer);
            }
        }
    }
    Ok(())
}

/// Keys of runtime handlers that moved between versions 2 and 3.
fn rename_handlers(containerd: &mut Table, images: &mut Table) -> Result<(), MigrateError> {
    for old in ["default_runtime", "untrusted_workload_runtime"] {
        containerd.remove(old);
    }
    let Some(Value::Table(runtimes)) = containerd.get_mut("runtimes") else { return Ok(()) };
    for (handler, runtime) in runtimes.iter_mut() {
        let Some(runtime) = runtime.as_table_mut() else {
            return Err(MigrateError::NotATable(format!("containerd.runtimes.{handler}")));
        };
        for (old, new) in [("sandbox_mode", "sandboxer"), ("sandbox_controller", "sandboxer")] {
            if let Some(value) = runtime.remove(old) {
                runtime.insert(new.to_owned(), value);
            }
        }
        if let Some(snapshotter) = runtime.get("snapshotter").filter(|name| name.as_str() != Some("")) {
            let platforms = table(images, "runtime_platforms")?;
            table(platforms, handler)?.entry("snapshotter").or_insert(snapshotter.clone());
        }
        for gone in ["runtime_engine", "runtime_root", "privileged_without_host_devices_all"] {
            runtime.remove(gone);
        }
    }
    Ok(())
}

/// The listeners became plugins in version 4.
fn servers(document: &mut Table) -> Result<(), MigrateError> {
    let grpc = take_table(document, "grpc")?;
    let ttrpc = take_table(document, "ttrpc")?;
    let metrics = take_table(document, "metrics")?;
    let mut debug = Table::new();
    if let Some(Value::Table(old)) = document.get_mut("debug") {
        carry(old, &mut debug, &[("address", "address"), ("uid", "uid"), ("gid", "gid")]);
    }
    let plugins = table(document, "plugins")?;
    if let Some(mut grpc) = grpc {
        let mut tcp = Table::new();
        carry(
            &mut grpc,
            &mut tcp,
            &[
                ("tcp_address", "address"),
                ("tcp_tls_ca", "tls_ca"),
                ("tcp_tls_cert", "tls_cert"),
                ("tcp_tls_key", "tls_key"),
                ("tcp_tls_common_name", "tls_common_name"),
            ],
        );
        if let (Some(address), None) = (grpc.get("address").and_then(Value::as_str), &ttrpc) {
            let ttrpc = Value::String(format!("{address}.ttrpc"));
            table(plugins, TTRPC)?.entry("address").or_insert(ttrpc);
        }
        put(plugins, GRPC, grpc)?;
        put(plugins, GRPC_TCP, tcp)?;
    }
    if let Some(ttrpc) = ttrpc {
        put(plugins, TTRPC, ttrpc)?;
    }
    if let Some(metrics) = metrics {
        let mut address = metrics;
        let mut histogram = Table::new();
        carry(&mut address, &mut histogram, &[("grpc_histogram", "grpc_histogram")]);
        put(plugins, METRICS, address)?;
        put(plugins, "io.containerd.metrics.v1.grpc-prometheus", histogram)?;
    }
    put(plugins, DEBUG, debug)
}

fn put(plugins: &mut Table, uri: &str, part: Table) -> Result<(), MigrateError> {
    if part.is_empty() {
        return Ok(());
    }
    let given = take_table(plugins, uri)?;
    let merged = table(plugins, uri)?;
    *merged = part;
    if let Some(given) = given {
        merge::tables(merged, given);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, want: &str) {
        let (migrated, _) = migrate(old.parse().unwrap()).unwrap();
        let mut want: Table = want.parse().unwrap();
        want.insert("version".to_owned(), Value::Integer(4));
        assert_eq!(migrated, want, "{}", toml::to_string(&migrated).unwrap());
    }

    #[test]
    fn version_4_stays() {
        check("version = 4\nroot = \"/x\"", "root = \"/x\"");
    }

    #[test]
    fn version_3_listeners_become_plugins() {
        check(
            "version = 3\n[grpc]\naddress = \"/a.sock\"\nuid = 1\ntcp_address = \"127.0.0.1:1\"\n[metrics]\naddress = \"127.0.0.1:2\"\ngrpc_histogram = true\n[debug]\nlevel = \"debug\"\naddress = \"/d.sock\"",
            "[debug]\nlevel = \"debug\"\n[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/a.sock\"\nuid = 1\n[plugins.\"io.containerd.server.v1.grpc-tcp\"]\naddress = \"127.0.0.1:1\"\n[plugins.\"io.containerd.server.v1.ttrpc\"]\naddress = \"/a.sock.ttrpc\"\n[plugins.\"io.containerd.server.v1.metrics\"]\naddress = \"127.0.0.1:2\"\n[plugins.\"io.containerd.metrics.v1.grpc-prometheus\"]\ngrpc_histogram = true\n[plugins.\"io.containerd.server.v1.debug\"]\naddress = \"/d.sock\"",
        );
    }

    #[test]
    fn version_2_cri_becomes_three_plugins() {
        check(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause\"\nenable_selinux = true\nstream_server_port = \"10\"\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/c\"\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/b\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\nruntime_type = \"io.containerd.kata.v2\"\nsnapshotter = \"nydus\"\nsandbox_mode = \"shim\"",
            "[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"native\"\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/c\"\n[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"pause\"\n[plugins.\"io.containerd.cri.v1.images\".runtime_platforms.kata]\nsnapshotter = \"nydus\"\n[plugins.\"io.containerd.cri.v1.runtime\"]\nenable_selinux = true\n[plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"/b\"]\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.kata]\nruntime_type = \"io.containerd.kata.v2\"\nsnapshotter = \"nydus\"\nsandboxer = \"shim\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\nstream_server_port = \"10\"",
        );
    }

    #[test]
    fn version_1_names_become_uris() {
        let (migrated, warnings) = migrate(
            "disabled_plugins = [\"cri\"]\n[plugins.linux]\nshim = \"x\"\n[plugins.scheduler]\nmutation_threshold = 5"
                .parse()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(migrated["disabled_plugins"][0].as_str(), Some(CRI));
        assert_eq!(migrated["plugins"]["io.containerd.gc.v1.scheduler"]["mutation_threshold"].as_integer(), Some(5));
        assert_eq!(warnings, ["plugins.linux of version 1 has no successor and is ignored"]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let check = |text: &str, want: MigrateError| assert_eq!(migrate(text.parse().unwrap()), Err(want));
        check("version = 5", MigrateError::Version("5".into()));
        check("version = 0", MigrateError::Version("0".into()));
        check("version = 3\ngrpc = 1", MigrateError::NotATable("grpc".into()));
        check("version = 2\nplugins = 1", MigrateError::NotATable("plugins".into()));
        check("version = 2\n[plugins]\n\"io.containerd.grpc.v1.cri\" = 1", MigrateError::NotATable(CRI.into()));
    }
}
