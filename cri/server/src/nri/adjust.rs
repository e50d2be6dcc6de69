//! What plugins want of a container that is being made, put into its spec.

use std::{collections::BTreeMap, sync::Arc};

use kevel_cri_nri::{
    Subject,
    oci::{self, Rules},
};
use kevel_cri_spec::Spec;
use kevel_model::{Error, Result};
use serde_json::Value;

use super::describe;
use crate::{container::cdi, index::Pod, record::ContainerRecord, server::Server};

impl Server {
    /// A container that is being made, with its pod, for plugins that are told that it will not be.
    pub(crate) fn unmade(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        record: &ContainerRecord,
        spec: &Spec,
    ) -> impl Future<Output = Option<Subject>> + Send + 'static {
        let (server, pod, record, spec) = (self.clone(), pod.clone(), record.clone(), spec.clone());
        async move {
            let container = describe::container(&record, None, server.shown_image(&record.image_id), spec.value());
            Some(Subject { pod: server.describe_pod(&pod.record).await, container: Some(container) })
        }
    }

    /// The spec with everything that plugins adjust; the same spec when there are none.
    pub(crate) async fn adjusted(&self, pod: &Pod, record: &ContainerRecord, spec: Spec) -> Result<Spec> {
        let describe = async {
            let image = self.shown_image(&record.image_id);
            let container = describe::container(record, None, image, spec.value());
            Ok((self.describe_pod(&pod.record).await, container))
        };
        let adjust = self.nri.create_container(&record.id, describe).await?;
        let Some(adjust) = adjust else { return Ok(spec) };
        let registry = match adjust.cdi_devices.is_empty() {
            true => None,
            false => Some(cdi::registry(self).await?),
        };
        let mut document = spec.into_value();
        let mut inject = |document: &mut Value, names: &[String]| -> Result<(), String> {
            let Some(registry) = &registry else { return Ok(()) };
            let named = kevel_cri_cdi::requested(names.iter().map(String::as_str), &BTreeMap::new());
            let done = named.and_then(|devices| registry.inject(document, &devices));
            done.map_err(|error| error.to_string())
        };
        let done = oci::adjust(&mut document, &adjust, &self.nri_rules(), &mut inject);
        done.map_err(|error| Error::invalid_argument("what NRI plugins adjust").with_source(error))?;
        Ok(Spec::new(document)?)
    }

    /// What of the node decides which limits can be set.
    pub(crate) fn nri_rules(&self) -> Rules {
        let (node, policy) = (&self.settings.node, &self.settings.policy);
        Rules {
            swap: node.swap_controller,
            hugepages: node.hugetlb_controller && !policy.disable_hugetlb_controller,
            unified: node.unified_cgroups,
        }
    }
}
