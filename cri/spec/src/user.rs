//! Users and groups of a process. Names are looked up in the image by the caller.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{
    document::Spec,
    error::{Error, Result, invalid},
    input::{GroupsPolicy, User},
};

/// Who a container runs as, spelt as image configurations do (`user`, `uid`, `user:group` and so on), to be looked up
/// in the image's files: the name of the request, else its id, else the image's word. Empty means root.
pub fn user_string(username: &str, uid: Option<i64>, gid: Option<i64>, image: &str) -> Result<String> {
    let mut user = username.to_owned();
    if let (true, Some(uid)) = (user.is_empty(), uid) {
        user = id("run_as_user", uid)?.to_string();
    }
    if user.contains(':') {
        return invalid("run_as_username", format!("{user:?} has a colon in it"));
    }
    match gid {
        None if user.is_empty() => Ok(image.to_owned()),
        None => Ok(user),
        Some(_) if user.is_empty() => invalid("run_as_group", "a group without a user"),
        Some(gid) => Ok(format!("{user}:{}", id("run_as_group", gid)?)),
    }
}

/// Sets the user. The primary group is always among the additional ones: a process could otherwise lose it with
/// setgid and so get around a rule that denies a group something (CVE-2022-36109).
pub(crate) fn apply(spec: &mut Spec, user: &User) -> Result<()> {
    let gid = id("run_as_group", user.gid)?;
    let mut groups = BTreeSet::from([gid]);
    for (index, group) in user.supplemental_groups.iter().enumerate() {
        groups.insert(id(&format!("supplemental_groups[{index}]"), *group)?);
    }
    if user.groups_policy == GroupsPolicy::Merge {
        for group in &user.image_groups {
            groups.insert(id("image groups", *group)?);
        }
    }
    let uid = id("run_as_user", user.uid)?;
    spec.set("process/user", json!({ "uid": uid, "gid": gid, "additionalGids": groups }))
}

/// An id that the kernel can take; the last one means "unchanged" in its calls.
pub(crate) fn id(field: &str, id: i64) -> Result<u32> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| Error::Invalid {
        field: field.into(),
        reason: format!("{id} is not between 0 and {}", u32::MAX - 1),
    })
}
