//! Which certificates to trust on an encrypted connection: the authorities of the system and those of a file.
//!
//! Knows: certificates. Must not know: what goes over the connection.

use dane::Dane;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use verifier::Verifier;

/// The largest file of authorities: ten times what the systems have.
const MAX_CA_BYTES: u64 = 4 << 20;

pub mod dane;
mod verifier;

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

/// A client that verifies the server's certificate and name. The error says what is wrong with the file, or
/// that nobody could be trusted.
pub fn client_config(ca_file: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    client_config_with(Verification::Full, ca_file).map(Arc::new)
}

/// A client that verifies so much.
pub fn client_config_with(verification: Verification, ca_file: Option<&str>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let trusted = || Authorities::read(ca_file);
    let verifier = match verification {
        Verification::Full => Verifier::of_authority_and_name(trusted()?, None, provider)?,
        Verification::FullFor(name) => Verifier::of_authority_and_name(trusted()?, Some(name), provider)?,
        Verification::Authority => Verifier::of_authority(trusted()?, provider)?,
        Verification::Dane(dane) => Verifier::of_dane(dane, provider),
        Verification::None => Verifier::of_nothing(provider),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// A client that verifies that the certificate is for `name`, for a library that can't be told the name of
/// the server.
pub fn client_config_for(
    ca_file: Option<&str>,
    name: ServerName<'static>,
) -> Result<Arc<ClientConfig>, String> {
    let mut config = client_config_with(Verification::FullFor(name), ca_file)?;
    // The name that the library would send is not the server's.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The certificates of the authorities of the system and of a file. The error says what is wrong with the
/// file, or that nobody could be trusted.
pub fn authorities(ca_file: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Authorities { mut of_system, named } = Authorities::read(ca_file)?;
    of_system.extend(named);
    Ok(of_system)
}

/// Certificates that are trusted.
struct Authorities {
    of_system: Vec<CertificateDer<'static>>,
    /// Those of a file.
    named: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn read(ca_file: Option<&str>) -> Result<Authorities, String> {
        let mut of_system = rustls_native_certs::load_native_certs().certs;
        // One that rustls can't read, as old ones are, must not keep the others from being trusted.
        of_system.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
        let mut named = Vec::new();
        if let Some(path) = ca_file {
            let wrong = |error: &dyn std::fmt::Display| format!("tls_ca {path}: {error}");
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
            return Err("the system has no certificates of authorities; name some in tls_ca".to_owned());
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
        let complaint = client_config(Some(path)).unwrap_err();
        assert!(complaint.starts_with(&format!("tls_ca {path}: ")), "{complaint}");
        std::fs::write(path, "no certificate").unwrap();
        assert!(client_config(Some(path)).unwrap_err().ends_with("there is no certificate in it"));
        std::fs::write(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(client_config(Some(path)).is_err());
    }
}
