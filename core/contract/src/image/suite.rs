//! The conformance suite of the image contract.
