//! The user that the daemon runs as: `user`, `group` and `chroot`, and the one-way step to it.
//!
//! Knows: the system's users and groups, this process. Must not know: sockets, settings.

use super::process::ProcessError;
use nix::unistd::{self, Gid, Group, Uid, User};
use safe_files::Folder;
use std::path::{Path, PathBuf};

/// The user and groups to change to, with every name looked up. Two are equal when a restart would change
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user; none keeps the one that started the daemon.
    pub user: Option<Uid>,
    /// The groups, the first is the primary one and the others are supplementary; none keeps those there are.
    pub groups: Vec<Gid>,
    /// The directory that becomes the root of the file system.
    pub chroot: Option<PathBuf>,
}

impl Identity {
    /// Looks the names up; numbers are taken as ids.
    ///
    /// `group` may name several, separated by blanks or commas. A user without `group` gets the primary group
    /// of that user: the original left the group root in that case.
    pub fn resolve(
        user: Option<&str>,
        group: Option<&str>,
        chroot: Option<&Path>,
    ) -> Result<Identity, ProcessError> {
        let found = user.map(find_user).transpose()?;
        let groups = match (group, found) {
            (Some(names), _) => find_groups(names)?,
            (None, Some((_, Some(primary)))) => vec![primary],
            (None, Some((uid, None))) => {
                return Err(ProcessError::new(format!(
                    "user {uid} has no entry to take the group from: set \"group\""
                )));
            }
            (None, None) => Vec::new(),
        };
        let user = found.map(|(uid, _)| uid);
        Ok(Identity { user, groups, chroot: chroot.map(find_chroot).transpose()? })
    }

    /// Becomes this identity for good; where nothing has to change nothing is asked for.
    ///
    /// To be called before there are threads, with all sockets bound and all files open. After it no way
    /// leads back: not to root, and not to more rights through a set-uid program.
    pub fn assume(&self) -> Result<(), ProcessError> {
        if Uid::effective().is_root() {
            self.change()?;
        } else {
            // systemd's `User=` may have done it already.
            self.compare()?;
        }
        nix::sys::prctl::set_no_new_privs().map_err(|error| failed("give up new privileges", error))
    }

    /// Does something with the rights of this identity, though not yet in its root of the file system; then
    /// the process is root again. For files in folders where root has no business.
    ///
    /// To be called before there are threads.
    pub fn lend<T>(&self, work: impl FnOnce() -> T) -> Result<T, ProcessError> {
        let (Some(user), Some(&group)) = (self.user, self.groups.first()) else { return Ok(work()) };
        if !Uid::effective().is_root() {
            return Ok(work());
        }
        let had = unistd::getgroups().map_err(|error| failed("read the groups", error))?;
        let own = Gid::effective();
        let become_user = unistd::setgroups(&self.groups)
            .and_then(|()| unistd::setegid(group))
            .and_then(|()| unistd::seteuid(user));
        become_user.map_err(|error| failed(&format!("act as user {user}"), error))?;
        let done = work();
        let back = unistd::seteuid(Uid::from_raw(0))
            .and_then(|()| unistd::setegid(own))
            .and_then(|()| unistd::setgroups(&had));
        back.map_err(|error| failed("be root again", error))?;
        Ok(done)
    }

    fn change(&self) -> Result<(), ProcessError> {
        if let Some(directory) = &self.chroot {
            // By way of the folder itself, so that no link of another user leads elsewhere.
            let entered = Folder::above(&directory.join("root")).and_then(|(folder, _)| folder.enter());
            let changed = entered
                .and_then(|()| unistd::chroot(".").and_then(|()| unistd::chdir("/")).map_err(Into::into));
            changed.map_err(|error| {
                ProcessError::new(format!("cannot chroot to {}: {error}", directory.display()))
            })?;
        }
        if let Some(&primary) = self.groups.first() {
            unistd::setgroups(&self.groups).map_err(|error| failed("set the groups", error))?;
            unistd::setresgid(primary, primary, primary)
                .map_err(|error| failed(&format!("become group {primary}"), error))?;
        }
        let Some(user) = self.user else { return Ok(()) };
        unistd::setresuid(user, user, user).map_err(|error| failed(&format!("become user {user}"), error))?;
        let root = Uid::from_raw(0);
        if user != root && (Uid::current() != user || unistd::setuid(root).is_ok()) {
            return Err(ProcessError::new("the rights of root could be had back: not started".to_owned()));
        }
        Ok(())
    }

