//! fail2ban, asked over its UNIX socket to ban an address.
//!
//! A command is a list of strings and its reply a pair of a code and a value, both as Python's pickle and
//! with an end mark behind them. Each command has a connection of its own.
//!
//! Knows: the protocol, deadlines, whether the server is alive. Must not know: why an address is banned.

mod pickle;

pub use pickle::Reply;

use crate::messages;
use crate::replay;
use crate::{BackendError, Breaker, Call, CallError, Endpoint, Failure, Guarded, Server, Socket};
use lookups::LookupKind;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout_at};

/// What stands behind a command and a reply.
const END: &[u8] = b"<F2B_END_COMMAND>";

/// The longest reply that is read; one to a ban has twenty bytes, an error as many as its text.
const MAX_REPLY_BYTES: usize = 64 << 10;

/// When to try again while the queue of the server is full.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// Commands that the server has not replied to. It does them when it wakes up; more than this is too much to
/// leave to it, and each holds a descriptor.
const MAX_UNANSWERED: usize = 32;

/// How long a reply is listened for that did not come in time.
const LATE_REPLY: Duration = Duration::from_secs(60);

/// The longest name of a jail: its length is one byte.
const MAX_JAIL_BYTES: usize = 255;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has done it.
    Done,
    /// It was sent, and the server has not replied in time: it does it when it comes to it.
    Sent,
}

/// A server of fail2ban.
pub struct Fail2Ban {
    server: Guarded<Daemon>,
}

struct Daemon {
    socket: Endpoint,
    limit: Duration,
    /// The number of commands that still wait for a reply in the background.
    unanswered: AtomicUsize,
}

/// Why a name can be none of a jail.
pub fn check_jail(jail: &str) -> Result<(), String> {
    let is_plain = jail.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && !jail.contains('<');
    match jail.len() {
        0 => Err("the name is empty".to_owned()),
        1..=MAX_JAIL_BYTES if is_plain => Ok(()),
        1..=MAX_JAIL_BYTES => {
            Err(format!("`{jail}` is not the name of a jail: it may have plain ASCII only"))
        }
        _ => Err(format!("the name is longer than {MAX_JAIL_BYTES} bytes")),
    }
}

impl Fail2Ban {
    /// The server behind a socket, which has this time for a command. Nothing is opened yet.
    pub fn new(socket: &str, limit: Duration) -> Fail2Ban {
        let breaker = Breaker::new(&format!("fail2ban at {socket}"));
        let daemon = Daemon { socket: Endpoint::Unix(socket.into()), limit, unanswered: AtomicUsize::new(0) };
        Fail2Ban { server: Guarded::new(breaker, limit, daemon) }
    }

    /// Has an address banned in a jail. While the server is known not to reply, nobody waits for it.
    pub async fn ban(&self, jail: &str, ip: IpAddr, call: Call<'_>) -> Result<Outcome, BackendError> {
        if let Some(pretence) = call.pretence() {
            pretence.note(format!("ban {ip} in jail {jail}"));
            return Ok(Outcome::Done);
        }
        let question = || format!("ban {ip} in {jail}");
        if let Some(replay) = call.replay() {
            let connection = self.server.connection();
            let recorded = replay.answer(LookupKind::Fail2Ban, connection, &question());
            let failed = recorded.and_then(|answer| replay::failure(connection, &answer));
            // Nothing follows from what it replies.
            return failed.map_or(Ok(Outcome::Done), Err);
        }
        let begun = call.begin();
        let outcome = self.send(jail, ip, call).await;
        let name = self.server.connection();
        let answer = |outcome: &Outcome| format!("{outcome:?}").to_lowercase();
        begun.note_texts(LookupKind::Fail2Ban, name, question, &outcome, answer);
        outcome
    }

