//! What a daemon behind a socket says of itself.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_contract::introspection::{Backend, Introspection, PluginInfo, RuntimeInfo, Server};
use kevel_model::{Any, Error, Filters, Result};
use kevel_plugin::Report;
use kevel_proto::{
    any,
    containerd::{
        services::introspection::v1::{PluginInfoRequest, PluginsRequest, introspection_client::IntrospectionClient},
        types::{self, RuntimeRequest},
    },
};
use tonic::transport::Channel;

use crate::{
    Remote,
    convert::{any_read, any_wire, introspection, need},
    remote::{answer, client},
};

/// The introspection service behind a socket.
pub fn introspection(remote: &Remote) -> Introspection {
    Introspection::new(remote.target(), RemoteIntrospection(remote.clone()))
}

struct RemoteIntrospection(Remote);

impl RemoteIntrospection {
    fn client(&self) -> IntrospectionClient<Channel> {
        client!(IntrospectionClient<Channel>, self.0)
    }
}

#[async_trait]
impl Backend for RemoteIntrospection {
    async fn plugins(&self, filters: &Filters) -> Result<Vec<Arc<Report>>> {
        let message = PluginsRequest { filters: filters.sources().to_vec() };
        let found = answer(self.client().plugins(message).await)?.plugins;
        Ok(found.into_iter().map(|found| Arc::new(introspection::read(found))).collect())
    }

    async fn server(&self) -> Result<Server> {
        let server = answer(self.client().server(()).await)?;
        Ok(Server { uuid: server.uuid, pid: server.pid, pidns: server.pidns })
    }

    async fn plugin_info(&self, kind: &str, id: &str, options: Option<Any>) -> Result<PluginInfo> {
        let (r#type, id) = (kind.to_owned(), id.to_owned());
        let message = PluginInfoRequest { r#type, id, options: options.map(any_wire) };
        let info = answer(self.client().plugin_info(message).await)?;
        let plugin = info.plugin.map(|plugin| Arc::new(introspection::read(plugin)));
        Ok(PluginInfo { plugin, extra: info.extra.map(any_read) })
    }

    async fn runtime_info(&self, runtime: &str, options: Option<Any>) -> Result<RuntimeInfo> {
        let message = RuntimeRequest { runtime_path: runtime.to_owned(), options: options.map(any_wire) };
        let options = Some(any_read(any::pack(&message)));
        let info = self.plugin_info("io.containerd.runtime.v2", "task", options).await?;
        let extra = any_wire(need("extra", info.extra)?);
        let info: types::RuntimeInfo =
            any::unpack(&extra).map_err(|cause| Error::internal("reading what the shim says").with_source(cause))?;
        Ok(introspection::runtime_read(info))
    }
}
