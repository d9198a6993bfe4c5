//! A small client: asks another policy server, over any connection.
//!
//! There are no timeouts in here. Put each call into `tokio::time::timeout`, and drop the connection after
//! any error: what it would read next may belong to the question before.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::{fmt, io};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::limits::Limits;
use crate::{Decoder, ProtocolError, Request};

/// A connection to a policy server, for one question after the other.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    buffer: BytesMut,
    /// Set while a question is on its way, and left set when its answer did not come whole: by an error, or
    /// because the future was dropped. The next bytes then belong to nobody.
    unusable: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream that is connected to a server and unused.
    pub fn new(stream: S) -> Connection<S> {
        Connection { stream, buffer: BytesMut::new(), unusable: false }
    }

    /// Asks one question and waits for its answer.
    ///
    /// After an error, or when this future was dropped before its end, each further call fails.
    pub async fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        if std::mem::replace(&mut self.unusable, true) {
            return Err(ClientError::Unusable);
        }
        self.stream.write_all(request.frame()).await?;
        let answer = self.read_answer().await?;
        // Bytes behind the answer belong to no question.
        self.unusable = !self.buffer.is_empty();
        Ok(answer)
    }

    /// Whether an idle connection can take another question, as far as is known yet.
    ///
    /// A server says nothing unasked, so bytes that can be read, or their end, mean that it has hung up:
    /// Postfix judges the same way. The news may still be on its way, so [`ClientError::is_hang_up`] has the
    /// last word.
    pub fn is_usable(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        let read = Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte));
        self.unusable |= read.is_ready();
        !self.unusable
    }

    async fn read_answer(&mut self) -> Result<Answer, ClientError> {
        let mut decoder = Decoder::with_limits(Limits::ANSWER);
        loop {
            if let Some(message) = decoder.decode(&mut self.buffer)? {
                let attributes =
                    message.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                let answer = Answer { attributes };
                return if answer.action().is_some() { Ok(answer) } else { Err(ClientError::NoAction) };
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(ClientError::ClosedEarly { received: self.buffer.len() });
            }
        }
    }
}

/// What a policy server answered. It is foreign text: make a [`Reply`](crate::Reply) of its action before
/// that goes to Postfix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Names and values in the order received.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Answer {
    /// The action, which each answer of [`Connection::ask`] has. Of several the first one counts, as for
    /// Postfix.
    pub fn action(&self) -> Option<&[u8]> {
        let (_, action) = self.attributes.iter().find(|(name, _)| name == b"action")?;
        Some(action)
    }
}

/// Why there is no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The system reports an error of the connection.
    Io(io::Error),
    /// The server closed the connection before the end of its answer.
    ClosedEarly {
        /// Bytes of the answer that had come.
        received: usize,
    },
    /// The answer is whole but has no `action`.
    NoAction,
    /// The answer exceeds a limit.
    TooLong(ProtocolError),
    /// The answer does not keep to the protocol.
    Malformed(ProtocolError),
    /// An earlier question on this connection failed or was given up.
    Unusable,
}

impl ClientError {
    /// Whether the server hung up before it answered anything: usual for a connection that was kept idle, and
    /// a reason to ask once more on a new one.
    pub fn is_hang_up(&self) -> bool {
        match self {
            ClientError::ClosedEarly { received } => *received == 0,
            ClientError::Io(error) => {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }
            _ => false,
        }
    }
}

impl ClientError {
    /// Whether a server that could be reached has answered nothing, or something that is not an answer.
    pub fn is_about_the_answer(&self) -> bool {
        match self {
            ClientError::Io(_) | ClientError::Unusable => self.is_hang_up(),
            ClientError::ClosedEarly { .. }
            | ClientError::NoAction
            | ClientError::TooLong(_)
            | ClientError::Malformed(_) => true,
        }
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError::Io(error)
    }
}

impl From<ProtocolError> for ClientError {
    fn from(error: ProtocolError) -> ClientError {
        match error {
            ProtocolError::LineTooLong { .. }
            | ProtocolError::TooManyAttributes { .. }
            | ProtocolError::RequestTooLong { .. } => ClientError::TooLong(error),
            ProtocolError::NoEqualSign { .. } | ProtocolError::Nul | ProtocolError::Unwritable { .. } => {
                ClientError::Malformed(error)
            }
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Io(error) => write!(f, "{error}"),
            ClientError::ClosedEarly { received: 0 } => write!(f, "the server closed without an answer"),
            ClientError::ClosedEarly { received } => {
                write!(f, "the server closed in the middle of its answer, after {received} bytes")
            }
            ClientError::NoAction => write!(f, "the answer has no action"),
            ClientError::TooLong(error) => write!(f, "the answer is too long: {error}"),
            ClientError::Malformed(error) => write!(f, "the answer is malformed: {error}"),
            ClientError::Unusable => write!(f, "an earlier question on this connection was not answered"),
        }
    }
}

/// A source would only repeat what the text above says.
impl std::error::Error for ClientError {}
