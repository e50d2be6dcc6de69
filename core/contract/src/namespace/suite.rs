//! The conformance suite of the namespace contract.
