//! `containerd.services.transfer.v1.Transfer`: what a transfer does follows from the types of its source and
//! destination. Archives, progress and questions for credentials go over streams that the client registered.

mod archive;
mod auth;
mod progress;
mod registry;
mod store;
#[expect(clippy::module_inception, reason = "modules are named after their RPC")]
mod transfer;

use kevel_contract::stream::StreamManager;
use kevel_proto::containerd::services::transfer::v1::{
    TransferRequest,
    transfer_server::{self, TransferServer},
};
use tonic::Request;

use crate::{Offer, call};

/// The transfer service. A transfer ends when its caller hangs up: what goes on for others, or has to, is the business
/// of the service behind.
#[derive(Clone)]
pub struct Transfer {
    /// Does the transfers.
    pub service: kevel_contract::transfer::Transfer,
    /// Has the clients' streams.
    pub streams: StreamManager,
}

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<TransferRequest>) -> call::Answer<()> {
        call::read(request, |scope, message| transfer::transfer(self, scope, message)).await
    }
}

impl Transfer {
    /// The service as a plugin offers it.
    pub fn offer(self) -> Offer {
        let server = TransferServer::new(self)
            .max_decoding_message_size(kevel_proto::MESSAGE_LIMIT)
            .max_encoding_message_size(kevel_proto::MESSAGE_LIMIT);
        Offer::grpc(move |routes| {
            routes.add_service(server.clone());
        })
    }
}
