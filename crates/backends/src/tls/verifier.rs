//! Verifies certificates otherwise than rustls does: for another name than the library has, without looking
//! at the name, or not at all, where a setting says so.
//!
//! Knows: rustls. Must not know: callers that want less than everything.

use super::dane::Dane;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Verifies a server.
#[derive(Debug)]
pub(super) struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

/// What of a certificate is looked at.
#[derive(Debug)]
enum Check {
    Nothing,
    Authority(Arc<WebPkiServerVerifier>),
    AuthorityAndName(Arc<WebPkiServerVerifier>, ServerName<'static>),
    Dane(Dane),
}

impl Verifier {
    /// One that accepts every certificate.
    pub fn of_nothing(provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { check: Check::Nothing, provider }
    }

    /// One that accepts what TLSA records name.
    pub fn of_dane(dane: Dane, provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { check: Check::Dane(dane), provider }
    }

    /// One that accepts what these authorities have signed, for the name if there is one, else for any.
    pub fn of_authority(
        trusted: RootCertStore,
        name: Option<ServerName<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider.clone());
        let authorities = builder.build().map_err(|error| error.to_string())?;
        let check = match name {
            Some(name) => Check::AuthorityAndName(authorities, name),
            None => Check::Authority(authorities),
        };
        Ok(Verifier { check, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.check {
            Check::Nothing => Ok(ServerCertVerified::assertion()),
            // The name is looked at last.
            Check::Authority(authorities) => {
                match authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
                    Err(Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    )) => Ok(ServerCertVerified::assertion()),
                    verified => verified,
                }
            }
            Check::Dane(dane) => {
                let known = &self.provider.signature_verification_algorithms;
                dane.verify(certificate, intermediates, now, known)?;
                Ok(ServerCertVerified::assertion())
            }
            Check::AuthorityAndName(authorities, name) => {
                authorities.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
