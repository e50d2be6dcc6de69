//! The metrics of one pod or container, as they are collected.

use kevel_proto::runtime::v1::{Metric, MetricType, UInt64Value};

use super::descriptors::{BASE, find};

/// Metrics with the same first labels and the same time.
pub(super) struct Sheet {
    timestamp: i64,
    labels: [String; BASE.len()],
    pub(super) metrics: Vec<Metric>,
}

impl Sheet {
    /// No metrics yet. The time is in nanoseconds since the epoch, the labels are those of [`BASE`].
    pub(super) fn new(timestamp: i64, labels: [String; BASE.len()]) -> Self {
        Self { timestamp, labels, metrics: Vec::with_capacity(64) }
    }

    /// A number that only rises; left out when it is not known.
    pub(super) fn counter(&mut self, name: &'static str, labels: &[&str], value: Option<u64>) {
        self.add(MetricType::Counter, name, labels, value);
    }

    /// A number that rises and falls; left out when it is not known.
    pub(super) fn gauge(&mut self, name: &'static str, labels: &[&str], value: Option<u64>) {
        self.add(MetricType::Gauge, name, labels, value);
    }

    fn add(&mut self, kind: MetricType, name: &'static str, labels: &[&str], value: Option<u64>) {
        debug_assert_eq!(find(name).map(|known| known.labels.len()), Some(labels.len()), "{name}");
        let Some(value) = value else { return };
        self.metrics.push(Metric {
            name: name.to_owned(),
            timestamp: self.timestamp,
            metric_type: kind as i32,
            label_values: self.labels.iter().cloned().chain(labels.iter().map(|&label| label.to_owned())).collect(),
            value: Some(UInt64Value { value }),
        });
    }
}
