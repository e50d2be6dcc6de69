//! The spans of gRPC calls: each is one of the trace that its caller names, from its arrival to the end of its answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::Either;
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Frame, SizeHint},
};
use kevel_contract::trace;
use tonic::{Code, Status, body::Body};
use tracing::{Instrument as _, Span, field::Empty};

/// Gives every call its span. Where nobody collects traces it hands calls through.
#[derive(Clone)]
pub(crate) struct Tracing;

impl<S> tower::Layer<S> for Tracing {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced(inner)
    }
}

/// A service whose calls have spans.
#[derive(Clone)]
pub(crate) struct Traced<S>(S);

type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> tower::Service<Request<Body>> for Traced<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Answering<S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = begin(&request);
        let answer = span.in_scope(|| self.0.call(request));
        if span.is_disabled() {
            return Either::Left(answer);
        }
        let answer = answer.instrument(span.clone());
        Either::Right(Box::pin(async move {
            let mut end = End(Some(span));
            let (head, body) = answer.await?.into_parts();
            // A call that failed before its first message says so in the head and has no trailers.
            if let Some(status) = Status::from_header_map(&head.headers) {
                end.with(&status);
            }
            Ok(Response::from_parts(head, Body::new(Answer { body, end })))
        }))
    }
}

/// The span of a call, named and described as by OpenTelemetry's conventions for gRPC.
fn begin(request: &Request<Body>) -> Span {
    let method = request.uri().path().trim_start_matches('/');
    let (service, name) = method.rsplit_once('/').unwrap_or((method, ""));
    let span = tracing::trace_span!(
        "rpc",
        otel.name = method,
        otel.kind = "server",
        otel.status_description = Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = name,
        rpc.grpc.status_code = Empty,
    );
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    trace::take_over(&span, header("traceparent"), header("tracestate"));
    span
}

/// The end of a call, put down once. A call that is dropped without one was given up by its client.
struct End(Option<Span>);

impl End {
    fn with(&mut self, status: &Status) {
        let Some(span) = self.0.take() else { return };
        span.record("rpc.grpc.status_code", i32::from(status.code()));
        if status.code() != Code::Ok {
            span.record("otel.status_description", status.message());
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.with(&Status::cancelled("the client gave the call up"));
    }
}

/// The messages of an answer, made in the call's span, and their end.
struct Answer {
    body: Body,
    end: End,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.end.0.clone().unwrap_or_else(Span::none);
        let polled = span.in_scope(|| Pin::new(&mut self.body).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.end.with(&ended(trailers));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn ended(trailers: &HeaderMap) -> Status {
    Status::from_header_map(trailers).unwrap_or_else(|| Status::new(Code::Ok, ""))
}
