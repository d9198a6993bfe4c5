//! Files that an administrator names, opened so that nobody else decides what is opened.
//!
//! Knows: paths, links, kinds and rights of files. Must not know: what is in them.

mod folder;

pub use folder::{Folder, PrivateFolder, Standing};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Rights of a log file: logs name senders and recipients.
const LOG_MODE: u32 = 0o640;

/// Opens a regular file for reading. A device, a pipe or a folder is an error, and never a wait.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK a pipe would wait for its writer; to a regular file it means nothing.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = if Uid::effective().is_root() {
        let (folder, name) = Folder::of(path)?;
        folder.open(&name, flags, Mode::empty())?
    } else {
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?
    };
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from(nix::errno::Errno::EISDIR));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if is_made_by_kernel(&file)? {
        return Err(io::Error::other("it is not stored anywhere: the kernel makes it while it is read"));
    }
    Ok(file)
}

/// Returns whether a file is of a file system without storage, such as procfs. Such files pass for
/// regular ones of length 0, and reading one may wait (`/proc/kmsg`) or never end.
#[cfg(target_os = "linux")]
pub fn is_made_by_kernel(file: &File) -> io::Result<bool> {
    use nix::sys::statfs::{DEBUGFS_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs};
    let kind = fstatfs(file)?.filesystem_type();
    Ok([PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC].contains(&kind))
}

/// Returns whether a file is of a file system without storage; elsewhere nobody mounts one by default.
#[cfg(not(target_os = "linux"))]
pub fn is_made_by_kernel(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Reads a regular file of at most a given number of bytes; a larger one is an error.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_open(&open_regular(path)?, most)
}

/// Reads an open file of at most a given number of bytes; a larger one is an error, and not read at all.
pub fn read_open(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::other(format!("the file is larger than {}", in_units(most)));
    let length = file.metadata()?.len();
    if length > most {
        return Err(too_large());
    }
    // One buffer of the right size: one that grows is copied, and is twice as large in the end.
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).map_err(|_| too_large())?)?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    // It may have grown meanwhile.
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

