//! What every RPC does around its own work: takes the scope from the metadata, runs the work, makes a status of its
//! error. Also the macro that binds one function per RPC to a generated service trait.
//!
//! Five ways to run: `read` and `read_stream` within the caller's time, `change` as a task of its own that the caller's
//! hang-up does not stop half-way; `look`, `look_stream` and `alter` are the same for RPCs that need no namespace.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, stream::BoxStream};
use kevel_client::convert::{error::status, scope};
use kevel_contract::Scope;
use kevel_model::{Error, Result};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

/// What a generated trait wants of a unary RPC.
pub(crate) type Answer<T> = Result<Response<T>, Status>;
/// What a generated trait wants of a streaming RPC.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// What a streaming RPC makes.
pub(crate) type Items<T> = BoxStream<'static, Result<T>>;

/// Runs in a namespace, within the caller's time.
pub(crate) async fn read<Q, A, F>(request: Request<Q>, work: impl FnOnce(Scope, Q) -> F) -> Answer<A>
where
    F: Future<Output = Result<A>>,
{
    let (metadata, _, message) = request.into_parts();
    let scope = scope::read(&metadata).map_err(status)?;
    work(scope, message).await.map(Response::new).map_err(status)
}

/// Runs in a namespace, to its end even if the caller hangs up.
pub(crate) async fn change<Q, A, F>(request: Request<Q>, work: impl FnOnce(Scope, Q) -> F) -> Answer<A>
where
    F: Future<Output = Result<A>> + Send + 'static,
    A: Send + 'static,
{
    read(request, |scope, message| own(work(scope, message))).await
}

/// Runs without namespace, within the caller's time.
pub(crate) async fn look<Q, A, F>(request: Request<Q>, work: impl FnOnce((), Q) -> F) -> Answer<A>
where
    F: Future<Output = Result<A>>,
{
    work((), request.into_inner()).await.map(Response::new).map_err(status)
}

/// Runs without namespace, to its end even if the caller hangs up.
pub(crate) async fn alter<Q, A, F>(request: Request<Q>, work: impl FnOnce((), Q) -> F) -> Answer<A>
where
    F: Future<Output = Result<A>> + Send + 'static,
    A: Send + 'static,
{
    look(request, |(), message| own(work((), message))).await
}

/// Starts a stream in a namespace.
pub(crate) async fn read_stream<Q, A, F>(
    request: Request<Q>,
    work: impl FnOnce(Scope, Q) -> F,
) -> Result<Response<Answers<A>>, Status>
where
    F: Future<Output = Result<Items<A>>>,
    A: Send + 'static,
{
    read(request, work).await.map(|response| response.map(answers))
}

/// Starts a stream without namespace.
pub(crate) async fn look_stream<Q, A, F>(
    request: Request<Q>,
    work: impl FnOnce((), Q) -> F,
) -> Result<Response<Answers<A>>, Status>
where
    F: Future<Output = Result<Items<A>>>,
    A: Send + 'static,
{
    look(request, work).await.map(|response| response.map(answers))
}

fn answers<A: Send + 'static>(items: Items<A>) -> Answers<A> {
    Box::pin(items.map(|item| item.map_err(status)))
}

/// Runs `work` as a task of its own; dropping the future does not stop it.
pub(crate) async fn own<A: Send + 'static>(work: impl Future<Output = Result<A>> + Send + 'static) -> Result<A> {
    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the task of a call died");
        Err(Error::internal("running the call: its task died"))
    })
}

/// Binds the functions of a service's modules, one per RPC, to the generated trait. A function of the RPC's name, in a
/// module of that name, gets the service's handle, the scope (or `()`) and the message.
macro_rules! service {
    ($(#[$doc:meta])* $service:ident over $handle:ty as $server:ident in $module:path {
        $($mode:ident $rpc:ident($request:ty) -> $response:ty;)*
    } $(streams {
        $($smode:ident $srpc:ident($srequest:ty) -> $assoc:ident of $item:ty;)*
    })?) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $service(pub $handle);

        use $module as server;

        #[tonic::async_trait]
        impl server::$service for $service {
            $(async fn $rpc(&self, request: tonic::Request<$request>) -> $crate::call::Answer<$response> {
                let handle = self.0.clone();
                $crate::call::$mode(request, |scope, message| $rpc::$rpc(handle, scope, message)).await
            })*

            $($(
                type $assoc = $crate::call::Answers<$item>;

                async fn $srpc(&self, request: tonic::Request<$srequest>) -> $crate::call::Answer<Self::$assoc> {
                    let handle = self.0.clone();
                    $crate::call::$smode(request, |scope, message| $srpc::$srpc(handle, scope, message)).await
                }
            )*)?
        }

        impl $service {
            /// The service as a plugin offers it.
            pub fn offer(self) -> $crate::Offer {
                let server = server::$server::new(self)
                    .max_decoding_message_size(kevel_proto::MESSAGE_LIMIT)
                    .max_encoding_message_size(kevel_proto::MESSAGE_LIMIT);
                $crate::Offer::grpc(move |routes| {
                    routes.add_service(server.clone());
                })
            }
        }
    };
}
pub(crate) use service;
