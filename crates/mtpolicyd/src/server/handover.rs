//! SIGUSR2: a new process of the program takes over the ports, and this one finishes its conversations.
//!
//! Knows: both sides of the talk between the two, over the standard input of the new one. Must not know: what
//! happens with sockets before and after.
//!
//! The old process sends a message for each port and one for the pid file, with their descriptors, then
//! "all". The new one answers "ready" when it serves requests, or says why it will not. Only then the old one
//! lets go.
//!
//! The same talk takes place when the old one was told to end and another one is started (`offer`).

mod offer;

pub(super) use self::offer::Offer;
use super::descriptors;
use super::listeners::Listeners;
use super::notify::WATCHDOG_PROCESS;
use super::passed::{LISTEN_VARIABLES, PassedSocket};
use super::process::PidFile;
use super::{Daemon, StartError};
use crate::log::messages::daemon as daemon_messages;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// In the environment of the new process: its standard input is a socket that leads to the old one.
const VARIABLE: &str = "MTPOLICYD_HANDOVER";

/// How long the new process may take to be ready. A large list is read in less.
const START_SECONDS: i64 = 60;

/// How long the new process waits for the old one to let go, which takes milliseconds.
const LET_GO_SECONDS: i64 = 10;

/// The process before this one, while both run.
#[derive(Debug)]
pub struct Predecessor {
    socket: OwnedFd,
}

/// What was passed to this process.
#[derive(Debug)]
pub struct Received {
    /// Sockets that listen.
    pub sockets: Vec<PassedSocket>,
    pid_file: Option<(PathBuf, File)>,
}

impl Predecessor {
    /// The process that has started this one to take over, and what it has passed.
    pub fn from_env() -> io::Result<Option<(Predecessor, Received)>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let failed = |error: io::Error| io::Error::other(format!("cannot take over the ports: {error}"));
        let socket = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        nix::unistd::dup2_stdin(File::open("/dev/null").map_err(failed)?)?;
        let predecessor = Predecessor { socket };
        let received = predecessor.receive().map_err(failed)?;
        Ok(Some((predecessor, received)))
    }

    fn receive(&self) -> io::Result<Received> {
        wait_at_most(&self.socket, LET_GO_SECONDS)?;
        let mut received = Received { sockets: Vec::new(), pid_file: None };
        loop {
            let Some((text, descriptor)) = descriptors::receive(&self.socket)? else {
                return Err(io::Error::other("the process before this one has gone"));
            };
            let message: Value = serde_json::from_slice(&text)?;
            match (message.get("pid_file").and_then(Value::as_str), descriptor) {
                (Some(path), Some(file)) => received.pid_file = Some((path.into(), file.into())),
                (None, Some(socket)) => {
                    received.sockets.push(PassedSocket::from_predecessor(&message, socket)?);
                }
                (_, None) => return Ok(received),
            }
        }
    }

    /// Says that this process serves requests at these addresses, and waits until the other one has let go.
    /// An error means that it has ended meanwhile, and that nobody wants this one.
    pub fn ready(&self, addresses: &[String], has_pid_file: bool) -> io::Result<()> {
        let ready = json!({ "ready": addresses, "pid_file": has_pid_file });
        descriptors::send(&self.socket, ready.to_string().as_bytes(), None)?;
        wait_at_most(&self.socket, LET_GO_SECONDS)?;
        // It closes its side, or takes its time; this process serves in either case.
        let _ = descriptors::receive(&self.socket);
        Ok(())
    }

    /// Says why this process ends instead.
    pub fn refuse(&self, error: &StartError) {
        let refused = json!({ "refused": error.to_string() });
        // Where nobody listens any more, nobody needs to know.
        let _ = descriptors::send(&self.socket, refused.to_string().as_bytes(), None);
    }
}

impl Received {
    /// What systemd has passed instead; nothing if it has not.
    pub fn from_systemd() -> io::Result<Received> {
        Ok(Received { sockets: PassedSocket::from_systemd()?, pid_file: None })
    }

    /// The file of the predecessor, if it is the one that this process is to have.
    pub fn take_pid_file(&mut self, path: &Path) -> Option<PidFile> {
        let path = std::path::absolute(path).ok()?;
        let (_, file) = self.pid_file.take_if(|(theirs, _)| *theirs == path)?;
        Some(PidFile::of_predecessor(path, file))
    }
}

/// To be told which process has taken over, or why none has.
type Asked = oneshot::Sender<Result<u32, String>>;

/// A process that is being started, on a thread that waits for it.
#[derive(Default)]
pub(super) struct Handover {
    starting: Option<JoinHandle<io::Result<Successor>>>,
    /// Who wants to know what comes of it.
    asked: Option<Asked>,
}

/// The process that serves requests now.
pub(super) struct Successor {
    id: u32,
    /// Its ports.
    addresses: Vec<String>,
    has_pid_file: bool,
    /// Closed when this process has let go.
    _socket: OwnedFd,
}

