//! Both directions against the Go implementation. Needs `go`, and its module cache or a module proxy.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod harness;

use harness::{Site, peer, soon};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The Go peer, built once into the target directory.
async fn program() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = || async {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ttrpc-peer-go");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        let mut command = Command::new("go");
        command.current_dir(sources).args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
        peer::run(&mut command).await;
        program
    };
    BUILT.get_or_init(build).await.clone()
}

#[tokio::test]
async fn our_client_calls_a_go_server() {
    peer::check_foreign_server(&program().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_client_calls_our_server() {
    peer::check_foreign_client(&program().await).await;
}

#[tokio::test]
async fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run the peer as another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // A copy, as the target directory may be closed to others; by `cp`, as a descriptor open for writing here could be
    // inherited by a process that another test starts, and the copy could then not be executed (ETXTBSY).
    let copy = directory.path().join("peer");
    peer::run(Command::new("cp").arg(program().await).arg(&copy)).await;
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    for path in [directory.path(), &copy, &socket] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    for (same_uid, admitted) in [(true, false), (false, true)] {
        let site = Site::with(|server| if same_uid { server.require_same_uid() } else { server });
        let serving = site.server.serve(&listener, site.shutdown.clone());
        let mut command = Command::new(&copy);
        command.arg("call").arg(&socket).uid(65534).gid(65534).kill_on_drop(true);
        let calling = async {
            let output = soon(command.output()).await.unwrap();
            site.shutdown.cancel();
            output
        };
        let (output, ()) = tokio::join!(calling, serving);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), admitted, "same uid: {same_uid}: {said}");
        assert_eq!(
            said.contains("closed") || said.contains("broken pipe") || said.contains("reset"),
            !admitted,
            "{said}"
        );
    }
}
