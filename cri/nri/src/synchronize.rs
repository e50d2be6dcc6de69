//! What is there already, told to a plugin that has just registered: in as many parts as the protocol's largest message
//! asks for.

use std::time::Duration;

use kevel_model::{Error, Result};
use kevel_ttrpc::frame::MAX_MESSAGE;
use prost::Message;

use crate::{
    api::{Container, ContainerUpdate, PodSandbox, SynchronizeRequest, SynchronizeResponse},
    metrics,
    plugin::Peer,
};

/// The largest part: what a message may have, without room for the envelope.
const PART: usize = MAX_MESSAGE - (64 << 10);

/// Tells the plugin everything, each part within `timeout`, and answers what it wants changed.
pub(crate) async fn synchronize(
    plugin: &Peer,
    pods: Vec<PodSandbox>,
    containers: Vec<Container>,
    timeout: Duration,
) -> Result<Vec<ContainerUpdate>> {
    let failed = |why: String| Error::unavailable(format!("synchronizing NRI plugin {}: {why}", plugin.full_name));
    for part in parts(pods, containers, PART) {
        let answer = plugin.send("Synchronize", part.encode_to_vec().into(), timeout).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let answer = SynchronizeResponse::decode(answer).map_err(|error| failed(error.to_string()))?;
        if !part.more {
            metrics::adjusted(&plugin.full_name, "Synchronize", answer.update.len(), 0);
            return Ok(answer.update);
        }
        if !answer.more || !answer.update.is_empty() {
            return Err(failed("it does not take what is there in parts".to_owned()));
        }
    }
    Ok(Vec::new())
}

/// The parts, of at most `most` bytes each; an object that alone is larger is a part of its own. There is at least one.
fn parts(pods: Vec<PodSandbox>, containers: Vec<Container>, most: usize) -> Vec<SynchronizeRequest> {
    let mut parts = Vec::new();
    let (mut part, mut size) = (SynchronizeRequest::default(), 0);
    // A field of a message costs its tag and its length besides: at most six bytes.
    let mut room = |part: &mut SynchronizeRequest, parts: &mut Vec<SynchronizeRequest>, length: usize| {
        if size > 0 && size + length + 6 > most {
            parts.push(SynchronizeRequest { more: true, ..std::mem::take(part) });
            size = 0;
        }
        size += length + 6;
    };
    for pod in pods {
        room(&mut part, &mut parts, pod.encoded_len());
        part.pods.push(pod);
    }
    for container in containers {
        room(&mut part, &mut parts, container.encoded_len());
        part.containers.push(container);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_and_nothing_is_lost() {
        let pod = |id: usize| PodSandbox { id: format!("pod-{id:04}"), ..PodSandbox::default() };
        let container = |id: usize| Container { id: format!("container-{id:04}"), ..Container::default() };
        for (pods, containers, most, expected) in
            [(0, 0, 100, 1), (3, 4, 10_000, 1), (100, 300, 500, 17), (10, 0, 1, 10), (0, 10, 1, 10)]
        {
            let found = parts((0..pods).map(pod).collect(), (0..containers).map(container).collect(), most);
            assert_eq!(found.len(), expected, "{pods} {containers} {most}");
            let (last, others) = found.split_last().unwrap();
            assert!(!last.more && others.iter().all(|part| part.more));
            let all: Vec<_> = found.iter().flat_map(|part| part.pods.clone()).collect();
            assert_eq!(all, (0..pods).map(pod).collect::<Vec<_>>());
            let all: Vec<_> = found.iter().flat_map(|part| part.containers.clone()).collect();
            assert_eq!(all, (0..containers).map(container).collect::<Vec<_>>());
            if most > 100 {
                assert!(found.iter().all(|part| part.encoded_len() <= most + 2));
            }
        }
    }
}
