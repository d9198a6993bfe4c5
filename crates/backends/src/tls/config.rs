//! Which certificates to trust on an encrypted connection: the authorities of the system and those of a file.
//!
//! Knows: certificates. Must not know: what goes over the connection.

use super::Identity;
use super::dane::Dane;
use super::verifier::Verifier;
use crate::OptionError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt::Display;
use std::sync::Arc;

/// The largest file of authorities: ten times what the systems have.
const MAX_CA_BYTES: u64 = 4 << 20;

/// How much of a server's certificate is verified.
#[derive(Clone, Debug)]
pub enum Verification {
    /// Nothing: nobody can listen, but anybody can pretend to be the server.
    None,
    /// That it comes from a trusted authority.
    Authority,
    /// That it does, and is for the server's name.
    Full,
    /// That it does, and is for this name, whatever the server's is.
    FullFor(ServerName<'static>),
    /// That TLSA records name it.
    Dane(Dane),
}

/// A client that verifies so much, and shows a certificate of its own if it has one.
///
/// # Errors
/// What is wrong with a file, or that nobody could be trusted.
pub fn client_config(
    verification: Verification,
    ca_file: Option<&str>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, OptionError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    let trusted = || Authorities::read(ca_file);
    let verifier = match verification {
        Verification::Full => Verifier::of_authority_and_name(trusted()?, None, provider),
        Verification::FullFor(name) => Verifier::of_authority_and_name(trusted()?, Some(name), provider),
        Verification::Authority => Verifier::of_authority(trusted()?, provider),
        Verification::Dane(dane) => Ok(Verifier::of_dane(dane, provider)),
        Verification::None => Ok(Verifier::of_nothing(provider)),
    };
    let verifier = verifier.map_err(wrong)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = identity.read()?;
            builder.with_client_auth_cert(chain, key).map_err(|error| identity.wrong_certificate(error))
        }
    }
}

impl Identity {
    /// What is wrong with the files, if anything is.
    pub fn check(&self) -> Result<(), OptionError> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), OptionError> {
        let pem = safe_files::read(self.certificate.as_ref(), MAX_CA_BYTES);
        let pem = pem.map_err(|error| self.wrong_certificate(error))?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| self.wrong_certificate(error))?;
        if chain.is_empty() {
            return Err(self.wrong_certificate("there is no certificate in it"));
        }
        let wrong_key = |why: &dyn Display| OptionError::new("tls_key", format!("{}: {why}", self.key));
        let pem = safe_files::read(self.key.as_ref(), MAX_CA_BYTES).map_err(|error| wrong_key(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong_key(&error))?;
        Ok((chain, key))
    }

    fn wrong_certificate(&self, why: impl Display) -> OptionError {
        OptionError::new("tls_certificate", format!("{}: {why}", self.certificate))
    }
}

/// The certificates of the authorities of the system and of a file. The error says what is wrong with the
/// file, or that nobody could be trusted.
pub fn authorities(ca_file: Option<&str>) -> Result<Vec<CertificateDer<'static>>, OptionError> {
    let Authorities { mut of_system, named } = Authorities::read(ca_file)?;
    of_system.extend(named);
    Ok(of_system)
}

/// What is wrong with the file of authorities, or without one.
fn wrong(why: impl Display) -> OptionError {
    OptionError::new("tls_ca", why)
}

/// Certificates that are trusted.
pub(super) struct Authorities {
    pub(super) of_system: Vec<CertificateDer<'static>>,
    /// Those of a file.
    pub(super) named: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn read(ca_file: Option<&str>) -> Result<Authorities, OptionError> {
        let mut of_system = rustls_native_certs::load_native_certs().certs;
        // One that rustls can't read, as old ones are, must not keep the others from being trusted.
        of_system.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
        let mut named = Vec::new();
        if let Some(path) = ca_file {
            let wrong = |error: &dyn Display| wrong(format!("{path}: {error}"));
            let pem = safe_files::read(path.as_ref(), MAX_CA_BYTES).map_err(|error| wrong(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                RootCertStore::empty().add(certificate.clone()).map_err(|error| wrong(&error))?;
                named.push(certificate);
            }
            if named.is_empty() {
                return Err(wrong(&"there is no certificate in it"));
            }
        }
        if of_system.is_empty() && named.is_empty() {
            return Err(wrong("the system has no certificates of authorities; name some"));
        }
        Ok(Authorities { of_system, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_has_to_hold_some() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let path = path.to_str().unwrap();
        let complaint = client_config(Verification::Full, Some(path), None).unwrap_err();
        assert!(complaint.to_string().starts_with(&format!("tls_ca: {path}: ")), "{complaint}");
        std::fs::write(path, "no certificate").unwrap();
        assert!(
            client_config(Verification::Full, Some(path), None)
                .unwrap_err()
                .why
                .ends_with("there is no certificate in it")
        );
        std::fs::write(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(client_config(Verification::Full, Some(path), None).is_err());
    }
}
