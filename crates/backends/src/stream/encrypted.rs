//! A connection to a server that is encrypted, or may become so.
//!
//! Knows: sockets, TLS. Must not know: what goes over the connection.

use super::Socket;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// What is sent can be read on the way.
    Plain(Socket),
    /// It can not.
    Encrypted(Box<TlsStream<Socket>>),
}

impl Socket {
    /// The same connection, encrypted from now on.
    pub(crate) async fn encrypt(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Stream> {
        let stream = TlsConnector::from(config).connect(name, self).await?;
        Ok(Stream::Encrypted(Box::new(stream)))
    }
}

delegate!(Stream, Plain Encrypted);
