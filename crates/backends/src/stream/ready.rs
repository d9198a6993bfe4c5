//! Reading and writing without waiting, for a client that does both at the same time.
//!
//! Knows: sockets. Must not know: what goes over the connection.

use super::Socket;
use std::io;
use tokio::io::{Interest, Ready};

impl Socket {
    /// Waits until it can be read, or written if that is of interest.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Socket::Tcp(stream) => stream.ready(interest).await,
            Socket::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// Reads what is there, without waiting.
    pub(crate) fn try_read(&self, buffer: &mut bytes::BytesMut) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_read_buf(buffer),
            Socket::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes as much as can be written without waiting.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write(bytes),
            Socket::Unix(stream) => stream.try_write(bytes),
        }
    }
}
