//! TLS of the console: the certificate and its key, read again when the files are replaced.
//!
//! Knows: files in PEM, rustls. Must not know: what is said over a connection.

use crate::log::messages::console as messages;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often to look whether the files were replaced.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// More than a certificate with those above it has.
const MAX_FILE: u64 = 1 << 20;

/// When each of the files was changed.
type Stamp = [Option<SystemTime>; 2];

/// The certificate in use.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
    stamp: Stamp,
}

impl Tls {
    /// Reads both files.
    pub fn read(certificate: PathBuf, key: PathBuf) -> io::Result<Tls> {
        let stamp = stamp(&certificate, &key);
        let config = ArcSwap::new(config(&certificate, &key)?);
        Ok(Tls { certificate, key, config, stamp })
    }

    /// Begins TLS with a client.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }

    /// Looks after the files for as long as the port is open.
    pub async fn renew(&self) {
        let mut known = self.stamp;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            let read = tokio::task::spawn_blocking(move || {
                let new = stamp(&certificate, &key);
                (new != known).then(|| (new, config(&certificate, &key)))
            });
            match read.await.unwrap_or_default() {
                None => {}
                Some((new, Ok(config))) => {
                    self.config.store(config);
                    known = new;
                    messages::console_certificate_new();
                }
                Some((_, Err(error))) => messages::console_certificate_kept(error),
            }
        }
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| path.metadata().and_then(|file| file.modified()).ok())
}

fn config(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let naming = |path: &Path, why: String| io::Error::other(format!("{}: {why}", path.display()));
    let read =
        |path: &Path| safe_files::read(path, MAX_FILE).map_err(|error| naming(path, error.to_string()));
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| naming(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(naming(certificate, "no certificate in it".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&read(key)?);
    let private = private.map_err(|error| naming(key, error.to_string()))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| naming(certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
