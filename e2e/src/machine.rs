//! What whoever runs the tests says about the machine, by environment variables: how slow it is, what it has to have, and
//! where a registry already runs.

use std::{ffi::OsString, path::PathBuf, time::Duration};

/// So much longer than on an ordinary machine may everything take: a VM with an emulated processor says 10.
const FACTOR: &str = "KEVEL_TEST_TIMEOUT_FACTOR";
/// What this machine has for sure, with commas: a test that is skipped for want of it fails instead.
const REQUIRE: &str = "KEVEL_TEST_REQUIRE";
/// What `hack/test-images` said of a registry that runs and has every image.
const REGISTRY: &str = "KEVEL_TEST_REGISTRY";

/// A time that takes long on an ordinary machine, as long as it is on this one.
///
/// # Panics
/// When the variable for the factor is no number.
pub fn patience(seconds: u64) -> Duration {
    let factor = variable(FACTOR).map_or(1, |factor| {
        let number = factor.to_str().and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("{FACTOR}={factor:?} is not a whole number"))
    });
    Duration::from_secs(seconds).saturating_mul(factor)
}

/// Whether a test has to be skipped since the machine lacks `what`; it is said aloud.
///
/// # Panics
/// When whoever runs the tests says that the machine has it.
pub fn skip_without(what: &str, has: bool) -> bool {
    let required = variable(REQUIRE).unwrap_or_default();
    let required = required.to_string_lossy();
    assert!(has || required.split(',').all(|word| word != what), "{REQUIRE}={required}, and the machine has no {what}");
    if !has {
        eprintln!("skipped: the machine has no {what}");
    }
    !has
}

/// The facts of a registry that runs already.
pub(crate) fn registry_facts() -> Option<PathBuf> {
    variable(REGISTRY).map(PathBuf::from)
}

fn variable(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the tests has no other way to say it")]
    std::env::var_os(name).filter(|value| !value.is_empty())
}
