//! What the commands share that ask the running daemon: their options, and the way to its socket.
//!
//! Knows: where the socket is, HTTP over it. Must not know: what is asked, how it is printed.

use super::terminal::own;
use crate::settings::{default_socket, socket_of_file};
use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group, Uid, User};
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UnixStream;

/// Done, and found.
pub const FOUND: u8 = 0;
/// Nothing found, mistakes, or something to look at.
pub const NOTHING: u8 = 1;
/// The command could not do its work.
pub const FAILED: u8 = 2;

/// How long the daemon may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// Why a command can't do its work, in one line.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure(text)
    }
}

/// What a command comes to: its exit code, or why it could not do its work.
pub type Outcome = Result<u8, Failure>;

/// The exit code; a failure is said in one line.
pub fn exit(outcome: Outcome) -> ExitCode {
    let code = outcome.unwrap_or_else(|failure| {
        super::say(&format!("mtpolicyd: {failure}\n"));
        FAILED
    });
    ExitCode::from(code)
}

/// Adds the options that every command has that asks the daemon.
pub fn with_socket(command: Command) -> Command {
    let path = |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
    command.args([
        path("config")
            .short('c')
            .value_name("FILE")
            .default_value(super::DEFAULT_CONFIGURATION)
            .help("The configuration file of the daemon, which may name its control socket"),
        path("socket").value_name("PATH").help("The control socket of the daemon"),
    ])
}

/// Adds those of the commands that print for people or for programs.
pub fn with_format(command: Command) -> Command {
    with_style(with_socket(command))
}

/// Adds the options that say how to print.
pub fn with_style(command: Command) -> Command {
    let color = Arg::new("color").long("color").value_name("WHEN").value_parser(["auto", "always", "never"]);
    command.args([
        Arg::new("format")
            .long("format")
            .value_name("FORMAT")
            .value_parser(["text", "json"])
            .default_value("text")
            .help("How to print: for people, or as JSON, one object a line"),
        color
            .default_value("auto")
            .help("Whether to use colors; by default on a terminal, unless the variable NO_COLOR is set"),
        Arg::new("utc").long("utc").action(ArgAction::SetTrue).help("Print times in UTC, not in local time"),
    ])
}

/// The way to a running daemon.
pub struct Daemon {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// One event of a stream (server-sent events).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its kind; empty is the usual one.
    pub kind: String,
    /// What it says.
    pub data: String,
}

