//! `keveld publish`: what a shim without ttrpc calls to tell the daemon of an event.

use std::{
    io::Read as _,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use kevel_client::Remote;
use kevel_contract::event::Envelope;
use kevel_model::{Any, Namespace};
use prost::Message as _;

use crate::{boot, cli::Cli};

/// An event is refused when it is larger, in bytes.
const MAX_EVENT: u64 = 4 << 20;
/// How long the daemon may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads a typed event from standard input and forwards it to the daemon.
pub(crate) fn run(cli: &Cli, namespace: &str, topic: &str) -> anyhow::Result<()> {
    let namespace = Namespace::new(namespace).context("--namespace")?;
    let mut bytes = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "limited by take")]
    std::io::stdin().take(MAX_EVENT).read_to_end(&mut bytes).context("reading the event from standard input")?;
    let event = prost_types::Any::decode(bytes.as_slice()).context("the event on standard input is no Any message")?;
    let address = match &cli.address {
        Some(address) => address.clone(),
        None => boot::grpc_address(&boot::configuration(cli)?.config),
    };
    let envelope = Envelope {
        timestamp: SystemTime::now(),
        namespace,
        topic: topic.to_owned(),
        event: Any::new(event.type_url, event.value),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let daemon = Remote::new("keveld", &address)?.deadline(DEADLINE);
        kevel_client::events(&daemon).forward(envelope).await
    })?;
    Ok(())
}
