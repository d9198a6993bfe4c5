//! The real daemon as a process of its own, in a folder of its own.
//!
//! Knows: the program, its command line and its signals. Must not know: what is in a configuration.

use super::client::{Answer, Client};
use super::{PATIENCE, eventually, free_port};
use std::fs;
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use tempfile::TempDir;

/// A daemon that always answers `OK`.
pub const OK: &str = "\
port = \"127.0.0.1:$PORT\"
<VirtualHost $PORT>
  name = \"incoming\"
  <Plugin ok>
    module = \"Action\"
    action = \"OK\"
  </Plugin>
</VirtualHost>
";

/// The daemon's program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mtpolicyd");

/// A folder with a configuration file, and the ports that it names.
pub struct Site {
    folder: TempDir,
    /// The first port, `$PORT` in a configuration.
    pub port: u16,
    /// Another one, `$OTHER`.
    pub other_port: u16,
    replacements: Vec<(&'static str, String)>,
}

impl Site {
    /// An empty folder that everybody may enter, since the daemon may run as somebody else.
    pub fn new() -> Site {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        Site { folder, port: free_port(), other_port: free_port(), replacements: Vec::new() }
    }

    /// A folder with this configuration.
    pub fn with(text: &str) -> Site {
        let site = Site::new();
        site.configure(text);
        site
    }

    /// Writes `value` where a configuration says `name`.
    pub fn replace(&mut self, name: &'static str, value: impl ToString) {
        self.replacements.push((name, value.to_string()));
    }

    /// Writes the configuration: `$PORT` and `$OTHER` stand for the ports, `$DIR` for the folder.
    pub fn configure(&self, text: &str) {
        self.configure_bytes(self.fill(text).as_bytes());
    }

    /// Writes the configuration as it is.
    pub fn configure_bytes(&self, text: &[u8]) {
        fs::write(self.config(), text).expect("the folder is writable");
    }

    /// The text with its placeholders filled in.
    pub fn fill(&self, text: &str) -> String {
        let mut text = text.replace("$PORT", &self.port.to_string());
        text = text.replace("$OTHER", &self.other_port.to_string());
        text = text.replace("$DIR", &self.folder.path().display().to_string());
        self.replacements.iter().fold(text, |text, (name, value)| text.replace(name, value))
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("mtpolicyd.conf")
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program, about to be run on the configuration file.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(self.config()).args(arguments).stdin(Stdio::null());
        command
    }

    /// A command of the program, about the daemon of this configuration file.
    pub fn command_after(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words).arg("-c").arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), b"")
    }

    /// Starts the daemon in the foreground and waits until it listens on `$PORT`.
    pub fn start(self) -> Daemon {
        self.start_with(&[])
    }

    /// The same, with more arguments.
    pub fn start_with(self, arguments: &[&str]) -> Daemon {
        let daemon = self.spawn(arguments);
        daemon.wait_until_it_answers();
        daemon
    }

    /// Starts the daemon in the foreground, its output in the file `log`.
    pub fn spawn(self, arguments: &[&str]) -> Daemon {
        let mut command = self.command(arguments);
        command.arg("-f");
        self.spawn_command(command)
    }

    /// Runs a command that becomes the daemon, its output in the file `log`.
    pub fn spawn_command(self, mut command: Command) -> Daemon {
        let log = fs::File::create(self.path("log")).expect("the folder is writable");
        command.stdout(log.try_clone().expect("a descriptor is free")).stderr(log);
        let child = command.spawn().expect("the program can be run");
        self.adopt(child)
    }

    /// Takes a process for the daemon of this folder.
    pub fn adopt(self, child: Child) -> Daemon {
        Daemon { child: Killed(child), site: self }
    }
}

/// A daemon in the foreground; it is killed when this is dropped.
pub struct Daemon {
    child: Killed,
    /// Its folder.
    pub site: Site,
}

impl Daemon {
    /// A daemon with this configuration, which listens on `$PORT`.
    pub fn start(text: &str) -> Daemon {
        Site::with(text).start()
    }

