//! gVisor as Debian packages it, made to run pods behind runc's shim.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// It takes every network namespace of a newer kernel for the host's, and refuses it. To a container that goes into another's
/// sandbox it gives the sandbox's process and the streams of its `start`, which only gVisor's own shim expects; without the
/// annotation that says so, each container has a sandbox of its own.
const SCRIPT: &str = r#"#!/bin/sh
for argument; do
  [ "$before" = --bundle ] && sed -i 's/"io.kubernetes.cri.container-type":/"kevel.test.container-type":/' "$argument/config.json"
  before=$argument
done
exec /usr/bin/runsc --platform=ptrace --network=none "$@"
"#;

/// Writes a runtime for the option `BinaryName` into a folder; its path.
pub fn runsc(folder: &Path) -> anyhow::Result<String> {
    let script = folder.join("runsc");
    fs::write(&script, SCRIPT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script.display().to_string())
}
