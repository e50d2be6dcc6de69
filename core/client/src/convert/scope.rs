//! The scope of a call in gRPC metadata: `containerd-namespace` and `containerd-lease`.

use kevel_contract::Scope;
use kevel_model::{Error, Namespace, Result};
use tonic::metadata::{MetadataMap, MetadataValue};

/// Metadata key of the namespace.
pub const NAMESPACE: &str = "containerd-namespace";
/// Metadata key of the lease.
pub const LEASE: &str = "containerd-lease";

/// Adds a scope to metadata.
pub fn wire(scope: &Scope, metadata: &mut MetadataMap) -> Result<()> {
    let value = |key: &str, text: &str| {
        MetadataValue::try_from(text)
            .map_err(|_| Error::invalid_argument(format!("{key} {text:?} has characters that metadata can't carry")))
    };
    metadata.insert(NAMESPACE, value(NAMESPACE, scope.namespace.as_str())?);
    if let Some(lease) = &scope.lease {
        metadata.insert(LEASE, value(LEASE, lease)?);
    }
    Ok(())
}

/// The scope that metadata names. A missing namespace is "failed precondition", as in containerd.
pub fn read(metadata: &MetadataMap) -> Result<Scope> {
    let Some(name) = text(metadata, NAMESPACE)? else {
        return Err(Error::failed_precondition("namespace is required"));
    };
    let namespace = Namespace::new(name).map_err(|error| Error::from(error).context("namespace validation"))?;
    Ok(Scope { namespace, lease: text(metadata, LEASE)?.map(str::to_owned) })
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Result<Option<&'a str>> {
    let text = metadata.get(key).map(MetadataValue::to_str).transpose();
    let text = text.map_err(|_| Error::invalid_argument(format!("metadata {key} is not printable ASCII")))?;
    Ok(text.filter(|text| !text.is_empty()))
}
