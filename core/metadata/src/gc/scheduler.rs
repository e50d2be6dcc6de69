//! When garbage is collected: soon after the start, and when enough was changed. The plugin
//! `io.containerd.gc.v1.scheduler`.

use std::time::{Duration, Instant};

use kevel_contract::{
    metadata::{Activity, Garbage, GarbageCollector, Metadata},
    metric::{MetricRegistry, Metrics},
};
use kevel_model::Result;
use kevel_plugin::{InitContext, InitError, Maybe, One, Plugin, Reload, deps};
use prometheus::{HistogramVec, IntCounterVec};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use kevel_model::duration;

/// The largest share of time that collections may take, whatever is configured.
const MAX_SHARE: f64 = 0.5;

/// `[plugins."io.containerd.gc.v1.scheduler"]`, with containerd's keys and defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The largest share of time that collections may take: after one there is none for its duration divided by this.
    pub pause_threshold: f64,
    /// Removals after which garbage is collected; 0 for never by their number.
    pub deletion_threshold: u64,
    /// Changes of any sort after which garbage is collected; 0 for never by their number.
    pub mutation_threshold: u64,
    /// From when a threshold is reached to the collection.
    #[serde(with = "duration")]
    pub schedule_delay: Duration,
    /// From the start to the first collection.
    #[serde(with = "duration")]
    pub startup_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: Duration::ZERO,
            startup_delay: Duration::from_millis(100),
        }
    }
}

impl Config {
    fn check(&self) -> std::result::Result<(), InitError> {
        if (0.0..=1.0).contains(&self.pause_threshold) {
            return Ok(());
        }
        Err(InitError::failed(format!("pause_threshold must be between 0 and 1, not {}", self.pause_threshold)))
    }

    /// Whether enough was changed between two moments.
    fn due(&self, then: Activity, now: Activity) -> bool {
        let reached = |threshold, count| threshold > 0 && count >= threshold;
        reached(self.deletion_threshold, now.deletions - then.deletions)
            || reached(self.mutation_threshold, now.mutations - then.mutations)
    }

    /// How long there is no collection after one that took so long.
    fn rest(&self, took: Duration) -> Duration {
        let share = self.pause_threshold.clamp(0.0, MAX_SHARE);
        if share > 0.0 { took.mul_f64(1.0 / share) } else { Duration::ZERO }
    }
}

deps! {
    /// What the scheduler needs.
    pub struct Deps {
        /// Whose garbage it is.
        metadata: One<Metadata>,
        /// Where collections are counted.
        metrics: Maybe<Metrics>,
    }
}

/// The plugin.
pub struct Scheduler;

impl Plugin for Scheduler {
    type Kind = Garbage;
    const ID: &'static str = "scheduler";
    type Config = Config;
    type Deps = Deps;

    async fn init(cx: InitContext, config: Config, deps: Deps) -> std::result::Result<GarbageCollector, InitError> {
        config.check()?;
        cx.export("PauseThreshold", config.pause_threshold.to_string());
        cx.export("DeletionThreshold", config.deletion_threshold.to_string());
        cx.export("MutationThreshold", config.mutation_threshold.to_string());
        cx.export("ScheduleDelay", duration::text(config.schedule_delay));
        let (garbage, activity) = (deps.metadata.garbage.clone(), deps.metadata.activity.clone());
        let counts = deps.metrics.0.as_ref().map(Counts::new).transpose().map_err(InitError::failed)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (stopped, collector) = (stop.clone(), garbage.clone());
        let (changes, config) = watch::channel(config);
        tasks.spawn(async move {
            stopped.run_until_cancelled(run(config, collector, activity, counts)).await;
        });
        cx.on_reload(move |config: Config| {
            config.check()?;
            let changes = changes.clone();
            Ok(Reload::new(move || {
                changes.send_replace(config);
            }))
        });
        tasks.close();
        cx.on_close(move || async move {
            stop.cancel();
            tasks.wait().await;
        });
        Ok(garbage)
    }
}

/// Collections, under containerd's names.
struct Counts {
    collections: IntCounterVec,
    seconds: HistogramVec,
}

impl Counts {
    fn new(registry: &MetricRegistry) -> Result<Self> {
        Ok(Self {
            collections: registry.counters("containerd_gc_collections_total", "garbage collections", &["status"])?,
            seconds: registry.seconds("containerd_gc_gc_seconds", "time of garbage collections", &[])?,
        })
    }

    fn count(&self, took: Duration, succeeded: bool) {
        let status = if succeeded { "success" } else { "fail" };
        self.collections.with_label_values(&[status]).inc();
        if succeeded {
            self.seconds.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
        }
    }
}

async fn run(
    mut config: watch::Receiver<Config>,
    garbage: GarbageCollector,
    mut activity: watch::Receiver<Activity>,
    counts: Option<Counts>,
) {
    let delay = config.borrow().startup_delay;
    tokio::time::sleep(delay).await;
    loop {
        let (since, started) = (*activity.borrow_and_update(), Instant::now());
        let collected = garbage.collect().await;
        if let Some(counts) = &counts {
            counts.count(started.elapsed(), collected.is_ok());
        }
        if let Err(error) = collected {
            tracing::error!(error = %error.chain(), "garbage collection failed");
        }
        let rest = config.borrow().rest(started.elapsed());
        tokio::time::sleep(rest).await;
        while !config.borrow_and_update().due(since, *activity.borrow_and_update()) {
            tokio::select! {
                changed = activity.changed() => if changed.is_err() { return }, // the store is gone
                // A threshold that was lowered may have been reached already.
                Ok(()) = config.changed() => {}
            }
        }
        let delay = config.borrow().schedule_delay;
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_by_changes_or_removals() {
        let check = |thresholds: (u64, u64), mutations: u64, deletions: u64, want: bool| {
            let config =
                Config { deletion_threshold: thresholds.0, mutation_threshold: thresholds.1, ..Config::default() };
            let (then, now) = (
                Activity { mutations: 7, deletions: 3 },
                Activity { mutations: 7 + mutations, deletions: 3 + deletions },
            );
            assert_eq!(config.due(then, now), want, "{thresholds:?} {mutations} {deletions}");
        };
        check((0, 100), 99, 99, false);
        check((0, 100), 100, 0, true);
        check((5, 100), 5, 5, true);
        check((5, 0), 1000, 4, false);
        check((0, 0), 1000, 1000, false);
    }

    #[test]
    fn rests_in_proportion() {
        let config = Config::default();
        assert_eq!(config.rest(Duration::from_millis(10)), Duration::from_millis(500));
        assert_eq!(Config { pause_threshold: 0.9, ..config.clone() }.rest(Duration::from_secs(1)).as_secs(), 2);
        assert_eq!(Config { pause_threshold: 0.0, ..config }.rest(Duration::from_secs(1)), Duration::ZERO);
    }
}
