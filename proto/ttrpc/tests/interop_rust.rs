//! Both directions against the `ttrpc` crate, which lives in a package of its own beside the end-to-end tests. Needs
//! its dependencies from the registry or the cache.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod harness;

use harness::peer;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The peer, built once into the target directory.
async fn program() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || async {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ttrpc-peer-rust");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/foreign/ttrpc-peer/Cargo.toml");
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&target);
        peer::run(&mut command).await;
        target.join("debug/ttrpc-peer")
    };
    BUILT.get_or_init(build).await.clone()
}

#[tokio::test]
async fn our_client_calls_a_server_of_the_ttrpc_crate() {
    peer::check_foreign_server(&program().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_ttrpc_crate_calls_our_server() {
    peer::check_foreign_client(&program().await).await;
}
