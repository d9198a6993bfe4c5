//! Whether a certificate is one that TLSA records name (RFC 6698, as RFC 7672 has it for mail).
//!
//! Knows: certificates, TLSA records. Must not know: the DNS, what is connected to.

use crate::dns::Association;
use rustls::client::verify_server_cert_signed_by_trust_anchor as verify_chain;
use rustls::client::verify_server_name;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use sha2::{Digest, Sha256, Sha512};

/// An authority that the zone names, and the server's own certificate. The two other usages depend on the
/// authorities of a browser and don't count for mail (RFC 7672 section 3.1.3).
const AUTHORITY: u8 = 2;
const END_ENTITY: u8 = 3;

impl Association {
    /// Whether it means something to a mail client.
    pub fn is_usable(&self) -> bool {
        let length = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        matches!(self.usage, AUTHORITY | END_ENTITY) && self.selector <= 1 && length
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let key;
        let compared: &[u8] = if self.selector == 0 {
            certificate
        } else {
            let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
            key = parsed.subject_public_key_info();
            &key
        };
        match self.matching {
            0 => *compared == *self.data,
            1 => *Sha256::digest(compared) == *self.data,
            2 => *Sha512::digest(compared) == *self.data,
            _ => false,
        }
    }
}

/// The records of a server, and the names that a certificate by an authority may be for.
#[derive(Clone, Debug)]
pub struct Dane {
    /// The records; those that are not usable are left out.
    pub associations: Vec<Association>,
    /// The name of the server, then that of the domain.
    pub names: Vec<ServerName<'static>>,
}

impl Dane {
    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        known: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        // The key is the server's; neither names nor dates matter (RFC 7672 section 3.1.1).
        let own = self.associations.iter().filter(|record| record.usage == END_ENTITY);
        if own.into_iter().any(|record| record.matches(certificate)) {
            return Ok(());
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let is_for_it = self.names.iter().any(|name| verify_server_name(&parsed, name).is_ok());
        for record in self.associations.iter().filter(|record| record.usage == AUTHORITY && is_for_it) {
            let sent = intermediates.iter().find(|candidate| record.matches(candidate));
            // The record may hold the authority itself.
            let held = (record.selector == 0 && record.matching == 0)
                .then(|| CertificateDer::from(record.data.to_vec()));
            let Some(authority) = held.as_ref().or(sent) else { continue };
            let mut trusted = RootCertStore::empty();
            if trusted.add(authority.clone().into_owned()).is_err() {
                continue;
            }
            if verify_chain(&parsed, &trusted, intermediates, now, known.all).is_ok() {
                return Ok(());
            }
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}
