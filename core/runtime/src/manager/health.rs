//! How shims are doing, from what their calls did; nobody is asked.

use std::sync::Arc;

use async_trait::async_trait;
use kevel_contract::{
    introspection::{Health, RuntimeInfo},
    metric::MetricRegistry,
    runtime::RuntimeProbe,
};
use kevel_model::{Any, Result};
use prometheus::{
    IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Key, ShimManager, stuck::Stage};
use crate::Shim;

/// The states that a shim can be in; the last two are those of one that is stuck or dead.
const STATES: [&str; 5] = ["ok", "starting", "loading", "late", "lost"];

impl ShimManager {
    /// How every shim is doing: `ok`; `starting`; `loading` while it is taken up after a restart; `late` when its last
    /// calls were not answered in time; `lost` when its connection is.
    pub fn health(&self) -> Vec<Health> {
        let describe = |((namespace, id), state): (Key, std::result::Result<Arc<Shim>, &'static str>)| {
            let (state, detail) = match state {
                Err(state) => (state, String::new()),
                Ok(shim) => judge(&shim),
            };
            Health { subject: format!("shim {namespace}/{id}"), state: state.to_owned(), detail }
        };
        self.inner.table.states().into_iter().map(describe).collect()
    }

    /// Counts shims by their state for Prometheus.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn expose(&self, registry: &MetricRegistry) -> Result<()> {
        let stuck = registry.counters("kevel_shim_stuck_total", "times that shims were stuck, by stage", &["stage"])?;
        for stage in Stage::ALL {
            stuck.with_label_values(&[stage.name()]); // an alert on a rise needs a zero before it
        }
        let _ = self.inner.stuck.set(stuck); // one registry, one call
        let gauges = IntGaugeVec::new(Opts::new("kevel_shims", "connections to shims by state"), &["state"]);
        let gauges = gauges.map_err(|error| kevel_model::Error::internal("making metrics").with_source(error))?;
        registry.register(Shims { manager: self.clone(), gauges })
    }
}

#[async_trait]
impl RuntimeProbe for ShimManager {
    async fn info(&self, runtime: &str, options: Option<&Any>) -> Result<RuntimeInfo> {
        Ok(self.runtime_info(runtime, options).await?)
    }

    fn health(&self) -> Vec<Health> {
        Self::health(self)
    }
}

fn judge(shim: &Shim) -> (&'static str, String) {
    if shim.is_closed() {
        return ("lost", "its connection is lost".to_owned());
    }
    match shim.late() {
        0 => ("ok", String::new()),
        late => ("late", format!("{late} calls in a row were not answered in time")),
    }
}

struct Shims {
    manager: ShimManager,
    gauges: IntGaugeVec,
}

impl Collector for Shims {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.manager.health();
        for state in STATES {
            let those = all.iter().filter(|one| one.state == state).count();
            self.gauges.with_label_values(&[state]).set(i64::try_from(those).unwrap_or(i64::MAX));
        }
        self.gauges.collect()
    }
}
