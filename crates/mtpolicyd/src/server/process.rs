//! The process itself: the step into the background, the pid file, the limit of open files.
//!
//! Knows: this process and the file that names it. Must not know: sockets, settings, requests.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{self, Resource};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd;
use safe_files::Folder;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command line shows that is one of a mtpolicyd, this one or the original.
const PROGRAM: &str = "mtpolicyd";

/// What POSIX systems have allowed for decades: assumed where the limit can't be read.
const DEFAULT_OPEN_FILES: u64 = 1024;

/// More than any pid file holds; another file named by mistake is not read whole.
const MAX_PID_FILE: u64 = 64;

/// Something that keeps the daemon from starting; its text is for who started it.
#[derive(Debug)]
pub struct ProcessError(String);

impl ProcessError {
    pub(super) fn new(message: String) -> ProcessError {
        ProcessError(message)
    }
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProcessError {}

/// Names, in the environment of the daemon in the background, the process that has started it.
const STARTER: &str = "MTPOLICYD_STARTER";

/// What the daemon in the background needs at the end of its start, opened while `/dev` is in reach: `chroot`
/// may come between.
#[derive(Debug)]
pub struct Background {
    null: File,
}

/// Runs this program once more, as the daemon in the background, and waits until that is ready: its exit code
/// if it ends before, else 0. So its port is open and its pid file complete when the command that started it
/// returns, and every mistake of the start reaches the terminal.
pub fn start_in_background() -> Result<u8, ProcessError> {
    let failed =
        |error: io::Error| ProcessError::new(format!("cannot start the daemon in the background: {error}"));
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(STARTER, std::process::id().to_string());
    let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut ready = [0];
    let said = daemon.stdout.take().map_or(Ok(0), |mut output| output.read(&mut ready)).map_err(failed)?;
    if said > 0 {
        return Ok(0);
    }
    let status = daemon.wait().map_err(failed)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// Whether this process is the one in the background.
pub fn is_in_background() -> bool {
    std::env::var_os(STARTER).is_some()
}

impl Background {
    /// Leaves the session of the terminal, and opens `/dev/null`.
    pub fn prepare() -> Result<Background, ProcessError> {
        // It fails for the first process of a session, which is what is wanted.
        let _ = unistd::setsid();
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| ProcessError::new(format!("cannot open /dev/null: {error}")))?;
        Ok(Background { null })
    }

    /// Tells the starter that it may end, and lets go of its terminal. The working directory stays, since
    /// paths of the configuration may be relative to it.
    pub fn ready(&self) -> Result<(), ProcessError> {
        let failed =
            |error: Errno| ProcessError::new(format!("cannot go into the background: {}", error.desc()));
        // If the starter was killed meanwhile, nobody waits.
        let mut output = io::stdout();
        let _ = output.write_all(b"\n").and_then(|()| output.flush());
        unistd::dup2_stdin(&self.null).map_err(failed)?;
        unistd::dup2_stdout(&self.null).map_err(failed)?;
        unistd::dup2_stderr(&self.null).map_err(failed)
    }
}

/// The program that runs, as a successor of this process finds it: by the name with which it was started, so
/// that a link that leads to a new version is followed, or else by its path. To be asked at the start, before
/// an upgrade puts another file there.
pub fn program() -> io::Result<PathBuf> {
    let name = std::env::args_os().next().map(PathBuf::from);
    let named = name.filter(|name| name.as_os_str().as_encoded_bytes().contains(&b'/') && name.is_file());
    named.map_or_else(std::env::current_exe, Ok)
}

/// The file that holds the process id of the running daemon; dropped, it is removed, also after a failed
/// start.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
    /// It is another process's: that of the predecessor, until this one takes over, or a successor's.
    left: Cell<bool>,
}