impl Daemon {
    /// That of the command line: `--socket`, or what the configuration file names, or the usual place.
    pub fn of(matches: &ArgMatches) -> Result<Daemon, Failure> {
        let given = matches.get_one::<PathBuf>("socket").cloned();
        let of_file = || matches.get_one::<PathBuf>("config").and_then(|path| socket_of_file(path));
        let socket = given.or_else(of_file).unwrap_or_else(default_socket);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure(format!("cannot start: {error}")))?;
        Ok(Daemon { socket, runtime })
    }

    /// Whether something can be reached at its socket.
    pub fn has_socket(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
    }

    /// Asks; an answer that is an error is a failure.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let (status, body) = self.get_bytes(path)?;
        self.understand(status, &body)
    }

    /// The same, with the answer as it is.
    pub fn get_bytes(&self, path: &str) -> Result<(StatusCode, Bytes), Failure> {
        self.runtime.block_on(self.send(Method::GET, path, None, PATIENCE))
    }

    /// Has something done, with this as the body; the answer as it is.
    pub fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        self.runtime.block_on(self.send(Method::POST, path, Some(body.to_string()), patience))
    }

    /// Has something done that needs no body.
    pub fn change(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        self.runtime.block_on(self.send(method, path, None, patience))
    }

    /// The value in an answer; a failure if the answer is an error.
    pub fn understand<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, Failure> {
        if !status.is_success() {
            return Err(self.refused(status, body));
        }
        serde_json::from_slice(body).map_err(|error| self.odd(&error.to_string()))
    }

    /// Why there is no answer.
    pub fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let text = serde_json::from_slice::<serde_json::Value>(body).ok();
        let text = text.as_ref().and_then(|value| value.get("error")?.as_str());
        match text {
            Some(text) => Failure(own(text)),
            None => self.odd(&format!("status {status}")),
        }
    }

    fn odd(&self, what: &str) -> Failure {
        let (socket, what) = (self.socket.display(), own(what));
        Failure(format!("what answers at {socket} is not this version of the daemon: {what}"))
    }

    /// Follows a stream until the function has enough, or the daemon ends it.
    pub fn follow(
        &self,
        path: &str,
        mut each: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Failure> {
        self.runtime.block_on(async {
            let mut response = self.request(Method::GET, path, None).await?;
            if !response.status().is_success() {
                let status = response.status();
                let body = self.body(response).await?;
                return Err(self.refused(status, &body));
            }
            let mut events = Events::default();
            while let Some(frame) = response.frame().await {
                let Ok(frame) = frame else { break };
                let Ok(data) = frame.into_data() else { continue };
                for event in events.add(&data) {
                    if each(event).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let asked = async {
            let response = self.request(method, path, body).await?;
            Ok((response.status(), self.body(response).await?))
        };
        tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| {
            let (socket, seconds) = (self.socket.display(), patience.as_secs());
            Err(Failure(format!("the daemon at {socket} did not answer within {seconds} seconds")))
        })
    }

    async fn body(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| self.broken(&error.to_string()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| self.broken(&error.to_string());
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(Bytes::from(body.unwrap_or_default())));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|error| Failure(format!("cannot ask for {path}: {error}")))?;
        request.headers_mut().insert(HOST, HeaderValue::from_static("mtpolicyd"));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sender.send_request(request).await.map_err(broken)
    }

    fn broken(&self, why: &str) -> Failure {
        Failure(format!("the connection to the daemon at {} broke: {why}", self.socket.display()))
    }

    fn unreachable(&self, error: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        let why = match error.kind() {
            ErrorKind::NotFound => {
                "there is no such socket; is the daemon running, with a control socket there? \
                 `--socket` names another one"
                    .to_owned()
            }
            ErrorKind::ConnectionRefused => "connection refused; the daemon is not running".to_owned(),
            ErrorKind::PermissionDenied => format!("permission denied; {}", who_may(&self.socket)),
            _ => error.to_string(),
        };
        Failure(format!("cannot reach the daemon at {socket}: {why}"))
    }
}

/// Who somebody is who may not connect, and who may.
fn who_may(socket: &Path) -> String {
    let user = Uid::effective();
    let name = User::from_uid(user).ok().flatten().map_or_else(|| format!("uid {user}"), |user| user.name);
    let group = socket.metadata().ok().map(|file| Gid::from_raw(file.gid()));
    let group = group.map(|group| {
        Group::from_gid(group).ok().flatten().map_or_else(|| group.to_string(), |group| group.name)
    });
    match group {
        Some(group) => format!("you are {name}, group {group} may"),
        None => format!("you are {name}"),
    }
}

/// Takes the events out of the bytes of a stream (HTML, 9.2.6 "Interpreting an event stream"), as far as
/// this daemon sends them.
#[derive(Default)]
struct Events {
    received: Vec<u8>,
}

impl Events {
    fn add(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.received.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.received.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.received.drain(..end + 2).collect();
            let mut event = Event::default();
            for line in String::from_utf8_lossy(&block).lines() {
                match line.split_once(": ") {
                    Some(("event", kind)) => kind.clone_into(&mut event.kind),
                    Some(("data", data)) => data.clone_into(&mut event.data),
                    _ => {}
                }
            }
            // A comment keeps the connection alive.
            if !event.data.is_empty() {
                events.push(event);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_may_come_in_pieces() {
        let mut events = Events::default();
        let stream = b": alive\n\ndata: {\"a\": 1}\n\nevent: lagged\ndata: 3\n\n";
        let found: Vec<_> = stream.chunks(5).flat_map(|chunk| events.add(chunk)).collect();
        let event = |kind: &str, data: &str| Event { kind: kind.to_owned(), data: data.to_owned() };
        assert_eq!(found, [event("", "{\"a\": 1}"), event("lagged", "3")]);
    }
}
