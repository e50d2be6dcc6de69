//! The conformance suite of the sandbox contract.
