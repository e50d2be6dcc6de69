//! One plugin's adjustment of a container that is being made. Each field is claimed, added to what is collected, and
//! put into what later plugins are shown.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{
    Container, ContainerAdjustment, Field, Hooks, KeyValue, LinuxContainer, LinuxContainerAdjustment, LinuxNamespace,
    LinuxRdt,
};

use super::{Conflict, Creation, Owners, overlay, removal, removed, resources};

/// Adds `wanted` to the creation.
pub(super) fn apply(creation: &mut Creation, plugin: &str, wanted: ContainerAdjustment) -> Result<(), Conflict> {
    let shown = creation.request.container.get_or_insert_default();
    let id = shown.id.clone();
    let linux = shown.linux.get_or_insert_default().clone();
    let claims = Claims { owners: &mut creation.changes.owners, container: &id, plugin };
    let mut step = Step { claims, shown, linux, all: &mut creation.adjust };
    step.general(wanted)?;
    let linux = step.linux;
    creation.request.container.get_or_insert_default().linux = Some(linux);
    Ok(())
}

/// Claims of one plugin on one container.
struct Claims<'a> {
    owners: &'a mut Owners,
    container: &'a str,
    plugin: &'a str,
}

impl Claims<'_> {
    fn field(&mut self, field: Field) -> Result<(), Conflict> {
        self.owners.claim(self.container, (field, None), self.plugin)
    }

    fn entry(&mut self, field: Field, key: &str) -> Result<(), Conflict> {
        self.owners.claim(self.container, (field, Some(key)), self.plugin)
    }

    fn clear(&mut self, field: Field) {
        self.owners.clear(self.container, (field, None), self.plugin);
    }

    fn clear_entry(&mut self, field: Field, key: &str) {
        self.owners.clear(self.container, (field, Some(key)), self.plugin);
    }
}

/// What a plugin's adjustment works on.
struct Step<'a> {
    claims: Claims<'a>,
    /// What later plugins are shown.
    shown: &'a mut Container,
    /// Its Linux part.
    linux: LinuxContainer,
    /// What is collected.
    all: &'a mut ContainerAdjustment,
}

