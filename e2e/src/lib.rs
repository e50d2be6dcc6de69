//! The harness of the black-box tests: a daemon of its own per test, foreign clients as programs, and a check that
//! nothing is left behind. It knows the wire and nothing of how the daemon is made.
//!
//! Tests run as root. What a test starts carries the test's own directory in its command line, its mounts, and its
//! cgroup names, so that a leak is found and nothing else is touched.

mod background;
mod client;
mod cluster;
mod fault;
mod leak;
mod ledger;
mod machine;
mod mutant;
mod node;
mod pods;
mod program;
mod registry;
mod runsc;
mod wait;

pub use background::Background;
pub use client::{Client, Runtime, eventually};
pub use cluster::{Cluster, ClusterOptions};
pub use fault::Faults;
pub use leak::Leaks;
pub use ledger::Ledger;
pub use machine::{patience, skip_without};
pub use mutant::{Mutant, Shapes};
pub use node::{Node, NodeOptions};
pub use pods::Pods;
pub use program::{Output, ctr, debian_ctr, find, run};
pub use registry::Registry;
pub use runsc::runsc;
pub use wait::until;
