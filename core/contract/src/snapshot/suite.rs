//! The conformance suite of snapshotters.
