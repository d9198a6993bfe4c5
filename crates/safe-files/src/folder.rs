//! Folders: the way to a file, one step after the other, so that no link leads root astray.
//!
//! Knows: links, access rights. Must not know: what is opened for what.

use super::mode;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fchdir, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Links that one path may lead over, as in the kernel.
const MAX_LINKS: usize = 40;

/// Who can have put something into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Root alone.
    Root,
    /// Everybody, but what is root's stays (`/tmp`).
    Shared,
    /// Another user.
    Other,
}

/// A folder that is open, so that nobody can put another one in its place.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    owner: u32,
    standing: Standing,
    /// How it was found, for systems without `/proc`.
    path: PathBuf,
}

/// A folder inside another one that nobody else can enter; removed when it is dropped.
#[derive(Debug)]
pub struct PrivateFolder<'a> {
    folder: Folder,
    outer: &'a Folder,
    name: OsString,
}

impl Folder {
    /// The folder of a file and the name of the file in it, after links to the file have been followed.
    /// Root follows a link only where root alone can have made it.
    pub fn of(path: &Path) -> io::Result<(Folder, OsString)> {
        walk(path, true)
    }

    /// The same, but a link at the very end is not followed.
    pub fn above(path: &Path) -> io::Result<(Folder, OsString)> {
        if Uid::effective().is_root() {
            return walk(path, false);
        }
        let path = std::path::absolute(path)?;
        let (above, name) = path.parent().zip(path.file_name()).ok_or(Errno::EISDIR)?;
        let fd = open(above, folder_flags(), Mode::empty())?;
        Ok((Folder::new(fd, Standing::Root, above.to_owned())?, name.to_owned()))
    }

    fn new(fd: OwnedFd, outside: Standing, path: PathBuf) -> io::Result<Folder> {
        let found = fstat(&fd)?;
        let standing = match standing(&found) {
            // Whose folder is above may have put another one here.
            _ if outside == Standing::Other => Standing::Other,
            standing => standing,
        };
        Ok(Folder { fd, owner: found.st_uid, standing, path })
    }

    /// Whether root may follow a link of this owner in it; in `/tmp` as the kernel has it
    /// (`protected_symlinks`).
    fn is_trusted(&self, owner: u32) -> bool {
        match self.standing {
            Standing::Root => true,
            Standing::Shared => owner == 0,
            Standing::Other => false,
        }
    }

    /// Who can have put something here.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The user that owns it.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Opens or makes a file in it; a link is an error.
    pub fn open(&self, name: &OsStr, flags: OFlag, rights: Mode) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.fd, name, flags, rights) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::ELOOP) => Err(a_link(&self.path.join(name))),
            Err(error) => Err(error.into()),
        }
    }

    /// What is known of a file in it; of a link, the link itself.
    pub fn stat(&self, name: &OsStr) -> io::Result<FileStat> {
        Ok(fstatat(&self.fd, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Removes a file from it.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// A path that leads to this very folder, whatever has become of its name.
    pub fn path(&self) -> io::Result<PathBuf> {
        let descriptors = Path::new("/proc/self/fd");
        if descriptors.is_dir() {
            return Ok(descriptors.join(self.fd.as_raw_fd().to_string()));
        }
        if Uid::effective().is_root() && self.standing != Standing::Root {
            return Err(io::Error::other(
                "without /proc root can't make a socket in a folder of another user",
            ));
        }
        Ok(self.path.clone())
    }

    /// Makes it the working folder.
    pub fn enter(&self) -> io::Result<()> {
        Ok(fchdir(&self.fd)?)
    }

    /// Makes a folder in it that only this user can enter.
    pub fn private(&self) -> io::Result<PrivateFolder<'_>> {
        /// Names to try: a process that was killed may have left some.
        const TRIES: usize = 100;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        for _ in 0..TRIES {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!(".mtpolicyd-{}-{number}", std::process::id()));
            match mkdirat(&self.fd, name.as_os_str(), mode(0o700)) {
                Ok(()) => {}
                Err(Errno::EEXIST) => continue,
                Err(error) => return Err(error.into()),
            }
            let fd = openat(&self.fd, name.as_os_str(), folder_flags() | OFlag::O_NOFOLLOW, Mode::empty())?;
            let folder = Folder::new(fd, Standing::Root, self.path.join(&name))?;
            let found = fstat(&folder.fd)?;
            // Nobody can have exchanged it for one that others can enter.
            if found.st_uid != Uid::effective().as_raw() || found.st_mode & 0o077 != 0 {
                return Err(io::Error::other("somebody is exchanging files in this folder"));
            }
            return Ok(PrivateFolder { folder, outer: self, name });
        }
        Err(Errno::EEXIST.into())
    }
}

impl PrivateFolder<'_> {
    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Gives a file in it its name in the folder outside; a file of that name there is replaced.
    pub fn move_out(&self, file: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.folder.fd, file, &self.outer.fd, name)?)
    }
}

