//! Who a container runs as: names and groups from the image's own files.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use kevel_cri_spec::{GroupsPolicy, User};
use kevel_model::{Error, Mount, Result};
use kevel_proto::runtime::v1::{ContainerConfig, SupplementalGroupsPolicy};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::image::ImageConfig;

/// The most that is read of `/etc/passwd` and `/etc/group`.
const LIMIT: u64 = 8 << 20;

/// Mounts the root file system for a look, finds the user in it, and lets `with` look around, too. Blocks.
pub(super) fn look_up(
    temporary: &Path,
    rootfs: &[Mount],
    config: &ContainerConfig,
    image: &ImageConfig,
    with: impl FnOnce(&Path) -> Result<()>,
) -> Result<User> {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let (uid, gid) = (security.run_as_user.map(|id| id.value), security.run_as_group.map(|id| id.value));
    let named = !security.run_as_username.is_empty();
    let word = kevel_cri_spec::user_string(&security.run_as_username, uid, gid, &image.user)?;
    let view = kevel_mount::read_only(rootfs);
    let mut user = kevel_mount::with_temp_mount(temporary, &view, |root| -> Result<User> {
        with(root)?;
        let read = |path: &str| read(root, path);
        let field = "config.linux.security_context.run_as_username";
        let found = resolve(&word, &read("etc/passwd")?, &read("etc/group")?);
        found.map_err(|error| if named { error.context(field) } else { error })
    })?;
    user.supplemental_groups = security.supplemental_groups;
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict as i32 {
        user.groups_policy = GroupsPolicy::Strict;
    }
    Ok(user)
}

/// A file of the image, whose links lead nowhere else; empty when there is none.
#[expect(clippy::disallowed_methods, reason = "what is read is bounded by take")]
fn read(root: &Path, path: &str) -> Result<String> {
    let doing = || format!("reading /{path} of the image");
    let dir = File::open(root).map_err(|error| Error::io(doing(), error))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat2(&dir, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(Error::io(doing(), error.into())),
    };
    let mut bytes = Vec::new();
    if !file.metadata().map_err(|error| Error::io(doing(), error))?.is_file() {
        return Err(Error::io(doing(), io::Error::new(io::ErrorKind::InvalidData, "not a file")));
    }
    file.take(LIMIT).read_to_end(&mut bytes).map_err(|error| Error::io(doing(), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A user from `name`, `id`, and either with `:group`; names must be in the files, ids need not.
fn resolve(word: &str, passwd: &str, group: &str) -> Result<User> {
    let (name, of) = word.split_once(':').map_or((word, None), |(user, group)| (user, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<i64> = name.parse().ok();
    let entries = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|entry| entry.len() >= 4);
    let mut found = None;
    for entry in entries {
        let (Ok(uid), Ok(gid)) = (entry[2].parse::<i64>(), entry[3].parse::<i64>()) else { continue };
        if entry[0] == name || number == Some(uid) {
            found = Some((entry[0].to_owned(), uid, gid));
            break;
        }
    }
    let (login, uid, primary) = match (found, number) {
        (Some(found), _) => found,
        (None, Some(uid)) => (String::new(), uid, 0),
        (None, None) => {
            return Err(Error::invalid_argument(format!("user {name:?} is not in the image's /etc/passwd")));
        }
    };
    let groups: Vec<(&str, i64, Vec<&str>)> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next().unwrap_or(""));
            Some((name, gid.parse().ok()?, members.split(',').collect()))
        })
        .collect();
    let gid = match of {
        None | Some("") => primary,
        Some(of) => match groups.iter().find(|(name, gid, _)| *name == of || gid.to_string() == of) {
            Some((_, gid, _)) => *gid,
            None => of
                .parse()
                .map_err(|_| Error::invalid_argument(format!("group {of:?} is not in the image's /etc/group")))?,
        },
    };
    let member = |members: &Vec<&str>| !login.is_empty() && members.contains(&login.as_str());
    let image_groups = groups.iter().filter(|(_, _, members)| member(members)).map(|(_, gid, _)| *gid).collect();
    Ok(User { uid, gid, image_groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/:\nbad\nx:y:z:1\n# c\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,ann\nann:x:1001:\nstaff:x:50:ann\nbroken\n";

    #[test]
    fn users_are_found() {
        let check = |word: &str, want: (i64, i64, &[i64])| {
            let user = resolve(word, PASSWD, GROUP).unwrap();
            assert_eq!((user.uid, user.gid, user.image_groups.as_slice()), want, "{word}");
        };
        check("", (0, 0, &[10]));
        check("root", (0, 0, &[10]));
        check("ann", (1000, 1001, &[10, 50]));
        check("1000", (1000, 1001, &[10, 50]));
        check("ann:staff", (1000, 50, &[10, 50]));
        check("ann:77", (1000, 77, &[10, 50]));
        check("7", (7, 0, &[]));
        check("7:wheel", (7, 10, &[]));
        for word in ["nobody", "ann:none", "0:none"] {
            assert_eq!(resolve(word, PASSWD, GROUP).unwrap_err().code(), kevel_model::Code::InvalidArgument, "{word}");
        }
        assert_eq!(resolve("", "", "").unwrap().uid, 0);
    }

    #[test]
    fn links_stay_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/other", dir.path().join("etc/passwd")).unwrap();
        std::fs::write(dir.path().join("other"), "inside").unwrap();
        assert_eq!(read(dir.path(), "etc/passwd").unwrap(), "inside");
        std::os::unix::fs::symlink("../../../../../../../../etc/hostname", dir.path().join("etc/group")).unwrap();
        assert_eq!(read(dir.path(), "etc/group").unwrap(), "");
        std::fs::create_dir(dir.path().join("etc/dir")).unwrap();
        assert!(read(dir.path(), "etc/dir").is_err());
    }
}
