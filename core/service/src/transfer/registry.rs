//! What `OCIRegistry` messages say.

use kevel_client::convert::need_text;
use kevel_contract::{Scope, transfer::Registry};
use kevel_model::Result;
use kevel_proto::containerd::types::transfer::OciRegistry;

use super::{Transfer, auth};

/// How to talk to the registry. If the client answers questions for credentials it is asked now, once.
pub(super) async fn read(service: &Transfer, scope: &Scope, registry: &OciRegistry) -> Result<Registry> {
    need_text("reference", &registry.reference)?;
    let resolver = registry.resolver.clone().unwrap_or_default();
    let mut read = Registry {
        config_paths: Some(resolver.host_dir).filter(|dir| !dir.is_empty()).map(Into::into).into_iter().collect(),
        credentials: None,
        headers: resolver.headers,
        plain_http: resolver.default_scheme == "http",
    };
    if !resolver.auth_stream.is_empty() {
        auth::ask(service, scope, &resolver.auth_stream, &registry.reference, &mut read).await?;
    }
    Ok(read)
}
