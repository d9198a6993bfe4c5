//! Whom to trust on an encrypted connection: the authorities of the system and those of a file.
//!
//! Knows: certificates. Must not know: what goes over the connection.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// A client that verifies the server's certificate and name. The error says what is wrong with the file, or
/// that nobody could be trusted.
pub fn client_config(ca_file: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(authorities(ca_file)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn authorities(ca_file: Option<&str>) -> Result<RootCertStore, String> {
    let mut trusted = RootCertStore::empty();
    // One that rustls can't read, as old ones are, must not keep the others from being trusted.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let wrong = |error: &dyn std::fmt::Display| format!("tls_ca {path}: {error}");
        let before = trusted.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            trusted.add(certificate).map_err(|error| wrong(&error))?;
        }
        if trusted.len() == before {
            return Err(wrong(&"there is no certificate in it"));
        }
    }
    if trusted.is_empty() {
        return Err("the system has no certificates of authorities; name some in tls_ca".to_owned());
    }
    Ok(trusted)
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
