//! Certificates for libraries that can't be told the name of the server.
//!
//! Knows: which name a certificate has to be for. Must not know: whose server it is.

use super::{Verification, authorities, client_config_with};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// A client that verifies that the server's certificate is for `name`, whatever name the library has.
pub fn client_config_for(
    ca_file: Option<&str>,
    name: ServerName<'static>,
) -> Result<Arc<ClientConfig>, String> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(authorities(ca_file)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let mut config = client_config_with(Verification::Full, ca_file)?;
    // The name that the library would send is not the server's.
    config.enable_sni = false;
    config.dangerous().set_certificate_verifier(Arc::new(Named { name, verifier }));
    Ok(Arc::new(config))
}

/// Verifies certificates for a name of its own.
#[derive(Debug)]
struct Named {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(certificate, between, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