    /// Its folder, for another daemon; this one is killed.
    pub fn into_site(self) -> Site {
        self.site
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        loopback(self.site.port)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// A connection to it.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.connect_to(self.site.port)
    }

    /// A connection to another port of it.
    #[track_caller]
    pub fn connect_to(&self, port: u16) -> Client {
        Client::tcp(loopback(port)).expect("the daemon listens")
    }

    /// Asks one question on a connection of its own.
    #[track_caller]
    pub fn ask(&self, attributes: &str) -> Answer {
        self.connect().ask(attributes)
    }

    /// Sends it a signal: `TERM`, `HUP`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Writes another configuration, and waits until the daemon has looked at it.
    #[track_caller]
    pub fn reload(&self, text: &str) {
        self.site.configure(text);
        self.hang_up();
    }

    /// Has it read its file again, and waits until it has.
    #[track_caller]
    pub fn hang_up(&self) {
        let looked = || self.log().lines().filter(|line| line.contains("reloaded")).count();
        let before = looked();
        self.signal("HUP");
        eventually("the daemon looks at the new file", || (looked() > before).then_some(()));
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        read_lossy(&self.site.path("log"))
    }

    /// Waits for a line of its log with these words, and returns it.
    #[track_caller]
    pub fn logged(&self, words: &str) -> String {
        let found = || self.log().lines().find(|line| line.contains(words)).map(str::to_owned);
        let what = format!("a line with `{words}` in the log:");
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eventually(&what, found)));
        seen.unwrap_or_else(|_| panic!("{what}\n{}", self.log()))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the daemon ends", || self.child.0.try_wait().expect("it is our child"))
    }

    /// Tells it to end, and how it did.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it serves connections.
    #[track_caller]
    pub fn wait_until_it_answers(&self) {
        let stat = || fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let has_ended = || stat().contains(") Z ");
        eventually("the daemon listens", || {
            assert!(!has_ended(), "the daemon has ended:\n{}", self.log());
            is_served(self.address()).then_some(())
        });
    }
}

/// Whether connections are not only queued by the kernel, but served: one that says nothing is closed.
fn is_served(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let said_nothing =
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.shutdown(Shutdown::Write));
    said_nothing.is_ok() && matches!(stream.read(&mut [0]), Ok(0))
}

/// Runs a program to its end with this on its standard input. What it writes goes to files: a child that it
/// leaves behind could hold a pipe open.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let temporary = || tempfile::tempfile().expect("there is room for a file");
    let (mut input_file, mut stdout, mut stderr) = (temporary(), temporary(), temporary());
    input_file.write_all(input).and_then(|()| input_file.rewind()).expect("the file is ours");
    let same = |file: &fs::File| file.try_clone().expect("a descriptor is free");
    command.stdin(input_file).stdout(same(&stdout)).stderr(same(&stderr));
    let mut child = Killed(command.spawn().expect("the program can be run"));
    let status = eventually("the program ends", || child.0.try_wait().expect("it is our child"));
    let written = |file: &mut fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("the file is ours");
        bytes
    };
    Output { status, stdout: written(&mut stdout), stderr: written(&mut stderr) }
}

/// A child that does not outlive this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that is not a child of ours, and still has to go.
pub struct KilledById(pub u32);

impl Drop for KilledById {
    fn drop(&mut self) {
        // Unless its number is another program's by now.
        if read_lossy(format!("/proc/{}/cmdline", self.0).as_ref()).contains("mtpolicyd") {
            signal(self.0, "KILL");
        }
    }
}

/// A port of the loopback.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Sends a signal to a process by its id.
pub fn signal(process: u32, name: &str) {
    let status =
        Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).stderr(Stdio::null()).status();
    status.expect("there is a shell");
}

/// A file as text; nothing where there is none.
pub fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Standard error of a program that has ended.
pub fn errors_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output of a program that has ended.
pub fn output_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
