//! The plugins that started.

use std::{
    any::TypeId,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{Kind, PluginStatus, Report, Reports, context::Closer, registry::Erased, reload::Running};

/// The plugins that started, their handles by kind, and a report on every one that was tried.
#[derive(Default)]
pub struct Graph {
    handles: HashMap<TypeId, BTreeMap<String, Erased>>,
    kinds: HashMap<TypeId, Vec<Arc<Report>>>,
    reports: Reports,
    pub(crate) running: Vec<Running>,
    closers: Vec<(String, Vec<Closer>)>,
}

impl Graph {
    /// Every handle of a kind, by plugin id.
    pub fn all<K: Kind>(&self) -> BTreeMap<String, K::Handle> {
        let handles = self.handles.get(&TypeId::of::<K>()).into_iter().flatten();
        // The map is keyed by the kind's type, and only a plugin of that kind adds to it, so the cast always holds.
        handles.filter_map(|(id, erased)| Some((id.clone(), erased.downcast_ref::<K::Handle>()?.clone()))).collect()
    }

    /// A report on every plugin, in the order of their start.
    pub fn reports(&self) -> Vec<Arc<Report>> {
        self.reports.all()
    }

    /// The list that plugins share.
    pub(crate) fn shared_reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Why the plugins of a kind skipped, if all that there are did.
    pub(crate) fn skipped<K: Kind>(&self) -> Option<String> {
        let reports = self.kinds.get(&TypeId::of::<K>())?;
        let mut why = None;
        for report in reports {
            match &report.status {
                PluginStatus::Skip(reason) => why = Some(format!("{}: {reason}", report.uri())),
                _ => return None,
            }
        }
        why
    }

    pub(crate) fn add(&mut self, kind: TypeId, report: Report, handle: Option<Erased>, closers: Vec<Closer>) {
        let report = Arc::new(report);
        if let Some(handle) = handle {
            self.handles.entry(kind).or_default().insert(report.id.clone(), handle);
        }
        self.closers.push((report.uri(), closers));
        self.kinds.entry(kind).or_default().push(report.clone());
        self.reports.push(report);
    }

    /// Closes every plugin, dependents first.
    pub async fn stop(self) {
        for (uri, closers) in self.closers.into_iter().rev() {
            for close in closers.into_iter().rev() {
                tracing::debug!(plugin = uri, "closing plugin");
                close().await;
            }
        }
    }
}
