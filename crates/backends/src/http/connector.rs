//! Opens the connections over which a service is asked.
//!
//! Knows: what the library wants of a connection. Must not know: requests.

use super::HttpSettings;
use crate::OptionError;
use crate::tls::{Verification, client_config};
use crate::{Endpoint, Socket, Stream};
use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// Opens connections to one service, whatever the library asks for.
#[derive(Clone)]
pub(super) struct Connector(Arc<Target>);

struct Target {
    endpoint: Endpoint,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// How long opening may take: it may go on without the call that wanted it.
    limit: Duration,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Connector {
    /// The error says what is wrong with a setting.
    pub fn new(settings: &HttpSettings) -> Result<Connector, OptionError> {
        let url = &settings.url;
        let tls = match url.is_encrypted() {
            false => None,
            true => {
                let name = ServerName::try_from(url.host().to_owned());
                let name = name
                    .map_err(|_| OptionError::new("url", format!("`{}` is not a host name", url.host())))?;
                let mut config = client_config(Verification::Full, settings.tls_ca.as_deref(), None)?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some((Arc::new(config), name))
            }
        };
        let endpoint = match &settings.socket_path {
            Some(path) => Endpoint::Unix(path.clone()),
            None => Endpoint::Tcp { host: url.host().to_owned(), port: url.port() },
        };
        Ok(Connector(Arc::new(Target { endpoint, tls, limit: settings.timeout })))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
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
    async fn open(&self) -> io::Result<Stream> {
        let socket = Socket::connect(&self.endpoint, self.limit).await?;
        match &self.tls {
            None => Ok(Stream::Plain(socket)),
            Some((config, name)) => socket.encrypt(config.clone(), name.clone()).await,
        }
    }
}
