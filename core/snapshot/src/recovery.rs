//! What a start finds after a crash, and makes true again.

use std::collections::BTreeSet;

use kevel_model::Result;

use crate::{
    directory::Directory,
    state::{Rows, State},
};

/// Forgets snapshots whose files can't be trusted or are gone, and all that was built on them. What is left of their
/// directories becomes a leftover.
pub(crate) async fn recover(state: &State, directory: &Directory, boot: &str) -> Result<()> {
    let rows = state.rows();
    let mut lost = BTreeSet::new();
    for (name, row) in &rows {
        if !row.unsynced.is_empty() && row.unsynced != boot {
            tracing::warn!(snapshot = name, "forgetting a layer that a power failure caught before it was on disk");
            lost.insert(name.clone());
        } else if !directory.of(row.number).is_dir() {
            tracing::warn!(snapshot = name, number = row.number, "forgetting a snapshot whose directory is gone");
            lost.insert(name.clone());
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    add_descendants(&rows, &mut lost);
    state.forget(lost.into_iter().collect()).await
}

fn add_descendants(rows: &Rows, lost: &mut BTreeSet<String>) {
    loop {
        let more: Vec<_> = rows
            .iter()
            .filter(|(name, row)| lost.contains(&row.parent) && !lost.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return;
        }
        lost.extend(more);
    }
}
