//! Metrics of pods and containers over CRI, under cAdvisor's names: ListMetricDescriptors, ListPodSandboxMetrics,
//! StreamPodSandboxMetrics. Statistics (ContainerStats and its kin) are beside the objects they are of.

mod descriptors;
mod filesystem;
mod list;
mod sample;
mod sheet;

pub(crate) use list::Recent;
