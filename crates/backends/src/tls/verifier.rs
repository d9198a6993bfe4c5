//! Verifies certificates otherwise than rustls does: for another name than the library has, without looking
//! at the name, or not at all, where a setting says so.
//!
//! Knows: rustls. Must not know: callers that want less than everything.

use super::config::Authorities;
use super::dane::Dane;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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
    Authority(Trust),
    AuthorityAndName(Trust, Option<ServerName<'static>>),
    Dane(Dane),
}

/// Who is trusted.
#[derive(Debug)]
struct Trust {
    authorities: Arc<WebPkiServerVerifier>,
    /// Certificates that the administrator has named.
    named: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// A server may show a certificate that is itself trusted and, as OpenSSL makes them, an authority's:
    /// everything else about it has been looked at, but the name.
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(error) if is_of_authority(&error) && self.named.iter().any(|named| named == certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }
}

impl Authorities {
    fn trust(self, provider: &Arc<CryptoProvider>) -> Result<Trust, String> {
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(self.of_system.into_iter().chain(self.named.iter().cloned()));
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider.clone());
        let authorities = builder.build().map_err(|error| error.to_string())?;
        Ok(Trust { authorities, named: self.named })
    }
}

/// Whether a certificate was refused as one that may sign others.
fn is_of_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    other.to_string() == "CaUsedAsEndEntity"
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

    /// One that accepts what these authorities have signed, or are, for any name.
    pub fn of_authority(trusted: Authorities, provider: Arc<CryptoProvider>) -> Result<Verifier, String> {
        let check = Check::Authority(trusted.trust(&provider)?);
        Ok(Verifier { check, provider })
    }

    /// The same for this name, or else for the server's.
    pub fn of_authority_and_name(
        trusted: Authorities,
        name: Option<ServerName<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let check = Check::AuthorityAndName(trusted.trust(&provider)?, name);
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
            Check::Authority(trust) => match trust.verify(certificate, intermediates, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                verified => verified,
            },
            Check::Dane(dane) => {
                let known = &self.provider.signature_verification_algorithms;
                dane.verify(certificate, intermediates, now, known)?;
                Ok(ServerCertVerified::assertion())
            }
            Check::AuthorityAndName(trust, wanted) => {
                trust.verify(certificate, intermediates, wanted.as_ref().unwrap_or(name), ocsp, now)
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