impl PidFile {
    /// Makes the file, still empty. It belongs to who starts the daemon: which process an init script that
    /// root runs will end must not be the choice of the daemon's user.
    ///
    /// One that names a running mtpolicyd is an error; one left behind by a daemon that is gone is replaced,
    /// also when another program has its number now. A file that holds something else is an error, and stays.
    pub fn create(path: &Path) -> Result<PidFile, ProcessError> {
        let failed = |error: io::Error| {
            ProcessError::new(format!("cannot write pid file {}: {error}", path.display()))
        };
        let (folder, name) = Folder::above(path).map_err(failed)?;
        check_old(&folder, &name, path)?;
        // A new file, not the old one: it might be a link that somebody put into a directory of theirs.
        let writable = |result: io::Result<File>| match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                folder.remove(&name).and_then(|()| new_file(&folder, &name))
            }
            result => result,
        };
        let file = match writable(new_file(&folder, &name)) {
            // The directory is not ours, but the file is: the daemon before could not remove it either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                old_file(&folder, &name).map_err(|_| error)
            }
            result => result,
        };
        let file = file.map_err(failed)?;
        // Absolute, since the working directory may be another one at the end.
        Ok(PidFile { path: std::path::absolute(path).map_err(failed)?, file, left: Cell::new(false) })
    }

    /// The file of the predecessor, which has opened it. It names that process until this one's id is
    /// recorded.
    pub fn of_predecessor(path: PathBuf, file: File) -> PidFile {
        PidFile { path, file, left: Cell::new(true) }
    }

    /// Where it is, and the open file, for a successor.
    pub fn to_pass(&self) -> io::Result<(&Path, OwnedFd)> {
        Ok((&self.path, self.file.as_fd().try_clone_to_owned()?))
    }

    /// Leaves it to the process that has taken over.
    pub fn leave(&self) {
        self.left.set(true);
    }

    /// Writes the id of this process.
    pub fn record(&self) -> Result<(), ProcessError> {
        self.left.set(false);
        let id = format!("{}\n", std::process::id());
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(id.as_bytes(), 0));
        written.map_err(|error| {
            ProcessError::new(format!("cannot write pid file {}: {error}", self.path.display()))
        })
    }

    /// Finds the file again once a folder above it has become the root of the file system.
    pub fn confine(&mut self, root: &Path) {
        confine(&mut self.path, root);
    }
}

impl Drop for PidFile {
    /// Without the right to remove the file, or out of reach after `chroot`, it is emptied, so that it names
    /// no process. The file of a successor stays.
    fn drop(&mut self) {
        if self.left.get() {
            return;
        }
        let made = self.file.metadata().map(|made| (made.dev(), made.ino()));
        if !made.is_ok_and(|made| safe_files::remove_same(&self.path, made)) {
            // Harmless if it fails: the next start finds that the process is gone.
            let _ = self.file.set_len(0);
        }
    }
}

fn new_file(folder: &Folder, name: &OsStr) -> io::Result<File> {
    /// Everybody may read it, whatever the mask for new files says.
    const RIGHTS: u32 = 0o644;
    let file =
        folder.open(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, safe_files::mode(RIGHTS))?;
    fchmod(&file, safe_files::mode(RIGHTS))?;
    Ok(file)
}

fn old_file(folder: &Folder, name: &OsStr) -> io::Result<File> {
    let file = folder.open(name, OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty())?;
    if !file.metadata()?.is_file() {
        return Err(Errno::EEXIST.into());
    }
    file.set_len(0)?;
    Ok(file)
}

/// Whether the file that is there, if any, may be replaced.
fn check_old(folder: &Folder, name: &OsStr, path: &Path) -> Result<(), ProcessError> {
    match read_pid(folder, name) {
        Ok(Some(pid)) if pid != std::process::id() && is_daemon(pid) => {
            let message = format!("mtpolicyd is running already, as process {pid} ({})", path.display());
            Err(ProcessError::new(message))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ProcessError::new(format!("cannot use pid file {}: {error}", path.display()))),
    }
}

/// The process that the file names; `None` if the file is empty, or a link, which is replaced.
fn read_pid(folder: &Folder, name: &OsStr) -> io::Result<Option<u32>> {
    const LINK: u32 = nix::libc::S_IFLNK;
    let no_pid = || io::Error::new(io::ErrorKind::InvalidData, "it holds something else than a process id");
    if folder.stat(name)?.st_mode & nix::libc::S_IFMT == LINK {
        return Ok(None);
    }
    let file = folder.open(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
    if !file.metadata()?.is_file() {
        return Err(no_pid());
    }
    let text = String::from_utf8(safe_files::read_open(&file, MAX_PID_FILE)?).map_err(|_| no_pid())?;
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| no_pid()),
    }
}

