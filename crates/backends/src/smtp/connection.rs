//! A connection to an SMTP server: a command, its reply, each with a time limit.
//!
//! Knows: time limits, where a reply ends. Must not know: which command follows which.

use super::reply::Reply;
use crate::{Endpoint, Socket, Stream};
use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long connecting may take: a host that is reachable answers in less, and another may follow.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long the handshake of TLS may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long a reply may take: servers that slow strangers down say their greeting after 30 seconds or less.
const REPLY_LIMIT: Duration = Duration::from_secs(40);

/// How long a good-bye may take; nobody waits for it.
const QUIT_LIMIT: Duration = Duration::from_secs(2);

/// After this many bytes without an end of line, the length of the line is checked.
const MAX_UNREAD: usize = 4_096;

/// A connection that can't be used any more, and why, in words for a log line or a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

impl Lost {
    /// For that reason.
    pub fn because(why: impl std::fmt::Display) -> Lost {
        Lost(why.to_string())
    }
}

/// A connection.
pub struct Connection {
    stream: Stream,
    received: BytesMut,
}

impl Connection {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Connection, Lost> {
        Connection::connect_to(&Endpoint::from(address)).await
    }

    /// Connects to a server of the configuration.
    pub async fn connect_to(server: &Endpoint) -> Result<Connection, Lost> {
        match timeout(CONNECT_LIMIT, Socket::connect(server, CONNECT_LIMIT)).await {
            Ok(Ok(socket)) => Ok(Connection { stream: Stream::Plain(socket), received: BytesMut::new() }),
            Ok(Err(error)) => Err(Lost(format!("can't connect: {error}"))),
            Err(_) => Err(Lost("can't connect in time".to_owned())),
        }
    }

    /// From where it was opened; `None` for a UNIX socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Plain(Socket::Tcp(stream)) => stream.local_addr().ok(),
            Stream::Plain(Socket::Unix(_)) | Stream::Encrypted(_) => None,
        }
    }

    /// The next reply. A server that says it is closing the connection has lost it.
    pub async fn reply(&mut self) -> Result<Reply, Lost> {
        let reply = match timeout(REPLY_LIMIT, self.read_reply()).await {
            Ok(reply) => reply?,
            Err(_) => return Err(Lost("no reply in time".to_owned())),
        };
        if reply.code == 421 { Err(Lost(reply.text())) } else { Ok(reply) }
    }

    async fn read_reply(&mut self) -> Result<Reply, Lost> {
        let mut looked_at = 0;
        loop {
            let new = &self.received[looked_at..];
            // A server that sends byte by byte must not have its reply read again for each.
            if new.contains(&b'\n') || new.len() >= MAX_UNREAD {
                if let Some((reply, length)) = Reply::parse(&self.received).map_err(Lost::because)? {
                    self.received.advance(length);
                    return Ok(reply);
                }
                looked_at = self.received.len();
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(Lost("it closed the connection".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(Lost(error.to_string())),
            }
        }
    }

    /// Says a command, and what the server replies.
    pub async fn command(&mut self, command: &str) -> Result<Reply, Lost> {
        // What came before the question is not an answer to it.
        if !self.received.is_empty() {
            return Err(Lost("it does not speak SMTP".to_owned()));
        }
        let line = format!("{command}\r\n");
        match timeout(REPLY_LIMIT, self.send(line.as_bytes())).await {
            Ok(Ok(())) => self.reply().await,
            Ok(Err(error)) => Err(Lost(error.to_string())),
            Err(_) => Err(Lost("no reply in time".to_owned())),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The same connection, encrypted from now on.
    pub async fn encrypt(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Connection, Lost> {
        let Stream::Plain(socket) = self.stream else { return Ok(self) };
        // Somebody on the way could have put it there before the encryption began.
        if !self.received.is_empty() {
            return Err(Lost("it said something before TLS began".to_owned()));
        }
        match timeout(HANDSHAKE_LIMIT, socket.encrypt(config, name)).await {
            Ok(Ok(stream)) => Ok(Connection { stream, received: BytesMut::new() }),
            Ok(Err(error)) => Err(Lost(format!("TLS: {error}"))),
            Err(_) => Err(Lost("TLS: no answer in time".to_owned())),
        }
    }

    /// Says good-bye.
    pub async fn quit(mut self) {
        let _ = timeout(QUIT_LIMIT, self.command("QUIT")).await;
    }
}
