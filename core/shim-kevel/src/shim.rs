//! What the program says of itself, and what it does beside serving.

use std::{path::Path, process::Command};

use kevel_cgroup::Hierarchies;
use kevel_plugin::Registry;
use kevel_proto::{
    any,
    containerd::{
        runc::v1 as runc,
        types::{RuntimeInfo, RuntimeVersion},
    },
    runtimeoptions::v1 as generic,
};
use kevel_shim::{Delete, Deleted, Error, Info, Shim, Start};
use prost_types::Any;

use crate::{cleanup, options::Options, plugin::TaskPlugin};

/// Our shim.
pub(crate) struct Kevel;

impl Shim for Kevel {
    const NAME: &'static str = "io.containerd.kevel.v1";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn plugins(&self, registry: &mut Registry) {
        registry.add::<TaskPlugin>();
    }

    fn delete(&self, delete: &Delete) -> Result<Deleted, Error> {
        cleanup::delete(delete).map_err(|error| Error::Other(error.chain()))
    }

    fn info(&self, info: &Info) -> Result<RuntimeInfo, Error> {
        let options = Options::of(info.options.as_ref()).map_err(|error| Error::Other(error.chain()))?;
        let version = RuntimeVersion { version: Self::VERSION.to_owned(), revision: String::new() };
        Ok(RuntimeInfo {
            name: Self::NAME.to_owned(),
            version: Some(version),
            features: features(options.binary())?,
            options: info.options.is_some().then(|| any::pack(&runc::Options::from(options))),
            ..RuntimeInfo::default()
        })
    }

    fn started(&self, start: &Start, pid: u32) -> Result<(), Error> {
        let options = start.extension::<runc::Options>()?.map(|options| any::pack(&options));
        let options = match options {
            None => start.extension::<generic::Options>()?.map(|options| any::pack(&options)),
            some => some,
        };
        let options = Options::of(options.as_ref()).map_err(|error| Error::Other(error.chain()))?;
        match options.shim_cgroup.as_str() {
            "" => Ok(()),
            group => join(group, pid).map_err(|error| Error::system(format!("ShimCgroup: joining {group:?}"), error)),
        }
    }
}

/// Moves a process to a cgroup that exists.
fn join(group: &str, pid: u32) -> std::io::Result<()> {
    let place = Hierarchies::of_node()?.at(&Path::new("/").join(group).to_string_lossy());
    let existing = place.unified.iter().chain(place.controllers.values()).filter(|dir| dir.is_dir());
    let mut joined = false;
    for dir in existing {
        std::fs::write(dir.join("cgroup.procs"), pid.to_string())?;
        joined = true;
    }
    if joined { Ok(()) } else { Err(std::io::ErrorKind::NotFound.into()) }
}

/// What the runtime can do, in its own words; none when it does not say, which not every runtime does.
fn features(binary: &str) -> Result<Option<Any>, Error> {
    let output = Command::new(binary).arg("features").output();
    let output = output.map_err(|error| Error::system(format!("running {binary} features"), error))?;
    let document = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&output.stdout);
    match document {
        Ok(_) if output.status.success() => Ok(Some(Any { type_url: any::FEATURES.to_owned(), value: output.stdout })),
        _ => Ok(None),
    }
}
