//! Watches the cgroups of tasks, whoever made them: tells when the kernel kills a process of one for want of memory, and
//! has their numbers for Prometheus under containerd's names. The plugin `io.containerd.monitor.task.v1.cgroups`.
//!
//! It learns of tasks from their events, asks no shim, and changes nothing.

mod collector;
mod plugin;
mod watch;

pub use plugin::{Config, Plugin, TaskMonitors};
pub use watch::Monitor;
