//! The validator that is always there: what no plugin may adjust, and which plugins must have been asked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::api::{Field, PodSandbox, ValidateContainerAdjustmentRequest, security_profile::ProfileType};

/// The annotation that names plugins which must be there: a list, as YAML.
const REQUIRED: &str = "required-plugins.noderesource.dev";

/// What no plugin may adjust, and which plugins must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValidatorConfig {
    /// Validate at all.
    pub enable: bool,
    /// No plugin may add OCI hooks.
    pub reject_oci_hook_adjustment: bool,
    /// No plugin may replace the runtime's default seccomp policy.
    pub reject_runtime_default_seccomp_adjustment: bool,
    /// No plugin may give a seccomp policy to a container that has none.
    pub reject_unconfined_seccomp_adjustment: bool,
    /// No plugin may replace a seccomp policy of the node's own.
    pub reject_custom_seccomp_adjustment: bool,
    /// No plugin may change namespaces.
    pub reject_namespace_adjustment: bool,
    /// No plugin may change sysctls.
    pub reject_sysctl_adjustment: bool,
    /// Plugins, by name or by index and name, without which no container is made.
    pub required_plugins: Vec<String>,
    /// An annotation of pods that may do without; empty for none.
    pub tolerate_missing_plugins_annotation: String,
}

/// The validator.
#[derive(Clone, Debug)]
pub struct Validator(ValidatorConfig);

impl Validator {
    /// As it is called and registered: before every other plugin.
    pub const NAME: (&'static str, &'static str) = ("00", "default-validator");

    /// None when it is not to validate.
    pub fn new(config: ValidatorConfig) -> Option<Self> {
        config.enable.then_some(Self(config))
    }

    /// Judges an adjustment; pure.
    ///
    /// # Errors
    /// Why it is rejected.
    pub fn validate(&self, request: &ValidateContainerAdjustmentRequest) -> Result<(), String> {
        self.hooks(request)?;
        self.seccomp(request)?;
        self.namespaces(request)?;
        self.sysctls(request)?;
        self.required(request)
    }

    fn hooks(&self, request: &ValidateContainerAdjustmentRequest) -> Result<(), String> {
        match owner(request, Field::OciHooks) {
            Some(plugins) if self.0.reject_oci_hook_adjustment => {
                Err(format!("plugins {plugins:?} add OCI hooks, which is not allowed"))
            }
            _ => Ok(()),
        }
    }

    fn seccomp(&self, request: &ValidateContainerAdjustmentRequest) -> Result<(), String> {
        let Some(plugin) = owner(request, Field::SeccompPolicy) else { return Ok(()) };
        let linux = request.container.as_ref().and_then(|container| container.linux.as_ref());
        let profile =
            linux.and_then(|linux| linux.seccomp_profile.as_ref()).map(crate::api::SecurityProfile::profile_type);
        let (rejected, which) = match profile {
            None | Some(ProfileType::Unconfined) => {
                (self.0.reject_unconfined_seccomp_adjustment, "of an unconfined container")
            }
            Some(ProfileType::RuntimeDefault) => {
                (self.0.reject_runtime_default_seccomp_adjustment, "that is the runtime's default")
            }
            Some(ProfileType::Localhost) => (self.0.reject_custom_seccomp_adjustment, "that is the node's own"),
        };
        if rejected {
            return Err(format!("plugin {plugin:?} changes a seccomp policy {which}, which is not allowed"));
        }
        Ok(())
    }

    fn namespaces(&self, request: &ValidateContainerAdjustmentRequest) -> Result<(), String> {
        let changed = owners(request, Field::Namespace);
        if self.0.reject_namespace_adjustment && !changed.is_empty() {
            return Err(format!("namespaces are changed, which is not allowed: {}", changed.join(", ")));
        }
        Ok(())
    }

    fn sysctls(&self, request: &ValidateContainerAdjustmentRequest) -> Result<(), String> {
        let changed = owners(request, Field::Sysctl);
        if self.0.reject_sysctl_adjustment && !changed.is_empty() {
            return Err(format!("sysctls are changed, which is not allowed: {}", changed.join(", ")));
        }
        Ok(())
    }

