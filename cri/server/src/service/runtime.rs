//! `runtime.v1.RuntimeService`.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use kevel_proto::runtime::v1::{runtime_service_server::RuntimeService, *};
use tonic::{Request, Response, Status};

use crate::{
    answer::{Answers, chunks, status},
    server::Server,
};

/// Answers for the server.
pub struct RuntimeRpc {
    server: Arc<Server>,
}

impl RuntimeRpc {
    /// Answers for `server`.
    pub fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: kevel_model::Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(|error| status(&error))
}

#[tonic::async_trait]
impl RuntimeService for RuntimeRpc {
    type StreamPodSandboxesStream = Answers<StreamPodSandboxesResponse>;
    type StreamContainersStream = Answers<StreamContainersResponse>;
    type StreamContainerStatsStream = Answers<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Answers<StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Answers<ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Answers<StreamPodSandboxMetricsResponse>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(self.server.version()))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        self.server.run_pod_sandbox(request.into_inner()).await.map(Response::new)
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        self.server.stop_pod_sandbox(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        self.server.remove_pod_sandbox(&request.get_ref().pod_sandbox_id).await?;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        answer(self.server.pod_status(request.get_ref()).await)
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let _timer = self.server.counters.sandbox_list.start_timer();
        let items = self.server.list_pods(request.get_ref().filter.as_ref());
        answer(items.map(|items| ListPodSandboxResponse { items }))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let _timer = self.server.counters.stream_sandbox_list.start_timer();
        let items = self.server.list_pods(request.get_ref().filter.as_ref());
        answer(items.map(|items| chunks(items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        self.server.create_container(request.into_inner()).await.map(Response::new)
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        self.server.start_container(&request.get_ref().container_id).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        self.server.stop_container(&request.container_id, request.timeout).await?;
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.server.remove_container(&request.get_ref().container_id).await?;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let _timer = self.server.counters.container_list.start_timer();
        let containers = self.server.list_containers(request.get_ref().filter.as_ref());
        answer(containers.map(|containers| ListContainersResponse { containers }))
    }

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let _timer = self.server.counters.stream_container_list.start_timer();
        let containers = self.server.list_containers(request.get_ref().filter.as_ref());
        answer(containers.map(|list| chunks(list, |containers| StreamContainersResponse { containers })))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        answer(self.server.container_status(request.get_ref()).await)
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        self.server.update_container(request.into_inner()).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let reopened = self.server.reopen_log(&request.get_ref().container_id).await;
        answer(reopened.map(|()| ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        answer(self.server.exec_sync(request.into_inner()).await)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        answer(self.server.exec(request.into_inner()))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        answer(self.server.attach(request.into_inner()))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        answer(self.server.port_forward(request.into_inner()))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let stats = self.server.container_stats(&request.get_ref().container_id).await;
        answer(stats.map(|stats| ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let stats = self.server.list_container_stats(request.get_ref().filter.as_ref()).await;
        answer(stats.map(|stats| ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let stats = self.server.list_container_stats(request.get_ref().filter.as_ref()).await;
        answer(stats.map(|list| chunks(list, |container_stats| StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let stats = self.server.pod_stats(&request.get_ref().pod_sandbox_id).await;
        answer(stats.map(|stats| PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let stats = self.server.list_pod_stats(request.get_ref().filter.as_ref()).await;
        answer(stats.map(|stats| ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let stats = self.server.list_pod_stats(request.get_ref().filter.as_ref()).await;
        answer(stats.map(|list| chunks(list, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats })))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let updated = self.server.update_runtime_config(request.get_ref()).await;
        answer(updated.map(|()| UpdateRuntimeConfigResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        answer(self.server.runtime_status(request.get_ref().verbose).await)
    }

    async fn checkpoint_container(
        &self,
        request: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        self.server.checkpoint_container(request.into_inner()).await?;
        Ok(Response::new(CheckpointContainerResponse {}))
    }

    async fn checkpoint_pod(&self, request: Request<CheckpointPodRequest>) -> Answer<CheckpointPodResponse> {
        self.server.checkpoint_pod(request.into_inner()).await?;
        Ok(Response::new(CheckpointPodResponse {}))
    }

    async fn restore_pod(&self, request: Request<RestorePodRequest>) -> Answer<RestorePodResponse> {
        self.server.restore_pod(request.into_inner()).await.map(Response::new)
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let queue = self.server.index.hub.subscribe().map_err(|error| status(&error))?;
        let events = stream::unfold(Some((self.server.clone(), queue)), |subscriber| async move {
            let (server, queue) = subscriber?;
            match queue.next().await {
                Ok(event) => Some((Ok(server.describe_event(&event)), Some((server, queue)))),
                // The end of the stream tells the kubelet to list everything anew; no event is lost in silence.
                Err(error) => Some((Err(status(&error)), None)),
            }
        });
        Ok(Response::new(events.boxed()))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors: self.server.metric_descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        let metrics = self.server.pod_metrics().await;
        answer(metrics.map(|metrics| ListPodSandboxMetricsResponse { pod_metrics: metrics.to_vec() }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let metrics = self.server.pod_metrics().await;
        let answer_with = |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        answer(metrics.map(|metrics| chunks(metrics.to_vec(), answer_with)))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        Ok(Response::new(self.server.runtime_config()))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        self.server.update_pod(request.into_inner()).await?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }
}