/// Whether a process lives and is a mtpolicyd: after a reboot its number may be another program's.
fn is_daemon(pid: u32) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(PROGRAM)
}

/// What a path is called once a folder has become the root; one outside it is lost, and stays as it is.
pub(super) fn confine(path: &mut PathBuf, root: &Path) {
    if let Ok(inside) = path.strip_prefix(root) {
        *path = Path::new("/").join(inside);
    }
}

/// Holds back the signals that the daemon acts on until it can: a port is open, and a process supervisor
/// busy, before there is a runtime to handle them.
pub fn hold_signals() -> Result<(), ProcessError> {
    let held = handled_signals().thread_block();
    held.map_err(|error| ProcessError::new(format!("cannot block signals: {}", error.desc())))
}

/// Lets them come, those that were held back first.
pub fn release_signals() -> Result<(), ProcessError> {
    let released = handled_signals().thread_unblock();
    released.map_err(|error| ProcessError::new(format!("cannot unblock signals: {}", error.desc())))
}

fn handled_signals() -> SigSet {
    let handled = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    handled.into_iter().collect()
}

/// Keeps what the daemon makes (logs, databases) from users who are neither its own nor in its group.
pub fn restrict_new_files() {
    const NOT_FOR_OTHERS: u32 = 0o027;
    let before = umask(safe_files::mode(NOT_FOR_OTHERS));
    umask(before | safe_files::mode(NOT_FOR_OTHERS));
}

/// Asks for pages of the usual size: huge ones double the memory of a daemon that needs a few MiB.
pub fn refuse_huge_pages() {
    // Without it the daemon is larger, not worse.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Raises the number of files that may be open to what the system allows at most, and returns what holds
/// then.
pub fn raise_open_file_limit() -> u64 {
    let Ok((soft, hard)) = resource::getrlimit(Resource::RLIMIT_NOFILE) else { return DEFAULT_OPEN_FILES };
    match resource::setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &Path) -> Result<PidFile, String> {
        PidFile::create(path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_names_this_process_until_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.pid");
        let file = create(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        file.record().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        assert!(
            create(&directory.path().join("none/d.pid")).unwrap_err().contains("none/d.pid: No such file")
        );
    }

    #[test]
    fn the_file_of_a_process_that_is_gone_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.pid");
        // No number that the kernel gives; a program of another name; this process; an emptied file.
        for left in ["4194305\n", "1\n", &format!("{}\n", std::process::id()), ""] {
            std::fs::write(&path, left).unwrap();
            let file = create(&path).unwrap();
            file.record().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        }
    }

    #[test]
    fn a_running_daemon_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.pid");
        // A process whose command line looks like the daemon's.
        let mut other = std::process::Command::new("sh")
            .args(["-c", "read x; : /usr/bin/mtpolicyd"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Its command line is there as soon as it has read its script.
        let has_read = (0..30_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            is_daemon(other.id())
        });
        assert!(has_read);
        std::fs::write(&path, other.id().to_string()).unwrap();
        let error = create(&path).unwrap_err();
        assert!(
            error.starts_with(&format!("mtpolicyd is running already, as process {}", other.id())),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), other.id().to_string());
        other.kill().unwrap();
        other.wait().unwrap();
        create(&path).unwrap();
    }

    #[test]
    fn a_file_with_something_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.pid");
        std::fs::write(&path, "precious").unwrap();
        assert!(create(&path).unwrap_err().ends_with("it holds something else than a process id"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (target, path) = (directory.path().join("target"), directory.path().join("d.pid"));
        std::fs::write(&target, "").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let file = create(&path).unwrap();
        file.record().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.pid");
        let old = create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "77\n").unwrap();
        drop(old);
        assert_eq!(std::fs::read(&path).unwrap(), b"77\n");
    }

    #[test]
    fn the_limit_of_open_files_is_the_highest() {
        let limit = raise_open_file_limit();
        assert_eq!(resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
    }
}
