//! `kevel-test-clients cri|containerd SOCKET IMAGE CGROUP`: the published Rust clients against a daemon. Each goes through what
//! its users do, removes what it made, and fails at the first answer that is not what it must be.
//!
//! `cri` pulls IMAGE and runs a pod with the crate `k8s-cri`; `containerd` runs a container from the image that is there then
//! with the crate `containerd-client`. CGROUP is the parent of what they run.

mod containerd;
mod cri;

/// Any error; the first one ends the program.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [client, socket, image, cgroup] = arguments.as_slice() else {
        return Err("usage: kevel-test-clients cri|containerd SOCKET IMAGE CGROUP".into());
    };
    let channel = containerd_client::connect(socket).await?;
    match client.as_str() {
        "cri" => cri::run(channel, image, cgroup).await,
        "containerd" => containerd::run(channel, image, cgroup).await,
        other => Err(format!("no client is called {other}").into()),
    }
}

/// Fails when two things are not the same.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, want: T) -> Result<()> {
    if is == want { Ok(()) } else { Err(format!("{what}: {is:?} instead of {want:?}").into()) }
}
