//! Opens the connections over which a service is asked.
//!
//! Knows: TCP, UNIX sockets, TLS. Must not know: requests.

use super::HttpSettings;
use crate::tls::{Verification, client_config_with};
use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Opens connections to one service, whatever the library asks for.
#[derive(Clone)]
pub(super) struct Connector(Arc<Target>);

struct Target {
    place: Place,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// How long opening may take: it may go on without the call that wanted it.
    limit: Duration,
}

enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// A connection of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection for Box<dyn Stream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Connector {
    /// The error says what is wrong with a setting.
    pub fn new(settings: &HttpSettings) -> Result<Connector, String> {
        let url = &settings.url;
        let tls = match url.is_encrypted() {
            false => None,
            true => {
                let name = ServerName::try_from(url.host().to_owned());
                let name = name.map_err(|_| format!("url: `{}` is not a host name", url.host()))?;
                let mut config = client_config_with(Verification::Full, settings.tls_ca.as_deref())?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let place = match &settings.socket_path {
            Some(path) => Place::Unix(path.clone()),
            None => Place::Tcp { host: url.host().to_owned(), port: url.port() },
        };
        Ok(Connector(Arc::new(Target { place, tls, limit: settings.timeout })))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move {
            let opened = timeout(target.limit, target.open()).await;
            opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        })
    }
}

impl Target {
    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match &self.place {
            Place::Tcp { host, port } => {
                let stream = self.open_tcp(host, *port).await?;
                stream.set_nodelay(true)?;
                self.encrypt(stream).await
            }
            Place::Unix(path) => self.encrypt(UnixStream::connect(path).await?).await,
        }
    }

    /// Tries the addresses of the host one after the other; each has its part of the time, so that one that
    /// does not answer leaves some to the next.
    async fn open_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
        let part = self.limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
            match timeout(part, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn encrypt(&self, stream: impl Stream + 'static) -> io::Result<Box<dyn Stream>> {
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((tls, name)) => Ok(Box::new(tls.connect(name.clone(), stream).await?)),
        }
    }
}