impl Handover {
    /// Starts the program again, with everything that it needs of this process.
    pub(super) fn request(&mut self, daemon: &Daemon<'_>, listeners: &Listeners, asked: Option<Asked>) {
        if self.is_running() {
            return;
        }
        match to_pass(daemon, listeners) {
            Ok(passed) => {
                let program = daemon.program.to_owned();
                daemon_messages::handover_started(program.display());
                self.starting = Some(tokio::task::spawn_blocking(move || start(&program, passed)));
                self.asked = asked;
            }
            Err(error) => {
                asked.map(|asked| asked.send(Err(error.to_string())));
                daemon_messages::not_handed_over(error);
            }
        }
    }

    /// Whether a process is being started: until it is known what becomes of it, everything stays as it is.
    pub(super) fn is_running(&self) -> bool {
        self.starting.is_some()
    }

    /// Waits until the new process serves requests or has failed; forever if none is being started.
    pub(super) async fn finished(&mut self) -> io::Result<Successor> {
        let Some(starting) = &mut self.starting else { return std::future::pending().await };
        let started = starting.await;
        self.starting = None;
        let started = started.unwrap_or_else(|panic| Err(io::Error::other(panic.to_string())));
        if let Some(asked) = self.asked.take() {
            // Who has left does not want to know.
            let _ = asked.send(started.as_ref().map(|new| new.id).map_err(ToString::to_string));
        }
        started
    }
}

impl Successor {
    /// Leaves everything to the new process that it shares with this one; its sockets are closed later.
    pub(super) fn take_over(self, daemon: &Daemon<'_>, listeners: &Listeners) {
        listeners.own_files(&self.addresses);
        if let Some(pid_file) = daemon.pid_file.filter(|_| self.has_pid_file) {
            pid_file.leave();
        }
        daemon.notify.main_process(self.id);
        let left = daemon.shared.conversations.len();
        daemon_messages::handed_over(self.id, left);
    }
}

/// The messages for the new process.
fn to_pass(daemon: &Daemon<'_>, listeners: &Listeners) -> io::Result<Vec<(Value, OwnedFd)>> {
    if daemon.identity.chroot.is_some() {
        let message = "with `chroot` the program is out of reach; restart the daemon instead";
        return Err(io::Error::other(message));
    }
    let mut passed = listeners.to_pass()?;
    if let Some((path, file)) = daemon.pid_file.map(PidFile::to_pass).transpose()? {
        passed.push((json!({ "pid_file": path.display().to_string() }), file));
    }
    Ok(passed)
}

/// Starts the program and waits until it serves requests. If it does not, it has ended when this returns.
fn start(program: &Path, passed: Vec<(Value, OwnedFd)>) -> io::Result<Successor> {
    let (ours, theirs) = descriptors::pair()?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(VARIABLE, "1").env_remove(WATCHDOG_PROCESS).stdin(Stdio::from(theirs));
    for variable in LISTEN_VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.spawn()?;
    // Its end of the socket stays open here until then.
    drop(command);
    let answer = talk(&ours, passed);
    let ready = answer.and_then(|answer| match answer {
        Some(answer) => understand(&answer),
        None => Err(ended(&mut child)?),
    });
    let (addresses, has_pid_file) = ready.inspect_err(|_| {
        // It may have ended already; what it has not told is on its standard error.
        let _ = child.kill();
        let _ = child.wait();
    })?;
    Ok(Successor { id: child.id(), addresses, has_pid_file, _socket: ours })
}

/// Passes everything and returns the answer; nothing if the process has ended without one.
fn talk(socket: &OwnedFd, passed: Vec<(Value, OwnedFd)>) -> io::Result<Option<Value>> {
    wait_at_most(socket, START_SECONDS)?;
    for (description, descriptor) in passed {
        let sent =
            descriptors::send(socket, description.to_string().as_bytes(), Some(descriptor.as_raw_fd()));
        if sent.is_err() {
            break;
        }
    }
    // A process that has ended can still have said why.
    let _ = descriptors::send(socket, json!({ "all": true }).to_string().as_bytes(), None);
    let received = match descriptors::receive(socket) {
        // It has ended without reading everything; what it has said comes after that.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => descriptors::receive(socket),
        received => received,
    };
    match received {
        Ok(Some((text, _))) => Ok(Some(serde_json::from_slice(&text)?)),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::other(format!("the new process was not ready within {START_SECONDS} seconds")))
        }
        Err(error) => Err(error),
    }
}

fn understand(answer: &Value) -> io::Result<(Vec<String>, bool)> {
    if let Some(reason) = answer.get("refused").and_then(Value::as_str) {
        return Err(io::Error::other(reason.to_owned()));
    }
    let addresses = answer.get("ready").and_then(Value::as_array);
    let addresses = addresses.ok_or_else(|| io::Error::other("the new process says something else"))?;
    let addresses = addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok((addresses, answer.get("pid_file").and_then(Value::as_bool).unwrap_or(false)))
}

fn ended(child: &mut Child) -> io::Result<io::Error> {
    // One that has only closed the socket is not a daemon of this kind.
    let _ = child.kill();
    let status = child.wait()?;
    Ok(io::Error::other(format!("the new process has ended: {status}")))
}

fn wait_at_most(socket: &OwnedFd, seconds: i64) -> io::Result<()> {
    let limit = TimeVal::new(seconds, 0);
    setsockopt(socket, sockopt::ReceiveTimeout, &limit)?;
    Ok(setsockopt(socket, sockopt::SendTimeout, &limit)?)
}
