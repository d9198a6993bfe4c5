//! An authority for tests, and the certificate of a server on 127.0.0.1.
//!
//! Knows: the program openssl. Must not know: who serves with it.

use super::{new_folder, program, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// The files of one authority. Two of them do not know each other.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// A new authority and a server's certificate by it, for `localhost`, `127.0.0.1` and `::1`.
    pub fn new() -> Certificates {
        let certificates = Certificates { folder: new_folder() };
        let openssl = program("openssl", "openssl");
        let file = |name: &str| certificates.path(name).display().to_string();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
        let (authority_key, server_key) = (file("authority.key"), file("server.key"));
        let (authority, request, server) = (file("ca.pem"), file("server.csr"), file("server.pem"));
        let mut make = vec!["req", "-x509", "-subj", "/CN=authority of a test", "-days", "2"];
        make.extend(key);
        make.extend(["-keyout", &authority_key, "-out", &authority]);
        run(&openssl, &make);
        let mut make = vec!["req", "-subj", "/CN=localhost"];
        make.extend(key);
        make.extend(["-keyout", &server_key, "-out", &request]);
        run(&openssl, &make);
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nbasicConstraints=CA:FALSE\n";
        let names_file = file("names");
        fs::write(&names_file, names).expect("the folder is writable");
        let signed = ["x509", "-req", "-days", "2", "-set_serial", "2", "-extfile", &names_file];
        let mut make = signed.to_vec();
        make.extend(["-in", &request, "-CA", &authority, "-CAkey", &authority_key, "-out", &server]);
        run(&openssl, &make);
        // Servers run as users of their own.
        let everybody = fs::Permissions::from_mode(0o644);
        fs::set_permissions(certificates.key(), everybody).expect("the file is ours");
        certificates
    }

    /// The same server with a certificate that it has signed itself, and which openssl makes an authority's.
    pub fn sign_itself(&self) {
        let (key, server) = (self.key().display().to_string(), self.certificate().display().to_string());
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1";
        let mut make = vec!["req", "-x509", "-subj", "/CN=localhost", "-days", "2", "-addext", names];
        make.extend(["-key", &key, "-out", &server]);
        run(&program("openssl", "openssl"), &make);
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The certificate of the server.
    pub fn certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The key of the server, readable by everybody.
    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
