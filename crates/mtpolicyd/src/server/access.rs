//! Whether the user that the daemon will be can read and write what the configuration names.
//!
//! Knows: settings, users, the rights of files. Must not know: what is in the files.

use super::privileges::Identity;
use super::process::ProcessError;
use crate::settings::{Access, Messages, NamedPath, Settings};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, Uid, faccessat};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

/// What a user can't do that the daemon will have to do: the one named, or else the `user` of the file. With
/// neither, whoever starts it: then only the folders are looked for without which it does not start.
///
/// Root looks with that user's rights; another user can look for itself only.
pub fn access(
    path: &Path,
    settings: &Settings,
    said: &Messages,
    user: Option<&str>,
) -> Result<Vec<String>, ProcessError> {
    let globals = &settings.globals;
    let group = globals.group.as_deref().filter(|_| user.is_none());
    let Some(name) = user.or(globals.user.as_deref()) else {
        return Ok(settings.paths.iter().filter_map(missing_folder).collect());
    };
    // Else root makes the sockets and the pid file.
    let starts_itself = user.is_some() && globals.user.is_none();
    let identity = Identity::resolve(Some(name), group, None)?;
    if !Uid::effective().is_root() && identity.user != Some(Uid::effective()) {
        return match user {
            Some(_) => Err(ProcessError::new(format!("only root can look for user {name}"))),
            None => Ok(Vec::new()),
        };
    }
    let troubles = identity.lend(|| {
        let known: BTreeSet<_> = said.lines().map(|(_, line)| line).collect();
        let again = match Settings::load(path, None) {
            Ok((_, messages)) | Err(messages) => messages,
        };
        let new = again.lines().map(|(_, line)| line).filter(|line| !known.contains(line));
        let files = settings.paths.iter().filter_map(|named| trouble(named, starts_itself));
        new.chain(files).map(|what| format!("for user {name}: {what}")).collect()
    })?;
    Ok(troubles)
}

/// That the folder of the pid file, of the log or of a socket is not there.
fn missing_folder(named: &NamedPath) -> Option<String> {
    let is_needed = named.access == Access::Folder || named.place.ends_with(": log_file");
    let folder = folder_of(&named.path);
    match folder.metadata() {
        Ok(found) if found.is_dir() => None,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        _ if is_needed => trouble(named, false),
        _ => None,
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is wrong with a path for the user that this process acts as, who also starts the daemon or does not.
fn trouble(named: &NamedPath, starts_itself: bool) -> Option<String> {
    let NamedPath { place, path, access } = named;
    let shown = path.display();
    let can = |path: &Path, what| faccessat(AT_FDCWD, path, what, AtFlags::AT_EACCESS);
    let folder = folder_of(path);
    let why = match access {
        Access::Read => {
            can(path, AccessFlags::R_OK).err().map(|error| format!("can't read {shown}: {}", error.desc()))
        }
        _ if !folder.is_dir() => Some(match can(folder, AccessFlags::F_OK) {
            Err(error) => format!("{}: {}", folder.display(), error.desc()),
            Ok(()) => format!("{} is not a folder", folder.display()),
        }),
        Access::Make if can(path, AccessFlags::F_OK).is_err() => {
            let made = can(folder, AccessFlags::W_OK | AccessFlags::X_OK).err();
            made.map(|error| format!("can't make {shown}: {}", error.desc()))
        }
        Access::Make => {
            can(path, AccessFlags::W_OK).err().map(|error| format!("can't write {shown}: {}", error.desc()))
        }
        // A pid file that is there is written where it can't be replaced.
        Access::Folder if starts_itself && !(path.is_file() && can(path, AccessFlags::W_OK).is_ok()) => {
            let made = can(folder, AccessFlags::W_OK | AccessFlags::X_OK).err();
            made.map(|error| format!("can't make {shown}: {}", error.desc()))
        }
        Access::Folder => None,
    };
    why.map(|why| format!("{place}: {why}"))
}