    async fn send(&self, jail: &str, ip: IpAddr, call: Call<'_>) -> Result<Outcome, BackendError> {
        let server = &self.server;
        let call = call.at_most(server.limit);
        let unanswered = server.unanswered.load(Ordering::Relaxed);
        let sent = async {
            if unanswered >= MAX_UNANSWERED {
                let why = format!("it has not replied to {unanswered} commands");
                return Err(CallError::Failed(Failure::Down(why.into())));
            }
            let command = pickle::command(&["set", jail, "banip", &ip.to_string()]);
            // It takes too long if its queue is full, or the request had no time left.
            server.send(&command, unanswered == 0).await.map_err(|error| CallError::Down(error.to_string()))
        };
        let mut stream = server.call(sent, call).await?;
        let mut reply = Vec::new();
        if unanswered == 0
            && let Ok(received) = timeout_at(call.deadline(), receive(&mut stream, &mut reply)).await
        {
            return judge(server, received, &reply).map(|()| Outcome::Done);
        }
        listen_on(server, stream, reply);
        Ok(Outcome::Sent)
    }
}

impl Daemon {
    /// Sends a command over a connection of its own.
    async fn send(&self, command: &[u8], patient: bool) -> std::io::Result<Socket> {
        let mut stream = self.connect(patient).await?;
        stream.write_all(command).await?;
        stream.write_all(END).await?;
        Ok(stream)
    }

    /// Connects. fail2ban lets one connection wait in its queue, so another one that comes at the same time
    /// has to try again.
    async fn connect(&self, patient: bool) -> std::io::Result<Socket> {
        loop {
            match Socket::connect(&self.socket, self.limit).await {
                Err(error) if error.kind() == ErrorKind::WouldBlock && patient => sleep(TRY_AGAIN).await,
                connected => return connected,
            }
        }
    }
}

impl Server for Daemon {
    /// Whether somebody can connect. Nothing is sent.
    async fn answers(&self) -> bool {
        self.connect(true).await.is_ok()
    }
}

/// What a reply means, if it was received.
fn judge(server: &Guarded<Daemon>, received: std::io::Result<()>, reply: &[u8]) -> Result<(), BackendError> {
    let refused = match received.map(|()| Reply::parse(reply)) {
        Ok(Some(Reply::Done)) => return Ok(()),
        Ok(Some(Reply::Failed(text))) => text,
        Ok(None) => "the reply can't be understood".to_owned(),
        Err(error) => format!("the reply can't be read: {error}"),
    };
    Err(server.error(Failure::Refused(refused)))
}

/// Waits in the background for a reply that is late, so that no ban fails without a word.
fn listen_on(server: &Guarded<Daemon>, mut stream: Socket, mut reply: Vec<u8>) {
    if server.unanswered.fetch_add(1, Ordering::Relaxed) == 0 {
        messages::fail2ban_late(server.connection());
    }
    let server = server.clone();
    tokio::spawn(async move {
        let until = Instant::now() + LATE_REPLY;
        let received = timeout_at(until, receive(&mut stream, &mut reply)).await;
        let left = server.unanswered.fetch_sub(1, Ordering::Relaxed) - 1;
        match received.map(|received| judge(&server, received, &reply)) {
            Ok(Ok(())) if left == 0 => messages::fail2ban_back(server.connection()),
            Ok(Ok(())) => {}
            Ok(Err(error)) => messages::fail2ban_failed(error),
            Err(_) => messages::fail2ban_failed(server.error(Failure::TimedOut)),
        }
    });
}

/// Reads a reply up to its end mark, which it takes off.
async fn receive(stream: &mut Socket, reply: &mut Vec<u8>) -> std::io::Result<()> {
    while !reply.ends_with(END) {
        if reply.len() > MAX_REPLY_BYTES {
            return Err(std::io::Error::other("it is too long"));
        }
        if stream.read_buf(reply).await? == 0 {
            return Err(std::io::Error::other("the server has closed the connection"));
        }
    }
    reply.truncate(reply.len() - END.len());
    Ok(())
}
