//! Asking the client for credentials, over the stream that it named.

use std::time::Duration;

use kevel_client::convert::{any_read, any_wire};
use kevel_contract::{
    Scope,
    transfer::{Credentials, Registry},
};
use kevel_model::{Error, Reference, Result};
use kevel_proto::{
    any,
    containerd::types::transfer::{AuthRequest, AuthResponse, AuthType},
};

use super::Transfer;

/// How long the client may take; somebody may be typing a password.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks once and puts the answer into `registry`.
pub(super) async fn ask(
    service: &Transfer,
    scope: &Scope,
    stream: &str,
    reference: &str,
    registry: &mut Registry,
) -> Result<()> {
    let mut stream = service.streams.take(scope, stream).await?;
    let host = match Reference::complete(reference)?.registry() {
        "docker.io" => "registry-1.docker.io".to_owned(),
        host => host.to_owned(),
    };
    let question = AuthRequest { host, reference: reference.to_owned(), wwwauthenticate: Vec::new() };
    let gone = || Error::unavailable("asking for credentials: the client closed the stream");
    let asked = async {
        stream.tx.send(any_read(any::pack(&question))).await.map_err(|_| gone())?;
        stream.rx.recv().await.ok_or_else(gone)
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.map_err(|_| {
        Error::deadline_exceeded(format!("asking for credentials: the client did not answer within {PATIENCE:?}"))
    })??;
    let answer = any::unpack(&any_wire(answer))
        .map_err(|cause| Error::invalid_argument("answer to the question for credentials").with_source(cause))?;
    apply(answer, registry);
    Ok(())
}

fn apply(answer: AuthResponse, registry: &mut Registry) {
    let credentials = |username, secret, registry_token| Some(Credentials { username, secret, registry_token });
    match answer.auth_type() {
        AuthType::None => {}
        AuthType::Credentials => registry.credentials = credentials(answer.username, answer.secret, String::new()),
        AuthType::Refresh => registry.credentials = credentials(String::new(), answer.secret, String::new()),
        AuthType::Header => match answer.secret.strip_prefix("Bearer ") {
            Some(token) => registry.credentials = credentials(String::new(), String::new(), token.to_owned()),
            None => {
                registry.headers.insert("Authorization".to_owned(), answer.secret);
            }
        },
    }
}
