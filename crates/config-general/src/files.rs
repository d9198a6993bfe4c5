//! Finding and reading files: the main one, and those that it includes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::limits::Limits;
use crate::source::decode;

/// Why a file can't be used: what is wrong, and what to do about it.
pub(crate) type Refusal = (String, Option<String>);

/// The files of one configuration: which were read, and how much may still be.
pub(crate) struct Files<'a> {
    limits: &'a Limits,
    /// The folder of the main file.
    folder: PathBuf,
    read: HashSet<PathBuf>,
    bytes_left: usize,
}

impl<'a> Files<'a> {
    pub(crate) fn new(main: &Path, limits: &'a Limits) -> Files<'a> {
        let folder = main.parent().unwrap_or(Path::new("")).to_owned();
        let bytes_left = limits.capped_bytes();
        Files { limits, folder, read: HashSet::new(), bytes_left }
    }

    /// Where the file of an include line is: next to the file that has the line or, as in the original, next
    /// to the main file, so that it does not matter from where the program is started; or else, as in the
    /// original, in the working folder, which is worth a warning: `true`.
    pub(crate) fn find(&self, name: &str, includer: &Path) -> Result<(PathBuf, bool), Refusal> {
        let beside = includer.parent().unwrap_or(Path::new("")).join(name);
        let candidates = [beside, self.folder.join(name), PathBuf::from(name)];
        if let Some(at) = candidates.iter().position(|path| path.exists()) {
            let found = candidates[at].clone();
            return Ok((found, at == 2));
        }
        if name.starts_with(['"', '\'']) {
            let help = "write the name without quotes, they count as a part of it".to_owned();
            return Err((format!("the included file `{name}` does not exist"), Some(help)));
        }
        let mut looked: Vec<_> = candidates
            .iter()
            .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            .collect();
        let mut seen = HashSet::new();
        looked.retain(|path| seen.insert(path.clone()));
        let shown: Vec<_> = looked.iter().map(|path| format!("`{}`", path.display())).collect();
        let message = format!("the included file {} does not exist", shown[0]);
        let help = match &shown[1..] {
            [] => "create it, or remove the line".to_owned(),
            others => {
                format!("create it, or remove the line; it was looked for as {} too", others.join(", "))
            }
        };
        Err((message, Some(help)))
    }

    /// Marks a file as read; `false` if it was read before.
    ///
    /// Told apart by folder and file name, so however the folder is spelled, a loop ends. A link is a file of
    /// its own, as in the original: it lets one list stand in two blocks.
    pub(crate) fn claim(&mut self, path: &Path) -> bool {
        self.read.insert(identity(path))
    }

    /// Reads a file.
    pub(crate) fn read(&mut self, path: &Path) -> Result<String, Refusal> {
        let shown = path.display();
        let failed = |error| (format!("`{shown}` can't be read: {error}"), None);
        // Asked before it is opened: opening a pipe would wait for its writer.
        let kind = fs::metadata(path).map_err(failed)?;
        if kind.is_dir() {
            let help = "name a file; a folder can't be included as a whole".to_owned();
            return Err((format!("`{shown}` is a directory, not a file"), Some(help)));
        }
        if !kind.is_file() {
            return Err((format!("`{shown}` is not a regular file"), None));
        }
        if is_made_by_kernel(path) {
            let help = "name a file that is stored in a file system".to_owned();
            let message = format!("`{shown}` is not stored anywhere: the kernel makes it while it is read");
            return Err((message, Some(help)));
        }
        let mut bytes = Vec::new();
        let most = self.bytes_left as u64 + 1;
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(failed)?;
        self.accept(path, &bytes)
    }

    /// Takes the bytes of a file as text, if they are text and not too many.
    pub(crate) fn accept(&mut self, path: &Path, bytes: &[u8]) -> Result<String, Refusal> {
        let shown = path.display();
        let Some(left) = self.bytes_left.checked_sub(bytes.len()) else {
            let (most, unit) = match self.limits.capped_bytes() {
                most if most % (1 << 20) == 0 => (most >> 20, "MiB"),
                most => (most, "bytes"),
            };
            let message = format!("`{shown}` is too large: all files together may have {most} {unit}");
            return Err((message, Some("put long lists into files of their own".to_owned())));
        };
        self.bytes_left = left;
        if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
            let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
            return Err((format!("`{shown}` is not a text file: there is a NUL byte in line {line}"), None));
        }
        Ok(decode(bytes))
    }
}

/// Returns whether a file is of a file system without storage, such as procfs. Such files pass for
/// regular ones, and reading one may wait (`/proc/kmsg`) or never end.
#[cfg(target_os = "linux")]
fn is_made_by_kernel(path: &Path) -> bool {
    use nix::sys::statfs::{DEBUGFS_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, statfs};
    let made = [PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC];
    statfs(path).is_ok_and(|found| made.contains(&found.filesystem_type()))
}

/// Returns whether a file is of a file system without storage; elsewhere nobody mounts one by default.
#[cfg(not(target_os = "linux"))]
fn is_made_by_kernel(_: &Path) -> bool {
    false
}

/// What tells a file apart from others, however its folder is spelled.
pub(crate) fn identity(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    folder.join(path.file_name().unwrap_or_default())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_makes_is_refused() {
        let limits = Limits::default();
        let mut files = Files::new(Path::new("/nowhere/main.conf"), &limits);
        for path in ["/proc/kmsg", "/proc/self/status"] {
            let (message, _) = files.read(Path::new(path)).unwrap_err();
            assert!(message.contains("is not stored anywhere"), "{path}: {message}");
        }
    }
}
