//! A spec file: its form, and what is wrong with it. Members that the format does not know are refused, as CDI's own
//! implementation does: a device with half of its edits is worse than none.

use serde::Deserialize;

use crate::name;

/// Versions of the format that are read.
const VERSIONS: [&str; 10] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// A spec: devices of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) cdi_version: String,
    pub(crate) kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: std::collections::BTreeMap<String, String>,
    pub(crate) devices: Vec<Entry>,
    /// Made once for a container, whichever of the devices it gets.
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

/// A device of a spec.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: std::collections::BTreeMap<String, String>,
    pub(crate) container_edits: Edits,
}

/// What changes in a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    pub(crate) device_nodes: Vec<Node>,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) intel_rdt: Option<IntelRdt>,
    #[serde(rename = "additionalGids")]
    pub(crate) groups: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) host_path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    pub(crate) permissions: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct NetDevice {
    pub(crate) host_interface_name: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Mount {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    pub(crate) options: Vec<String>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IntelRdt {
    #[serde(rename = "closID")]
    pub(crate) class: String,
    #[serde(rename = "l3CacheSchema")]
    pub(crate) l3: String,
    #[serde(rename = "memBwSchema")]
    pub(crate) bandwidth: String,
    pub(crate) schemata: Vec<String>,
    #[serde(rename = "enableCMT")]
    pub(crate) cmt: bool,
    #[serde(rename = "enableMBM")]
    pub(crate) mbm: bool,
    #[serde(rename = "enableMonitoring")]
    pub(crate) monitoring: bool,
}

/// Where a hook may run, as the runtime spec names it.
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Document {
    /// Reads a file's text. The answer to a bad one says what is wrong, without the file's name.
    pub(crate) fn parse(text: &str, yaml: bool) -> Result<Self, String> {
        let document: Self = if yaml {
            // As CDI's own implementation reads it: a leading 0 means octal, which is how everybody writes file modes.
            let options = serde_saphyr::options! { legacy_octal_numbers: true };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?
        } else {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        };
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), String> {
        if !VERSIONS.contains(&self.cdi_version.as_str()) {
            return Err(format!("cdiVersion: {:?} is not known", self.cdi_version));
        }
        name::check_kind(&self.kind).map_err(|why| format!("kind {:?}: {why}", self.kind))?;
        if self.devices.is_empty() {
            return Err("devices: there are none".to_owned());
        }
        self.container_edits.check("containerEdits")?;
        for (index, device) in self.devices.iter().enumerate() {
            let field = format!("devices[{index}]");
            name::check_name(&device.name).map_err(|why| format!("{field}.name {:?}: {why}", device.name))?;
            if self.devices[..index].iter().any(|other| other.name == device.name) {
                return Err(format!("{field}.name: {:?} is there twice", device.name));
            }
            device.container_edits.check(&format!("{field}.containerEdits"))?;
        }
        Ok(())
    }
}

impl Edits {
    fn check(&self, field: &str) -> Result<(), String> {
        let must = |holds: bool, of: &str, index: usize, why: &str| {
            if holds { Ok(()) } else { Err(format!("{field}.{of}[{index}]: {why}")) }
        };
        let absolute = |path: &str| path.starts_with('/') && !path.contains('\0');
        for (index, entry) in self.env.iter().enumerate() {
            must(is_variable(entry), "env", index, "not KEY=value")?;
        }
        for (index, node) in self.device_nodes.iter().enumerate() {
            must(absolute(&node.path), "deviceNodes", index, "path is not absolute")?;
            let host = node.host_path.is_empty() || absolute(&node.host_path);
            must(host, "deviceNodes", index, "hostPath is not absolute")?;
            must(
                matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p"),
                "deviceNodes",
                index,
                "type is not one of b, c, u, p",
            )?;
            let letters = node.permissions.chars().all(|letter| "rwm".contains(letter));
            must(letters, "deviceNodes", index, "permissions are not made of r, w and m")?;
        }
        for (index, device) in self.net_devices.iter().enumerate() {
            let named = !device.host_interface_name.is_empty() && !device.name.is_empty();
            must(named, "netDevices", index, "hostInterfaceName and name must be there")?;
        }
        for (index, hook) in self.hooks.iter().enumerate() {
            must(HOOKS.contains(&hook.hook_name.as_str()), "hooks", index, "hookName is not one of the runtime's")?;
            must(absolute(&hook.path), "hooks", index, "path is not absolute")?;
            must(hook.env.iter().all(|entry| is_variable(entry)), "hooks", index, "env is not KEY=value")?;
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            must(!mount.host_path.is_empty(), "mounts", index, "hostPath is empty")?;
            must(absolute(&mount.container_path), "mounts", index, "containerPath is not absolute")?;
        }
        match &self.intel_rdt {
            Some(rdt)
                if rdt.class.len() >= 4096
                    || matches!(rdt.class.as_str(), "." | "..")
                    || rdt.class.contains(['/', '\n']) =>
            {
                Err(format!("{field}.intelRdt.closID: {:?} is no name", rdt.class))
            }
            _ => Ok(()),
        }
    }
}

fn is_variable(entry: &str) -> bool {
    !entry.contains('\0') && entry.split_once('=').is_some_and(|(key, _)| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        r#"{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["A=b"]}}]}"#;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(Document::parse(GOOD, false).unwrap().devices[0].container_edits.env, ["A=b"]);
        let yaml = "cdiVersion: \"0.6.0\"\nkind: v.com/c\nannotations: {a: b}\ndevices:\n- name: 0\n  containerEdits:\n    deviceNodes:\n    - {path: /dev/x, fileMode: 0660}\n";
        let document = Document::parse(yaml, true).unwrap();
        assert_eq!(document.devices[0].name, "0", "a number is a name, too");
        assert_eq!(document.devices[0].container_edits.device_nodes[0].file_mode, Some(0o660));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |from: &str, to: &str, want: &str| {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = Document::parse(&text, false).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        };
        check("0.6.0", "9.0.0", "cdiVersion: \"9.0.0\" is not known");
        check("v.com/c", "c", "kind \"c\": no / between vendor and class");
        check("\"d\"", "\"-\"", "devices[0].name \"-\"");
        check("\"A=b\"", "\"Ab\"", "devices[0].containerEdits.env[0]: not KEY=value");
        check("\"env\"", "\"evn\"", "unknown field `evn`");
        let edits = |edits: &str, want: &str| check(r#"{"env":["A=b"]}"#, edits, want);
        edits(r#"{"deviceNodes":[{"path":"dev"}]}"#, "deviceNodes[0]: path is not absolute");
        edits(r#"{"deviceNodes":[{"path":"/d","type":"x"}]}"#, "type is not one of");
        edits(r#"{"deviceNodes":[{"path":"/d","permissions":"x"}]}"#, "permissions are not");
        edits(r#"{"mounts":[{"containerPath":"/d"}]}"#, "mounts[0]: hostPath is empty");
        edits(r#"{"hooks":[{"hookName":"never","path":"/h"}]}"#, "hooks[0]: hookName is not");
        edits(r#"{"netDevices":[{"name":"e"}]}"#, "netDevices[0]");
        edits(r#"{"intelRdt":{"closID":"a/b"}}"#, "intelRdt.closID");
        check(r#"[{"name":"d","containerEdits":{"env":["A=b"]}}]"#, "[]", "devices: there are none");
        check(r#""devices":["#, r#""devices":[{"name":"d","containerEdits":{}},"#, "is there twice");
    }

    proptest! {
        #[test]
        fn hostile_text_is_an_error(text in "\\PC{0,200}") {
            let _ = Document::parse(&text, true);
            let _ = Document::parse(&text, false);
        }
    }
}