    fn required(&self, request: &ValidateContainerAdjustmentRequest) -> Result<(), String> {
        let container = request.container.as_ref().map_or("", |container| container.name.as_str());
        let none = PodSandbox::default();
        let pod = request.pod.as_ref().unwrap_or(&none);
        let key = self.0.tolerate_missing_plugins_annotation.as_str();
        if !key.is_empty()
            && let Some(value) = annotation(pod, key, container)
            && boolean(value).ok_or_else(|| format!("annotation {key}: {value:?} is neither true nor false"))?
        {
            return Ok(());
        }
        let mut required = self.0.required_plugins.clone();
        if let Some(value) = annotation(pod, REQUIRED, container) {
            let named: Vec<String> = serde_saphyr::from_str(value)
                .map_err(|error| format!("annotation {REQUIRED}: {value:?} is not a list of plugins: {error}"))?;
            required.extend(named);
        }
        let asked: BTreeSet<String> = request
            .plugins
            .iter()
            .flat_map(|plugin| [plugin.name.clone(), format!("{}-{}", plugin.index, plugin.name)])
            .collect();
        let missing: Vec<&str> =
            required.iter().filter(|plugin| !asked.contains(*plugin)).map(String::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!("required plugins are not there or did not answer: {}", missing.join(", ")))
    }
}

/// Who set a field of the container.
fn owner(request: &ValidateContainerAdjustmentRequest, field: Field) -> Option<&str> {
    let container = request.container.as_ref()?;
    let fields = request.owners.as_ref()?.owners.get(&container.id)?;
    fields.simple.get(&(field as i32)).map(String::as_str)
}

/// Who set which entries of a field of the container, as text.
fn owners(request: &ValidateContainerAdjustmentRequest, field: Field) -> Vec<String> {
    let id = request.container.as_ref().map_or("", |container| container.id.as_str());
    let fields = request.owners.as_ref().and_then(|owners| owners.owners.get(id));
    let entries = fields.and_then(|fields| fields.compound.get(&(field as i32)));
    let all = entries.into_iter().flat_map(|entries| &entries.owners);
    all.map(|(entry, plugin)| format!("{entry} by {plugin:?}")).collect()
}

/// An annotation for one container, for the pod, or without a scope; the first that is there.
fn annotation<'a>(pod: &'a PodSandbox, key: &str, container: &str) -> Option<&'a str> {
    let keys = [format!("{key}/container.{container}"), format!("{key}/pod"), key.to_owned()];
    keys.iter().find_map(|key| pod.annotations.get(key)).map(String::as_str)
}

