//! `kevel-test-snapshotter FOLDER SOCKET`: a snapshotter on the crate `containerd-snapshots`, which serves until it is killed.
//! Snapshots are directories below FOLDER and overlay mounts of them; what is known of them lives as long as the process.
//! `snapshots` has the work, this file the process.

mod snapshots;

use std::{path::PathBuf, sync::Arc};

use containerd_snapshots::tonic::transport::Server;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use crate::snapshots::Directories;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(socket), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: kevel-test-snapshotter FOLDER SOCKET".into());
    };
    tokio::fs::create_dir_all(&folder).await?;
    let incoming = UnixListenerStream::new(UnixListener::bind(socket)?);
    let service = containerd_snapshots::server(Arc::new(Directories::new(folder)));
    Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}
