//! Looks at everybody's CPU time now and then, so that the first who asks for cores gets an answer.

use std::sync::Arc;

use kevel_cgroup::Cpu;
use kevel_proto::runtime::v1::ContainerState;

use crate::{files::blocking, identity, server::Server};

impl Server {
    /// Looks every `stats_collect_period`, until the daemon ends.
    pub async fn collect_usage(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.settings.stats_period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.index.snapshot();
            let running = now.containers.values().filter(|one| one.state.cri() == ContainerState::ContainerRunning);
            let containers = running.map(|one| (one.record.id.clone(), one.state.pid, false));
            let pods = now.pods.values().filter(|pod| pod.ready);
            let pods = pods.map(|pod| (pod.record.id.clone(), pod.record.pid, pod.has_cgroup()));
            let all: Vec<_> = containers.chain(pods).collect();
            if all.is_empty() {
                continue;
            }
            let meter = self.meter.clone();
            let looked = blocking(move || {
                for (id, pid, above) in all {
                    let Some(place) = meter.place(&id, pid) else { continue };
                    let cpu = if above { Cpu::usage_of(&place.parent()) } else { Cpu::usage_of(&place) };
                    if let Some(cpu) = cpu {
                        meter.rate(&id, identity::now(), cpu);
                    }
                }
                Ok(())
            });
            if let Err(error) = looked.await {
                tracing::warn!(error = error.chain(), "looking at what containers use");
            }
        }
    }
}