/// As Go reads a boolean.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::{
        CompoundFieldOwners, Container, FieldOwners, LinuxContainer, OwningPlugins, PluginInstance, SecurityProfile,
    };

    fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// A request in which `10-a` set `field`, entry `entry` when it is not empty.
    fn request(field: Field, entry: &str, annotations: &[(&str, &str)]) -> ValidateContainerAdjustmentRequest {
        let mut fields = FieldOwners::default();
        match entry {
            "" => drop(fields.simple.insert(field as i32, "10-a".to_owned())),
            _ => {
                let owners = CompoundFieldOwners { owners: strings(&[(entry, "10-a")]) };
                fields.compound.insert(field as i32, owners);
            }
        }
        ValidateContainerAdjustmentRequest {
            pod: Some(PodSandbox { annotations: strings(annotations), ..PodSandbox::default() }),
            container: Some(Container { id: "c".to_owned(), name: "web".to_owned(), ..Container::default() }),
            owners: Some(OwningPlugins { owners: [("c".to_owned(), fields)].into() }),
            plugins: vec![PluginInstance { name: "a".to_owned(), index: "10".to_owned() }],
            ..ValidateContainerAdjustmentRequest::default()
        }
    }

    fn check(config: ValidatorConfig, request: &ValidateContainerAdjustmentRequest, rejected: &str) {
        let config = ValidatorConfig { enable: true, ..config };
        let said = Validator::new(config.clone()).unwrap().validate(request);
        match (said, rejected) {
            (Ok(()), "") => {}
            (Err(reason), part) if !part.is_empty() && reason.contains(part) => {}
            (said, _) => panic!("{config:?}: {said:?}, expected {rejected:?}"),
        }
    }

    #[test]
    fn what_may_not_be_adjusted_is_rejected() {
        let none = ValidatorConfig::default();
        let hooks = ValidatorConfig { reject_oci_hook_adjustment: true, ..none.clone() };
        let namespaces = ValidatorConfig { reject_namespace_adjustment: true, ..none.clone() };
        let sysctls = ValidatorConfig { reject_sysctl_adjustment: true, ..none.clone() };
        let all = [none.clone(), hooks.clone(), namespaces.clone(), sysctls.clone()];
        for (field, entry, rejecting, part) in [
            (Field::OciHooks, "", 1, "10-a"),
            (Field::Namespace, "network", 2, "network by \"10-a\""),
            (Field::Sysctl, "net.x", 3, "net.x by \"10-a\""),
            (Field::Mounts, "/x", 9, ""),
        ] {
            for (index, config) in all.iter().enumerate() {
                let rejected = if index == rejecting { part } else { "" };
                check(config.clone(), &request(field, entry, &[]), rejected);
            }
        }
    }

    #[test]
    fn seccomp_is_judged_by_what_it_was() {
        let none = ValidatorConfig::default();
        let unconfined = ValidatorConfig { reject_unconfined_seccomp_adjustment: true, ..none.clone() };
        let default = ValidatorConfig { reject_runtime_default_seccomp_adjustment: true, ..none.clone() };
        let custom = ValidatorConfig { reject_custom_seccomp_adjustment: true, ..none };
        for (profile, rejecting) in [
            (None, &unconfined),
            (Some(ProfileType::Unconfined), &unconfined),
            (Some(ProfileType::RuntimeDefault), &default),
            (Some(ProfileType::Localhost), &custom),
        ] {
            let mut request = request(Field::SeccompPolicy, "", &[]);
            let seccomp_profile =
                profile.map(|profile| SecurityProfile { profile_type: profile as i32, localhost_ref: String::new() });
            request.container.as_mut().unwrap().linux =
                Some(LinuxContainer { seccomp_profile, ..LinuxContainer::default() });
            for config in [&unconfined, &default, &custom] {
                check(config.clone(), &request, if config == rejecting { "seccomp" } else { "" });
            }
        }
    }

    #[test]
    fn required_plugins() {
        let of = |plugins: &[&str], tolerate: &str| ValidatorConfig {
            required_plugins: plugins.iter().map(|plugin| (*plugin).to_owned()).collect(),
            tolerate_missing_plugins_annotation: tolerate.to_owned(),
            ..ValidatorConfig::default()
        };
        let required = "required-plugins.noderesource.dev";
        let of_web = "required-plugins.noderesource.dev/container.web";
        let of_pod = "required-plugins.noderesource.dev/pod";
        for (plugins, annotations, rejected) in [
            (&[][..], &[][..], ""),
            (&["a"][..], &[][..], ""),
            (&["10-a"][..], &[][..], ""),
            (&["20-a"][..], &[][..], "20-a"),
            (&["a", "b", "c"][..], &[][..], "b, c"),
            (&["b"][..], &[("tolerate", "true")][..], ""),
            (&["b"][..], &[("tolerate/pod", "1")][..], ""),
            (&["b"][..], &[("tolerate/container.web", "f"), ("tolerate", "true")][..], "b"),
            (&["b"][..], &[("tolerate", "perhaps")][..], "neither true nor false"),
            (&[][..], &[(required, "[a]")][..], ""),
            (&[][..], &[(required, "- a\n- b\n")][..], "b"),
            (&[][..], &[(required, r#"["z"]"#)][..], "z"),
            (&[][..], &[(required, "a: b")][..], "not a list"),
            (&[][..], &[(of_web, "[a]"), (required, "[z]")][..], ""),
            (&[][..], &[(of_pod, "[a]"), (required, "[z]")][..], ""),
            (&["b"][..], &[(required, "[z]")][..], "b, z"),
        ] {
            check(of(plugins, "tolerate"), &request(Field::Mounts, "/x", annotations), rejected);
        }
    }

    #[test]
    fn one_that_is_not_enabled_is_none() {
        assert!(Validator::new(ValidatorConfig::default()).is_none());
    }
}
