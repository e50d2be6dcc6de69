//! The two gRPC services of the CRI. They unpack a request, hand it on, and pack the answer; nothing else.

mod image;
mod runtime;
mod streaming;

use std::sync::Arc;

use kevel_proto::{
    MESSAGE_LIMIT,
    runtime::v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer},
};

use crate::server::Server;
pub use image::ImageRpc;
pub use runtime::RuntimeRpc;
pub use streaming::StreamingRuntime;

/// The gRPC service for pods and containers.
pub fn runtime_service(server: Arc<Server>) -> RuntimeServiceServer<RuntimeRpc> {
    let service = RuntimeServiceServer::new(RuntimeRpc::new(server));
    service.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
}

/// The gRPC service for images.
pub fn image_service(server: Arc<Server>) -> ImageServiceServer<ImageRpc> {
    let service = ImageServiceServer::new(ImageRpc::new(server));
    service.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
}
