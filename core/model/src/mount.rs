//! A mount as snapshotters, shims and clients pass it around: a description, not an action.

use serde::{Deserialize, Serialize};

/// One mount. Options are those of mount(8) as separate words (`lowerdir=/a:/b`, `rbind`, `ro`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// File system type: `overlay`, `bind`, `tmpfs`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Device or directory to mount.
    pub source: String,
    /// Where below the common target; nearly always empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Mount options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Mount {
    /// Whether the mount can't be written through.
    pub fn is_read_only(&self) -> bool {
        if self.kind == "overlay" {
            return !self.options.iter().any(|option| option.starts_with("upperdir="));
        }
        self.options.iter().any(|option| option == "ro")
    }
}