impl Step<'_> {
    fn general(&mut self, wanted: ContainerAdjustment) -> Result<(), Conflict> {
        let empty = String::new;
        map(
            &mut self.claims,
            Field::Annotations,
            wanted.annotations,
            &mut self.all.annotations,
            &mut self.shown.annotations,
            empty,
        )?;
        list(&mut self.claims, Field::Mounts, wanted.mounts, &mut self.all.mounts, &mut self.shown.mounts, |one| {
            &one.destination
        })?;
        self.env(wanted.env)?;
        self.args(wanted.args)?;
        self.hooks(wanted.hooks);
        if let Some(linux) = wanted.linux {
            self.linux(linux)?;
        }
        for limit in wanted.rlimits {
            self.claims.entry(Field::Rlimits, &limit.r#type)?;
            self.shown.rlimits.retain(|have| have.r#type != limit.r#type);
            self.shown.rlimits.push(limit.clone());
            self.all.rlimits.push(limit);
        }
        // References, which the runtime resolves; they can be added, and one that two add is a mistake.
        for device in wanted.cdi_devices {
            self.claims.entry(Field::CdiDevices, &device.name)?;
            self.all.cdi_devices.push(device);
        }
        Ok(())
    }

    fn env(&mut self, wanted: Vec<KeyValue>) -> Result<(), Conflict> {
        let split = |variable: &String| {
            let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
            KeyValue { key: key.to_owned(), value: value.to_owned() }
        };
        let mut shown: Vec<KeyValue> = self.shown.env.iter().map(split).collect();
        list(&mut self.claims, Field::Env, wanted, &mut self.all.env, &mut shown, |one| &one.key)?;
        self.shown.env = shown.into_iter().map(|one| format!("{}={}", one.key, one.value)).collect();
        Ok(())
    }

    fn args(&mut self, mut wanted: Vec<String>) -> Result<(), Conflict> {
        let Some(first) = wanted.first() else { return Ok(()) };
        if first.is_empty() {
            self.claims.clear(Field::Args);
            wanted.remove(0);
        }
        self.claims.field(Field::Args)?;
        if !wanted.is_empty() {
            self.all.args.clone_from(&wanted);
            self.shown.args = wanted;
        }
        Ok(())
    }

    fn hooks(&mut self, wanted: Option<Hooks>) {
        let Some(wanted) = wanted.filter(|hooks| *hooks != Hooks::default()) else { return };
        self.claims.owners.share(self.claims.container, Field::OciHooks, self.claims.plugin);
        for into in [self.all.hooks.get_or_insert_default(), self.shown.hooks.get_or_insert_default()] {
            into.prestart.extend(wanted.prestart.iter().cloned());
            into.create_runtime.extend(wanted.create_runtime.iter().cloned());
            into.create_container.extend(wanted.create_container.iter().cloned());
            into.start_container.extend(wanted.start_container.iter().cloned());
            into.poststart.extend(wanted.poststart.iter().cloned());
            into.poststop.extend(wanted.poststop.iter().cloned());
        }
    }

    fn linux(&mut self, wanted: LinuxContainerAdjustment) -> Result<(), Conflict> {
        let all = self.all.linux.get_or_insert_default();
        let (claims, shown) = (&mut self.claims, &mut self.linux);
        list(claims, Field::Devices, wanted.devices, &mut all.devices, &mut shown.devices, |one| &one.path)?;
        if let Some(limits) = wanted.resources {
            resources::claim(&limits, claims.owners, claims.container, claims.plugin)?;
            overlay(all.resources.get_or_insert_default(), &limits);
            overlay(shown.resources.get_or_insert_default(), &limits);
        }
        if !wanted.cgroups_path.is_empty() {
            claims.field(Field::CgroupsPath)?;
            all.cgroups_path.clone_from(&wanted.cgroups_path);
            shown.cgroups_path = wanted.cgroups_path;
        }
        macro_rules! one {
            ($($field:ident => $owned:ident),+ $(,)?) => {
                $(if let Some(value) = wanted.$field {
                    claims.field(Field::$owned)?;
                    all.$field = Some(value.clone());
                    shown.$field = Some(value);
                })+
            };
        }
        one!(
            oom_score_adj => OomScoreAdj, io_priority => IoPriority, seccomp_policy => SeccompPolicy,
            scheduler => LinuxSched,
        );
        namespaces(claims, wanted.namespaces, &mut all.namespaces, &mut shown.namespaces)?;
        map(claims, Field::Sysctl, wanted.sysctl, &mut all.sysctl, &mut shown.sysctl, String::new)?;
        map(
            claims,
            Field::LinuxNetDevices,
            wanted.net_devices,
            &mut all.net_devices,
            &mut shown.net_devices,
            Default::default,
        )?;
        if let Some(wanted) = wanted.rdt {
            rdt(claims, wanted, all.rdt.get_or_insert_default())?;
        }
        if let Some(policy) = wanted.memory_policy {
            claims.field(Field::MemoryPolicy)?;
            all.memory_policy = Some(policy);
        }
        Ok(())
    }
}

/// A list whose entries have names: those that begin with `-` remove.
fn list<T: Clone>(
    claims: &mut Claims<'_>,
    field: Field,
    wanted: Vec<T>,
    all: &mut Vec<T>,
    shown: &mut Vec<T>,
    name: impl Fn(&T) -> &String,
) -> Result<(), Conflict> {
    let (gone, added): (Vec<T>, Vec<T>) = wanted.into_iter().partition(|one| removal(name(one)).1);
    let gone_names: BTreeSet<String> = gone.iter().map(|one| removal(name(one)).0.to_owned()).collect();
    let added_names: BTreeSet<String> = added.iter().map(|one| name(one).clone()).collect();
    for one in all.extract_if(.., |one| gone_names.contains(name(one))) {
        claims.clear_entry(field, name(&one));
    }
    shown.retain(|one| !gone_names.contains(name(one)) && !added_names.contains(name(one)));
    for one in added {
        claims.entry(field, name(&one))?;
        shown.push(one.clone());
        all.push(one);
    }
    // What is replaced needs no removal of its own: the addition takes its place.
    all.extend(gone.into_iter().filter(|one| !added_names.contains(removal(name(one)).0)));
    Ok(())
}

/// A map: keys that begin with `-` remove. Removals are kept beside additions and are done first.
fn map<T: Clone>(
    claims: &mut Claims<'_>,
    field: Field,
    wanted: BTreeMap<String, T>,
    all: &mut BTreeMap<String, T>,
    shown: &mut BTreeMap<String, T>,
    nothing: impl Fn() -> T,
) -> Result<(), Conflict> {
    let (gone, added): (BTreeMap<String, T>, BTreeMap<String, T>) =
        wanted.into_iter().partition(|(key, _)| removal(key).1);
    for key in gone.keys().map(|key| removal(key).0) {
        if all.remove(key).is_some() {
            claims.clear_entry(field, key);
        }
        shown.remove(key);
        all.insert(removed(key), nothing());
    }
    for (key, value) in added {
        claims.entry(field, &key)?;
        shown.insert(key.clone(), value.clone());
        all.insert(key, value);
    }
    Ok(())
}

/// A namespace is claimed by its type, also by who removes it.
fn namespaces(
    claims: &mut Claims<'_>,
    wanted: Vec<LinuxNamespace>,
    all: &mut Vec<LinuxNamespace>,
    shown: &mut Vec<LinuxNamespace>,
) -> Result<(), Conflict> {
    for namespace in wanted {
        let (kind, gone) = removal(&namespace.r#type);
        claims.entry(Field::Namespace, kind)?;
        shown.retain(|have| have.r#type != kind);
        if !gone {
            shown.push(namespace.clone());
        }
        all.push(namespace);
    }
    Ok(())
}

fn rdt(claims: &mut Claims<'_>, wanted: LinuxRdt, all: &mut LinuxRdt) -> Result<(), Conflict> {
    if wanted.remove {
        for field in [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring] {
            claims.clear(field);
        }
        *all = LinuxRdt { remove: true, ..LinuxRdt::default() };
    }
    macro_rules! set {
        ($($field:ident => $owned:ident),+) => {
            $(if wanted.$field.is_some() {
                claims.field(Field::$owned)?;
                all.$field = wanted.$field;
            })+
        };
    }
    set!(clos_id => RdtClosId, schemata => RdtSchemata, enable_monitoring => RdtEnableMonitoring);
    Ok(())
}
