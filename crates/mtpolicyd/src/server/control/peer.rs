//! Who is at the other end of a control connection, and what they may do.
//!
//! Knows: credentials that the kernel vouches for (`SO_PEERCRED`, unix(7)), people at the console.
//! Must not know: what is asked.

use crate::settings::Level;
use nix::unistd::{Gid, Group, Uid, User};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixStream;

/// The right of everybody to connect, which the daemon does not give.
const OTHERS_WRITE: u32 = 0o002;

/// A caller.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The user, if the kernel has told.
    user: Option<Uid>,
    /// Whether it came in by the group of the socket.
    is_member: bool,
    /// That group, for messages.
    group: Option<Gid>,
    /// Somebody at the console in place of a user of this machine, and what they may do.
    person: Option<(Arc<str>, Level)>,
    name: Arc<std::sync::OnceLock<String>>,
}

impl Peer {
    /// That of a connection to the socket at this path.
    ///
    /// The kernel lets root, the owner and members of the group connect, so whoever is neither of the first
    /// two is a member, unless somebody has opened the socket to everybody; then only those count whose own
    /// group it is.
    pub fn of(stream: &UnixStream, path: &Path) -> Peer {
        let credentials = stream.peer_cred().ok();
        let user = credentials.as_ref().map(|credentials| Uid::from_raw(credentials.uid()));
        let file = path.metadata().ok();
        let group = file.as_ref().map(|file| file.gid());
        let is_open = file.as_ref().is_some_and(|file| file.permissions().mode() & OTHERS_WRITE != 0);
        let has_group = credentials.is_some_and(|credentials| Some(credentials.gid()) == group);
        let is_member = user.is_some() && (!is_open || has_group);
        Peer { user, is_member, group: group.map(Gid::from_raw), person: None, name: Arc::default() }
    }

    /// Somebody whom the console has signed in.
    pub fn at_console(name: &str, level: Level) -> Peer {
        let person = Some((Arc::from(format!("{name} (console)")), level));
        Peer { user: None, is_member: false, group: None, person, name: Arc::default() }
    }

    /// What it may do, where members of the group may do this; `None` is nothing.
    pub fn level(&self, of_members: Level) -> Option<Level> {
        if let Some((_, level)) = &self.person {
            return Some(*level);
        }
        let user = self.user?;
        if user.is_root() || user == Uid::effective() {
            return Some(Level::Admin);
        }
        self.is_member.then_some(of_members)
    }

    /// The name of the user, or its number.
    ///
    /// Asked once for each connection, by those who change something; the users of the system may be on
    /// another machine, so it is asked on a thread.
    pub async fn name(&self) -> String {
        if let Some((name, _)) = &self.person {
            return name.to_string();
        }
        let (name, user) = (self.name.clone(), self.user);
        let asked = tokio::task::spawn_blocking(move || name.get_or_init(|| name_of(user)).clone()).await;
        asked.unwrap_or_default()
    }

    /// Who may connect, for messages.
    pub async fn allowed(&self) -> String {
        let group = self.group;
        let named = tokio::task::spawn_blocking(move || group.map(group_name)).await.ok().flatten();
        match named {
            Some(group) => format!("root, the user of the daemon and members of group {group}"),
            None => "root and the user of the daemon".to_owned(),
        }
    }
}

fn name_of(user: Option<Uid>) -> String {
    let Some(user) = user else { return "somebody unknown".to_owned() };
    let known = User::from_uid(user).ok().flatten();
    known.map_or_else(|| format!("uid {user}"), |known| known.name)
}

fn group_name(group: Gid) -> String {
    let known = Group::from_gid(group).ok().flatten();
    known.map_or_else(|| group.to_string(), |known| known.name)
}