fn in_units(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    match bytes {
        _ if bytes.is_multiple_of(KIB * KIB * KIB) => format!("{} GiB", bytes / (KIB * KIB * KIB)),
        _ if bytes.is_multiple_of(KIB * KIB) => format!("{} MiB", bytes / (KIB * KIB)),
        _ if bytes.is_multiple_of(KIB) => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}

/// Opens a file for appending, or makes it, with the rights that the process has.
///
/// Root makes a file anywhere, but writes to one that is there only if no other user can have put it there:
/// in a folder of root, or if it has one name and belongs to root or to the owner of the folder.
pub fn append(path: &Path) -> io::Result<File> {
    if !Uid::effective().is_root() {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(LOG_MODE).custom_flags(append_flags().bits());
        return blocking(options.open(path)?);
    }
    if let Some(file) = append_as_root(path, None, None)? {
        return Ok(file);
    }
    let (folder, name) = Folder::above(path)?;
    let file = folder.open(&name, append_flags(), Mode::empty())?;
    let found = file.metadata()?;
    let is_owners = found.uid() == 0 || found.uid() == folder.owner();
    if found.is_file() && found.nlink() == 1 && is_owners {
        return blocking(file);
    }
    Err(io::Error::other("it belongs to another user, or has other names: root does not write to it"))
}

/// Opens a file for appending as root. A file that this makes is given to the owner. One that is there is
/// never given away, and is opened only in a folder of root; else there is `None`, and the future owner of
/// the file has to open it with its own rights.
pub fn append_as_root(path: &Path, owner: Option<Uid>, group: Option<Gid>) -> io::Result<Option<File>> {
    let (folder, name) = Folder::of(path)?;
    let made = folder.open(&name, append_flags() | OFlag::O_CREAT | OFlag::O_EXCL, mode(LOG_MODE));
    match made {
        Ok(file) => {
            fchown(&file, owner, group)?;
            blocking(file).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match folder.standing() {
            Standing::Root => blocking(folder.open(&name, append_flags(), Mode::empty())?).map(Some),
            Standing::Shared | Standing::Other => Ok(None),
        },
        Err(error) => Err(error),
    }
}

/// Whether another user than root decides what is at a path.
pub fn is_of_others(path: &Path) -> bool {
    match Folder::of(path) {
        Ok((folder, _)) => folder.standing() != Standing::Root,
        // Not an error of the system, but a link that was not followed.
        Err(error) => error.raw_os_error().is_none(),
    }
}

/// A pipe that nobody reads is an error, and never a wait.
fn append_flags() -> OFlag {
    OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
}

/// Once it is open, a full pipe may make the log wait: it has a queue and a thread of its own.
fn blocking(file: File) -> io::Result<File> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

/// Removes a file if it is still that one, and says whether it did.
pub fn remove_same(path: &Path, (device, inode): (u64, u64)) -> bool {
    let removed = Folder::above(path).and_then(|(folder, name)| {
        let found = folder.stat(&name)?;
        if (found.st_dev, found.st_ino) != (device, inode) {
            return Ok(false);
        }
        folder.remove(&name).map(|()| true)
    });
    removed.unwrap_or(false)
}

/// Permission bits.
pub fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_regular_files_are_read_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, plain) = (folder.path().join("pipe"), folder.path().join("plain"));
        nix::unistd::mkfifo(&pipe, mode(0o600)).unwrap();
        std::fs::write(&plain, "12345").unwrap();
        for path in [&*pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read(path, 10).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{}", path.display());
        }
        assert!(read(folder.path(), 10).unwrap_err().to_string().contains("directory"));
        assert_eq!(read(&folder.path().join("none"), 10).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(&plain, 5).unwrap(), b"12345");
        assert_eq!(read(&plain, 4).unwrap_err().to_string(), "the file is larger than 4 bytes");
        assert!(append(&pipe).is_err(), "nobody reads it");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        File::create(&path).unwrap().set_len(40 << 30).unwrap();
        let file = open_regular(&path).unwrap();
        assert_eq!(read_open(&file, 1 << 30).unwrap_err().to_string(), "the file is larger than 1 GiB");
        let position = io::Seek::stream_position(&mut &file).unwrap();
        assert_eq!(position, 0, "nothing was read");
        std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
        let bytes = read(&path, 1 << 30).unwrap();
        assert_eq!((bytes.len(), bytes.capacity()), (100_000, 100_000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_kernel_makes_is_refused() {
        for path in ["/proc/self/status", "/proc/self/mem", "/proc/version"] {
            let error = read(Path::new(path), 1 << 20).unwrap_err().to_string();
            assert!(error.starts_with("it is not stored anywhere"), "{path}: {error}");
        }
    }

    #[test]
    fn a_log_is_made_for_few_and_then_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for text in ["one\n", "two\n"] {
            io::Write::write_all(&mut append(&path).unwrap(), text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn sizes_are_shown_in_units() {
        let shown = [16 << 20, 1 << 30, 64 << 10, 4].map(in_units);
        assert_eq!(shown, ["16 MiB", "1 GiB", "64 KiB", "4 bytes"]);
    }

    /// The folder of another user, with a file of root's beside it that this user must not get at.
    fn folder_of_another() -> Option<(tempfile::TempDir, std::path::PathBuf, std::path::PathBuf)> {
        if !Uid::effective().is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (others, secret) = (folder.path().join("others"), folder.path().join("secret"));
        std::fs::create_dir(&others).unwrap();
        std::os::unix::fs::chown(&others, Some(1), Some(1)).unwrap();
        std::fs::write(&secret, "root's\n").unwrap();
        Some((folder, others, secret))
    }

    #[test]
    fn root_follows_no_link_of_another_user() {
        let Some((folder, others, secret)) = folder_of_another() else { return };
        let path = others.join("link");
        symlink(&secret, &path).unwrap();
        symlink(folder.path(), others.join("folder")).unwrap();
        symlink(&secret, folder.path().join("roots-link")).unwrap();
        for path in [&path, &others.join("folder/secret"), &others.join("../others/link")] {
            let refusals = [
                read(path, 100).unwrap_err().to_string(),
                append(path).unwrap_err().to_string(),
                append_as_root(path, Some(Uid::from_raw(1)), None).unwrap_err().to_string(),
            ];
            let refused = refusals.iter().all(|text| text.contains("root follows no link"));
            assert!(refused, "{}: {refusals:?}", path.display());
        }
        assert_eq!(read(&folder.path().join("roots-link"), 100).unwrap(), b"root's\n");
        assert_eq!(secret.metadata().unwrap().uid(), 0);
    }

    #[test]
    fn root_gives_away_only_what_it_made() {
        let Some((folder, others, secret)) = folder_of_another() else { return };
        let (user, group) = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
        let owner = |path: &Path| path.metadata().unwrap().uid();
        // In a folder of root.
        assert!(append_as_root(&secret, user, group).unwrap().is_some());
        assert_eq!(owner(&secret), 0);
        assert!(append_as_root(&folder.path().join("new"), user, group).unwrap().is_some());
        assert_eq!(owner(&folder.path().join("new")), 1);
        // In the other one's.
        assert!(append_as_root(&others.join("new"), user, group).unwrap().is_some());
        assert_eq!(owner(&others.join("new")), 1);
        assert!(append_as_root(&others.join("new"), user, group).unwrap().is_none());
        // A second name of a file of root's, where the kernel lets others make one.
        std::fs::hard_link(&secret, others.join("hard")).unwrap();
        assert!(append_as_root(&others.join("hard"), user, group).unwrap().is_none());
        assert!(append(&others.join("hard")).unwrap_err().to_string().contains("other names"));
        append(&others.join("new")).unwrap();
        assert_eq!(owner(&secret), 0);
    }
}
