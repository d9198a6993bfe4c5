//! OpenLDAP's server with a small directory.
//!
//! Knows: its programs, its configuration file. Must not know: what a test looks for.

use super::certificates::Certificates;
use super::{Recipe, Server, first_bytes, free_port, new_folder, program, run};
use std::fmt::Write;
use std::fs;
use std::net::{Ipv6Addr, TcpListener};

/// Where the directory begins.
pub const SUFFIX: &str = "dc=example,dc=test";

/// Who may see everything, [`PASSWORD`] included.
pub const BINDDN: &str = "cn=reader,dc=example,dc=test";

/// The password of [`BINDDN`].
pub const PASSWORD: &str = "the reader's password";

/// The entry at the top, for the beginning of an LDIF.
pub const TOP: &str = "\
dn: dc=example,dc=test
objectClass: dcObject
objectClass: organization
dc: example
o: Example
";

const PACKAGE: &str = "slapd";

/// An anonymous bind (RFC 4511, section 4.2).
const ANONYMOUS_BIND: &[u8] = &[0x30, 12, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0];

/// Starts one with the entries of an LDIF (RFC 2849), with STARTTLS if there are certificates. What is
/// `extra` goes into its configuration, behind the database's.
pub fn start(ldif: &str, certificates: Option<&Certificates>, extra: &str) -> Server {
    start_on("127.0.0.1", ldif, certificates, extra)
}

/// The same, and on another address of the loopback, beside [`start`]'s.
pub fn start_on(host: &str, ldif: &str, certificates: Option<&Certificates>, extra: &str) -> Server {
    start_at(&format!("ldap://{host}:$PORT/"), ldif, certificates, extra)
}

/// The same, and on a UNIX socket.
pub fn start_on_socket(path: &std::path::Path, ldif: &str) -> Server {
    let path = path.display().to_string().replace('/', "%2F");
    start_at(&format!("ldapi://{path}"), ldif, None, "")
}

/// The same, and at another URL with another port: the server and that port.
pub fn start_encrypted(ldif: &str, certificates: &Certificates) -> (Server, u16) {
    let port = free_port();
    (start_at(&format!("ldaps://127.0.0.1:{port}/"), ldif, Some(certificates), ""), port)
}

fn start_at(other: &str, ldif: &str, certificates: Option<&Certificates>, extra: &str) -> Server {
    let slapd = program("slapd", PACKAGE);
    let folder = new_folder();
    let file = |name: &str| folder.path().join(name);
    fs::create_dir(file("data")).expect("the folder is writable");
    let mut configuration = String::new();
    for schema in ["core", "cosine", "inetorgperson", "nis"] {
        let _ = writeln!(configuration, "include /etc/ldap/schema/{schema}.schema");
    }
    if let Some(certificates) = certificates {
        let _ = writeln!(
            configuration,
            "TLSCACertificateFile {}\nTLSCertificateFile {}\nTLSCertificateKeyFile {}",
            certificates.authority().display(),
            certificates.certificate().display(),
            certificates.key().display(),
        );
    }
    let _ = writeln!(
        configuration,
        "modulepath /usr/lib/ldap\nmoduleload back_mdb\ndatabase mdb\nmaxsize 16777216\n\
         suffix \"{SUFFIX}\"\nrootdn \"{BINDDN}\"\nrootpw \"{PASSWORD}\"\ndirectory {}\n{extra}",
        file("data").display(),
    );
    fs::write(file("slapd.conf"), configuration).expect("the folder is writable");
    fs::write(file("entries.ldif"), ldif).expect("the folder is writable");
    let path = |name: &str| file(name).display().to_string();
    run(&program("slapadd", PACKAGE), &["-q", "-f", &path("slapd.conf"), "-l", &path("entries.ldif")]);
    let port = free_port();
    let mut urls = format!("ldap://127.0.0.1:{port}/");
    if !other.contains("127.0.0.1:$PORT") {
        let _ = write!(urls, " {}", other.replace("$PORT", &port.to_string()));
    }
    if has_ipv6() {
        let _ = write!(urls, " ldap://[::1]:{port}/");
    }
    let recipe = Recipe {
        program: slapd,
        // Telling it what to say keeps it in the foreground.
        arguments: ["-d", "none", "-f", &path("slapd.conf"), "-h", &urls].map(str::to_owned).to_vec(),
        user: None,
        end_signal: "KILL",
        answers: Box::new(move || first_bytes(port, ANONYMOUS_BIND).is_some()),
    };
    Server::launch(port, folder, recipe)
}

/// Starts one as Debian sets it up: with its configuration in `cn=config`, which root may change over the
/// socket at [`socket`], and an entry at the top of the directory.
pub fn start_as_debian_does(suffix: &str, password: &str) -> Server {
    let slapd = program("slapd", PACKAGE);
    let folder = new_folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["data", "slapd.d"] {
        fs::create_dir(folder.path().join(name)).expect("the folder is writable");
    }
    let shipped = fs::read_to_string("/usr/share/slapd/slapd.init.ldif").expect("the package has it");
    let configuration = shipped.replace("@SUFFIX@", suffix).replace("@PASSWORD@", password);
    let configuration =
        configuration.replace("/var/lib/ldap", &path("data")).replace("/var/run/slapd", &path(""));
    let top = TOP.replace(SUFFIX, suffix);
    for (base, ldif) in [("cn=config", &configuration), (suffix, &top)] {
        fs::write(folder.path().join("entries.ldif"), ldif).expect("the folder is writable");
        let arguments = ["-F", &path("slapd.d"), "-b", base, "-l", &path("entries.ldif")];
        run(&program("slapadd", PACKAGE), &arguments);
    }
    let port = free_port();
    let urls = format!("ldap://127.0.0.1:{port}/ {}", socket(&path("socket")));
    let recipe = Recipe {
        program: slapd,
        arguments: ["-d", "none", "-F", &path("slapd.d"), "-h", &urls].map(str::to_owned).to_vec(),
        user: None,
        end_signal: "KILL",
        answers: Box::new(move || first_bytes(port, ANONYMOUS_BIND).is_some()),
    };
    Server::launch(port, folder, recipe)
}

/// The URL of a UNIX socket.
pub fn socket(path: &str) -> String {
    format!("ldapi://{}", path.replace('/', "%2F"))
}

/// Whether this machine has `::1`, on which the server listens too then.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