    /// Whether a process without the rights of root is this identity already.
    fn compare(&self) -> Result<(), ProcessError> {
        if let Some(directory) = &self.chroot {
            return Err(needs_root(&format!("chroot to {}", directory.display())));
        }
        if let Some(user) = self.user.filter(|user| *user != Uid::effective()) {
            return Err(needs_root(&format!("become user {user}")));
        }
        let effective = Gid::effective();
        if let Some(primary) = self.groups.first().filter(|primary| **primary != effective) {
            return Err(needs_root(&format!("become group {primary}")));
        }
        let have = unistd::getgroups().map_err(|error| failed("read the groups", error))?;
        match self.groups.iter().find(|group| **group != effective && !have.contains(group)) {
            Some(group) => Err(needs_root(&format!("become a member of group {group}"))),
            None => Ok(()),
        }
    }
}

/// The id of a user, by name or number.
pub fn user_id(name: &str) -> Result<Uid, ProcessError> {
    find_user(name).map(|(uid, _)| uid)
}

/// The id of a group, by name or number.
pub fn group_id(name: &str) -> Result<Gid, ProcessError> {
    let found = Group::from_name(name).map_err(|error| lookup_failed("group", name, error))?;
    let gid = found.map(|group| group.gid).or_else(|| name.parse().ok().map(Gid::from_raw));
    gid.ok_or_else(|| ProcessError::new(format!("there is no group \"{name}\"")))
}

/// The user's id, and its primary group if the system knows the user.
fn find_user(name: &str) -> Result<(Uid, Option<Gid>), ProcessError> {
    let name = name.trim();
    let mut found = User::from_name(name).map_err(|error| lookup_failed("user", name, error))?;
    let number = name.parse().ok().map(Uid::from_raw);
    if let (None, Some(uid)) = (&found, number) {
        found = User::from_uid(uid).map_err(|error| lookup_failed("user", name, error))?;
    }
    match (found, number) {
        (Some(user), _) => Ok((user.uid, Some(user.gid))),
        (None, Some(uid)) => Ok((uid, None)),
        (None, None) => Err(ProcessError::new(format!("there is no user \"{name}\""))),
    }
}

/// The groups in the order written, each once.
fn find_groups(names: &str) -> Result<Vec<Gid>, ProcessError> {
    let mut groups = Vec::new();
    for name in names.split([',', ' ', '\t']).filter(|name| !name.is_empty()) {
        let gid = group_id(name)?;
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    if groups.is_empty() {
        return Err(ProcessError::new("\"group\" names no group".to_owned()));
    }
    Ok(groups)
}

fn find_chroot(directory: &Path) -> Result<PathBuf, ProcessError> {
    if directory.is_absolute() && directory.is_dir() {
        return Ok(directory.to_owned());
    }
    let what =
        if directory.is_absolute() { "there is no such directory" } else { "the path has to start with /" };
    Err(ProcessError::new(format!("cannot chroot to {}: {what}", directory.display())))
}

fn failed(what: &str, error: nix::errno::Errno) -> ProcessError {
    ProcessError::new(format!("cannot {what}: {}", error.desc()))
}

fn needs_root(what: &str) -> ProcessError {
    ProcessError::new(format!(
        "cannot {what}: the daemon was started as uid {}, not as root",
        Uid::effective()
    ))
}

fn lookup_failed(kind: &str, name: &str, error: nix::errno::Errno) -> ProcessError {
    ProcessError::new(format!("cannot look up {kind} \"{name}\": {}", error.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Identity, String> {
        Identity::resolve(user, group, None).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        let daemon = resolve(Some("daemon"), None).unwrap();
        assert_eq!(daemon.user, Some(Uid::from_raw(1)));
        assert_eq!(daemon.groups, [Gid::from_raw(1)], "the primary group of the user");
        assert_eq!(resolve(Some("1"), Some("1")).unwrap(), daemon);
        assert_eq!(resolve(None, None).unwrap(), Identity::default());
        assert_eq!(user_id("root").unwrap(), Uid::from_raw(0));
    }

    #[test]
    fn several_groups_are_separated_by_blanks_or_commas() {
        let expected = [Gid::from_raw(1), Gid::from_raw(2), Gid::from_raw(0)];
        for text in ["daemon bin root", "daemon,bin,root", " daemon, bin ,root ", "daemon 2 bin root"] {
            assert_eq!(resolve(Some("daemon"), Some(text)).unwrap().groups, expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(resolve(Some("no-such-user"), None).unwrap_err(), "there is no user \"no-such-user\"");
        assert_eq!(
            resolve(None, Some("root no-such-group")).unwrap_err(),
            "there is no group \"no-such-group\""
        );
        assert_eq!(resolve(None, Some(" , ")).unwrap_err(), "\"group\" names no group");
        assert!(resolve(Some("3999999999"), None).unwrap_err().contains("set \"group\""));
        let chroot = |path| Identity::resolve(None, None, Some(Path::new(path))).unwrap_err().to_string();
        assert!(chroot("/no/such/directory").ends_with("there is no such directory"));
        assert!(chroot("relative").ends_with("the path has to start with /"));
    }
}
