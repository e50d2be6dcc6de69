//! `containerd.services.streaming.v1.Streaming`, and the stream manager behind it.

mod manager;
mod stream;

pub use manager::Manager;

use kevel_contract::stream::StreamManager;
use tonic::Streaming as Messages;

crate::call::service! {
    /// The streaming service.
    Streaming over StreamManager as StreamingServer in kevel_proto::containerd::services::streaming::v1::streaming_server {
    } streams {
        read_stream stream(Messages<prost_types::Any>) -> StreamStream of prost_types::Any;
    }
}
