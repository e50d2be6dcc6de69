//! The conformance suite of the lease contract.
