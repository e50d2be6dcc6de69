//! What runtime handlers can do, asked once for each.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::join_all;
use kevel_proto::runtime::v1::{RuntimeHandler, RuntimeHandlerFeatures};
use serde_json::Value;

use crate::{config::Handler, server::Server};

/// Features by handler.
#[derive(Default)]
pub(crate) struct Features {
    known: RwLock<BTreeMap<String, RuntimeHandlerFeatures>>,
}

impl Features {
    /// What a handler can do; `None` while it has not said.
    pub(crate) fn of(&self, handler: &str) -> Option<RuntimeHandlerFeatures> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(handler).copied()
    }
}

impl Server {
    /// Asks the shim of every handler, and again when the handlers change; one that does not say can do nothing special.
    pub async fn learn_features(self: Arc<Self>) {
        let mut handlers = self.settings.follow_handlers();
        loop {
            let now = handlers.borrow_and_update().clone();
            join_all(now.iter().map(|(_, handler)| self.ask(handler))).await;
            if handlers.changed().await.is_err() {
                return;
            }
        }
    }

    async fn ask(&self, handler: &Handler) {
        let runtime = match handler.config.runtime_path.as_str() {
            "" => &handler.runtime.name,
            path => path,
        };
        match self.introspection.runtime_info(runtime, handler.runtime.options.clone()).await {
            Ok(info) => {
                let document = info.features.and_then(|any| serde_json::from_slice(&any.value).ok());
                let features = read(&document.unwrap_or(Value::Null));
                let mut known = self.features.known.write().unwrap_or_else(PoisonError::into_inner);
                known.insert(handler.name.clone(), features);
            }
            Err(error) => tracing::info!(handler = handler.name, error = error.chain(), "features are not known"),
        }
    }

    /// Whether a handler can make mounts read-only with everything below them.
    pub(crate) fn recursive_read_only(&self, handler: &str) -> bool {
        self.features.of(handler).unwrap_or_default().recursive_read_only_mounts
    }

    /// Whether a handler said that it cannot give pods user namespaces. One that said nothing may try.
    pub(crate) fn lacks_user_namespaces(&self, handler: &str) -> bool {
        self.features.of(handler).is_some_and(|features| !features.user_namespaces)
    }

    /// Every handler with its features; the default one under the empty name, too.
    pub(crate) fn runtime_handlers(&self) -> Vec<RuntimeHandler> {
        let handlers = self.settings.handlers();
        let default = &handlers.config.default_runtime_name;
        let own = handlers.iter().map(|(name, _)| (name.as_str(), name.as_str()));
        let all = std::iter::once(("", default.as_str())).chain(own);
        let features = |of: &str| Some(self.features.of(of).unwrap_or_default());
        all.map(|(name, of)| RuntimeHandler { name: name.to_owned(), features: features(of) }).collect()
    }
}

/// From the features document of the OCI runtime specification.
fn read(document: &Value) -> RuntimeHandlerFeatures {
    let has = |pointer: &str, word: &str| {
        let list = document.pointer(pointer).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|one| one == word))
    };
    let maps = document.pointer("/linux/mountExtensions/idmap/enabled").and_then(Value::as_bool) == Some(true);
    // Recursive read-only mounts came with Linux 5.12, overlays of id-mapped layers with 5.19.
    RuntimeHandlerFeatures {
        recursive_read_only_mounts: has("/mountOptions", "rro") && kernel_is((5, 12)),
        user_namespaces: has("/linux/namespaces", "user") && maps && kernel_is((5, 19)),
    }
}

fn kernel_is(least: (u32, u32)) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= least
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn features_documents() {
        let features = read(&json!({ "mountOptions": ["ro", "rro"] }));
        assert_eq!(features.recursive_read_only_mounts, kernel_is((5, 12)));
        let linux = |maps: bool| json!({ "linux": { "namespaces": ["mount", "user"], "mountExtensions": { "idmap": { "enabled": maps } } } });
        assert_eq!(read(&linux(true)).user_namespaces, kernel_is((5, 19)));
        assert!(!read(&linux(false)).user_namespaces, "namespaces without mapped mounts are not what is asked");
        assert!(!read(&json!({ "linux": { "namespaces": ["user"] } })).user_namespaces);
        assert_eq!(read(&Value::Null), RuntimeHandlerFeatures::default());
    }
}
