//! Real databases, stores and directories, each with a folder and a port of its own.
//!
//! Knows: how a server is started, stopped and frozen. Must not know: what a test wants to see.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod certificates;
pub mod fail2ban;
pub mod mariadb;
pub mod memcached;
pub mod nginx;
pub mod pgbouncer;
pub mod postgres;
pub mod python;
pub mod redis;
pub mod slapd;

use super::daemon::{loopback, read_lossy, signal};
use super::{eventually, free_port};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a server that was told to end may take, before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long a server that is starting may take to answer one look.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// How a server is run.
struct Recipe {
    /// Its program.
    program: PathBuf,
    arguments: Vec<String>,
    /// The user to run as, when the tests run as root and the program refuses to.
    user: Option<&'static str>,
    /// The signal that ends it at once, as a crash would.
    end_signal: &'static str,
    /// Whether it answers.
    answers: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A server; it is killed when this is dropped, and when the thread that started it ends without that.
pub struct Server {
    /// Its port on 127.0.0.1.
    pub port: u16,
    folder: TempDir,
    recipe: Recipe,
    child: Option<Child>,
}

impl Server {
    fn launch(port: u16, folder: TempDir, recipe: Recipe) -> Server {
        let mut server = Server { port, folder, recipe, child: None };
        server.start();
        server
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has written.
    pub fn log(&self) -> String {
        read_lossy(&self.path("log"))
    }

    /// Starts it, once it was stopped, with the data that it had, and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = fs::File::options().create(true).append(true).open(self.path("log"));
        let log = log.expect("the folder is writable");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor is free")).stderr(log);
        self.child = Some(command.spawn().expect("there is a setpriv"));
        let what = format!("{} answers", self.recipe.program.display());
        eventually(&what, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it is our child"));
            if let Some(status) = ended {
                self.child = None;
                panic!("{what}: it has ended, {status}\n{}", self.log());
            }
            (self.recipe.answers)().then_some(())
        });
    }

    /// Ends it at once, as a crash would.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let all = family(child.id());
        for process in &all {
            signal(*process, "CONT");
        }
        signal(child.id(), self.recipe.end_signal);
        let until = std::time::Instant::now() + END_PATIENCE;
        // It may have ended already.
        while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        for process in all.iter().skip(1) {
            signal(*process, "KILL");
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Has it do nothing: connections stay, new ones are queued by the kernel, nobody answers.
    pub fn freeze(&self) {
        let main = self.child.as_ref().expect("it runs").id();
        // First the one that starts others.
        signal(main, "STOP");
        for process in family(main).into_iter().skip(1) {
            signal(process, "STOP");
        }
    }

    /// Has it go on.
    pub fn thaw(&self) {
        for process in family(self.child.as_ref().expect("it runs").id()) {
            signal(process, "CONT");
        }
    }

    /// The server dies with the thread that started it, even if that is killed: nothing is left running.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let (Some(user), true) = (self.recipe.user, is_root()) {
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        }
        // slapd makes room for as many descriptors as it may open, which can be a thousand million.
        command.args(["--", "prlimit", "--nofile=4096:4096", "--"]);
        command.arg(&self.recipe.program).args(&self.recipe.arguments).current_dir(self.folder.path());
        command.env("LC_ALL", "C");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A folder that other users may enter.
fn new_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    folder
}

/// The path of a program.
///
/// # Panics
/// When it is not installed, with the name of the Debian package that has it.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}: install the Debian package {package}"))
}

/// Runs a program to its end.
///
/// # Panics
/// When it fails, with what it has said.
fn run(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Output {
    let output = super::daemon::run(Command::new(program).args(arguments).env("LC_ALL", "C"), b"");
    let said = || [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success(), "{}: {}\n{}", program.display(), output.status, said());
    output
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// A process and all that descend from it.
fn family(process: u32) -> Vec<u32> {
    let stats = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pairs: Vec<(u32, u32)> = stats.filter_map(|entry| child_and_parent(&entry.path())).collect();
    let mut all = vec![process];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        all.extend(pairs.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        next += 1;
    }
    all
}

/// See proc(5): `pid (name) state ppid`.
fn child_and_parent(folder: &Path) -> Option<(u32, u32)> {
    let process = folder.file_name()?.to_str()?.parse().ok()?;
    let stat = read_lossy(&folder.join("stat"));
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    Some((process, parent))
}

/// A connection for one look whether a server answers.
fn look(port: u16) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&loopback(port), LOOK_PATIENCE).ok()?;
    stream.set_read_timeout(Some(LOOK_PATIENCE)).ok()?;
    Some(stream)
}

/// The first bytes of what a server says to a message, no more than fit one packet.
fn first_bytes(port: u16, message: &[u8]) -> Option<Vec<u8>> {
    let mut stream = look(port)?;
    stream.write_all(message).ok()?;
    let mut bytes = vec![0; 4096];
    let read = stream.read(&mut bytes).ok()?;
    bytes.truncate(read);
    (read > 0).then_some(bytes)
}

/// A folder that is slow to make and is made once for many runs: `make` fills it.
///
/// It is kept in the build folder. What is in it depends on the program and on who runs it, so both are in
/// its name.
fn template(program: &Path, make: impl FnOnce(&Path)) -> PathBuf {
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let version = run(program, &["--version"]).stdout;
    let version: String =
        version.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_alphanumeric).take(60).collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let ready = kept.join(format!("{version}-{}", nix::unistd::Uid::effective()));
    if !ready.is_dir() {
        // The build folder may be closed to the user whom the program runs as.
        let folder = new_folder();
        let data = folder.path().join("data");
        make(&data);
        let unfinished = kept.join(format!("{version}-{}", std::process::id()));
        copy(&data, &unfinished);
        // Another run may have been faster.
        if fs::rename(&unfinished, &ready).is_err() {
            fs::remove_dir_all(&unfinished).expect("the folder is ours");
        }
    }
    ready
}

fn copy(from: &Path, to: &Path) {
    run(Path::new("cp"), &[OsStr::new("-a"), from.as_os_str(), to.as_os_str()]);
}
