//! The conformance suite of the container contract.