impl Drop for PrivateFolder<'_> {
    fn drop(&mut self) {
        // An empty folder that can't be removed does no harm.
        let _ = unlinkat(&self.outer.fd, self.name.as_os_str(), UnlinkatFlags::RemoveDir);
    }
}

/// Who can have put something into a folder, going by the folder alone.
fn standing(found: &FileStat) -> Standing {
    const GROUP_WRITES: u32 = 0o020;
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let others = found.st_mode & OTHERS_WRITE != 0;
    let group = found.st_mode & GROUP_WRITES != 0 && found.st_gid != 0;
    match found.st_uid {
        0 if !others && !group => Standing::Root,
        0 if found.st_mode & STICKY != 0 => Standing::Shared,
        _ => Standing::Other,
    }
}

fn folder_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// What stands at a step of the way.
enum Found {
    Folder(OwnedFd),
    Link { target: OsString, owner: u32 },
    Else,
}

/// Goes to the folder of a file.
fn walk(path: &Path, follow_last: bool) -> io::Result<(Folder, OsString)> {
    let root = || Folder::new(open("/", folder_flags(), Mode::empty())?, Standing::Root, "/".into());
    let mut folder = root()?;
    let mut left = Vec::new();
    push(&mut left, &std::path::absolute(path)?);
    let mut links = 0;
    while let Some(name) = left.pop() {
        let is_last = left.is_empty();
        if is_last && !follow_last && name != ".." {
            return Ok((folder, name));
        }
        match look(&folder, &name) {
            Ok(Found::Link { owner, .. }) if !folder.is_trusted(owner) => {
                return Err(a_link(&folder.path.join(name)));
            }
            Ok(Found::Link { .. }) if links == MAX_LINKS => return Err(Errno::ELOOP.into()),
            Ok(Found::Link { target, .. }) => {
                links += 1;
                if Path::new(&target).is_absolute() {
                    folder = root()?;
                }
                push(&mut left, Path::new(&target));
            }
            Ok(Found::Folder(fd)) if !is_last || name == ".." => {
                let path = if name == ".." { folder.path.join("..") } else { folder.path.join(&name) };
                folder = Folder::new(fd, folder.standing, path)?;
            }
            Ok(_) | Err(Errno::ENOENT) if is_last => return Ok((folder, name)),
            Ok(_) => return Err(Errno::ENOTDIR.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EISDIR.into())
}

/// Adds the steps of a path, the first on top.
fn push(left: &mut Vec<OsString>, path: &Path) {
    let steps = path.components().filter_map(|step| match step {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let steps: Vec<_> = steps.collect();
    left.extend(steps.into_iter().rev());
}

fn look(folder: &Folder, name: &OsStr) -> Result<Found, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(&folder.fd, name, flags, Mode::empty())?;
    let found = fstat(&fd)?;
    Ok(match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Found::Folder(fd),
        SFlag::S_IFLNK => Found::Link { target: readlinkat(&fd, "")?, owner: found.st_uid },
        _ => Found::Else,
    })
}

fn a_link(path: &Path) -> io::Error {
    io::Error::other(format!("{} is a link: root follows no link that another user can make", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn roots_own_links_are_followed_to_their_end() {
        if !Uid::effective().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        std::fs::create_dir_all(path("a/b")).unwrap();
        std::fs::write(path("a/b/file"), "").unwrap();
        symlink("a/b", path("short")).unwrap();
        symlink(path("short/file"), path("absolute")).unwrap();
        symlink("loop", path("loop")).unwrap();
        for name in ["a/b/file", "short/file", "short/../b/file", "absolute", "./a/./b/file"] {
            let (folder, name) = Folder::of(&path(name)).unwrap();
            assert_eq!((folder.standing(), &*name), (Standing::Root, OsStr::new("file")));
        }
        assert_eq!(Folder::above(&path("absolute")).unwrap().1, "absolute");
        let raw = |path: &Path| Folder::of(path).unwrap_err().raw_os_error();
        assert_eq!(raw(&path("loop")), Some(Errno::ELOOP as i32));
        assert_eq!(raw(&path("none/file")), Some(Errno::ENOENT as i32));
        assert_eq!(raw(&path("a/b/file/x")), Some(Errno::ENOTDIR as i32));
        assert_eq!(raw(Path::new("/")), Some(Errno::EISDIR as i32));
    }

    #[test]
    fn a_private_folder_is_gone_when_it_has_been_used() {
        let top = tempfile::tempdir().unwrap();
        let (folder, name) = Folder::above(&top.path().join("file")).unwrap();
        let private = folder.private().unwrap();
        std::fs::write(private.folder().path().unwrap().join("x"), "text").unwrap();
        private.move_out(OsStr::new("x"), &name).unwrap();
        drop(private);
        let left: Vec<_> =
            std::fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["file"]);
        assert_eq!(std::fs::read_to_string(top.path().join("file")).unwrap(), "text");
    }
}
