//! What an operation is about: an attachment, one on record, or a network as such.

use crate::cache::Record;
use crate::conf::{NetworkList, PluginConf};
use crate::name::{check_arg, check_container_id, check_interface};
use crate::{Error, FieldError, PluginError, Verb};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is attached: one interface of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    /// The container's (pod's) id.
    pub container_id: String,
    /// The interface to create.
    pub ifname: String,
    /// The path of the network namespace.
    pub netns: PathBuf,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// Capability arguments by name; plugins get those that they declare.
    pub capability_args: BTreeMap<String, Value>,
}

/// What the plugins of one operation have in common.
pub(super) struct Target<'a> {
    pub(super) verb: Verb,
    pub(super) list: &'a NetworkList,
    pub(super) container_id: &'a str,
    pub(super) ifname: &'a str,
    pub(super) netns: Option<&'a Path>,
    pub(super) args: &'a [(String, String)],
    pub(super) capability_args: &'a BTreeMap<String, Value>,
}

// === impl Attachment ===

impl Attachment {
    pub(super) fn check(&self) -> Result<(), FieldError> {
        self.check_names()?;
        if !self.netns.is_absolute() || self.netns.to_str().is_none() {
            return Err(FieldError::new("netns", "not an absolute path in UTF-8"));
        }
        Ok(())
    }

    /// What DEL needs; there may be no namespace any more.
    pub(super) fn check_names(&self) -> Result<(), FieldError> {
        check_container_id("id", &self.container_id)?;
        check_interface("ifname", &self.ifname)?;
        self.args.iter().try_for_each(|(key, value)| check_arg(key, value))
    }

    pub(super) fn record(&self, list: &NetworkList) -> Record {
        Record {
            network: list.name.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
            netns: self.netns.to_string_lossy().into_owned(),
            config: list.to_bytes(),
            args: self.args.clone(),
            capability_args: self.capability_args.clone(),
            result: None,
            ours: true,
        }
    }

    pub(super) fn target<'a>(&'a self, verb: Verb, list: &'a NetworkList) -> Target<'a> {
        Target {
            verb,
            list,
            container_id: &self.container_id,
            ifname: &self.ifname,
            netns: Some(&self.netns),
            args: &self.args,
            capability_args: &self.capability_args,
        }
    }
}

// === impl Target ===

static NO_ARGS: BTreeMap<String, Value> = BTreeMap::new();

impl<'a> Target<'a> {
    /// For verbs that are about no attachment.
    pub(super) fn of_network(verb: Verb, list: &'a NetworkList) -> Self {
        Self { verb, list, container_id: "", ifname: "", netns: None, args: &[], capability_args: &NO_ARGS }
    }

    pub(super) fn error(&self, plugin: &PluginConf, source: PluginError) -> Error {
        Error::Plugin {
            verb: self.verb,
            network: self.list.name.clone(),
            plugin: plugin.kind.clone(),
            source: Box::new(source),
        }
    }

    /// For an attachment that was made earlier.
    pub(super) fn of_record(verb: Verb, list: &'a NetworkList, record: &'a Record) -> Self {
        Self {
            verb,
            list,
            container_id: &record.container_id,
            ifname: &record.ifname,
            netns: Some(Path::new(&record.netns)),
            args: &record.args,
            capability_args: &record.capability_args,
        }
    }
}
