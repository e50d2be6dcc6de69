//! `grpc.health.v1.Health`. The server as a whole (the empty service name) serves from when it answers at all; no
//! other service is known by name.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use kevel_proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};
use tonic::{Request, Response, Status};

use crate::{Offer, call::Answers};

/// Says that the server serves.
#[derive(Clone, Copy, Debug)]
pub struct Health;

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.into_inner().service.is_empty() {
            Ok(Response::new(answer(ServingStatus::Serving)))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = BTreeMap::from([(String::new(), answer(ServingStatus::Serving))]);
        Ok(Response::new(HealthListResponse { statuses }))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let status = if request.into_inner().service.is_empty() {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        // The state never changes, so nothing more comes until the caller or the server ends the call.
        Ok(Response::new(stream::iter([Ok(answer(status))]).chain(stream::pending()).boxed()))
    }
}

impl Health {
    /// The service as a plugin offers it.
    pub fn offer(self) -> Offer {
        let server = HealthServer::new(self);
        Offer::grpc(move |routes| {
            routes.add_service(server.clone());
        })
    }
}
