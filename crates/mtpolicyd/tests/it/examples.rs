//! What is in `examples/` works as its files say, against the real servers.
//!
//! Knows: the files of the examples. Must not know: the daemon's code.

use crate::support::daemon::{PROGRAM, Site, errors_of, run};
use crate::support::fake_dns::{FakeDns, Reply};
use crate::support::servers::certificates::Certificates;
use crate::support::servers::slapd;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file of an example, in which some words are others.
///
/// # Panics
/// When a word is not there, so that the file and the test stay together.
pub fn example(file: &str, replacements: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(file);
    let text = fs::read_to_string(path).expect("the file is there");
    replacements.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{file} does not say `{from}`");
        text.replace(from, to)
    })
}

/// The configuration of an example on a port of its own.
fn configured(site: &Site, file: &str, replacements: &[(&str, &str)]) {
    let port = site.port.to_string();
    site.configure(&example(file, &[&[("12345", port.as_str())], replacements].concat()));
    is_right(&site.config());
}

/// Whether the daemon has nothing to say of a configuration that only its owner can read.
pub fn is_right(configuration: &Path) {
    let folder = configuration.parent().expect("it lies in a folder");
    for file in fs::read_dir(folder).expect("the folder is ours") {
        let file = file.expect("it is readable").path();
        if file.extension().is_some_and(|extension| extension == "conf") {
            fs::set_permissions(file, fs::Permissions::from_mode(0o640)).expect("it is ours");
        }
    }
    let checked = run(Command::new(PROGRAM).args(["check", "--strict"]).arg(configuration), b"");
    assert!(checked.status.success(), "{}", errors_of(&checked));
}

/// A number that no other mail of this run has.
fn instance() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("mail.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn ldap() {
    let certificates = Certificates::new();
    let authority = certificates.authority().display().to_string();
    let suffix = ("dc=example,dc=org", slapd::SUFFIX);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ldap/mtpolicyd.schema");
    let schema = format!("include {}\n", fs::canonicalize(schema).unwrap().display());
    let mut directory = slapd::start(&example("ldap/users.ldif", &[suffix]), Some(&certificates), &schema);
    let dns = FakeDns::start(|query| match (query.name.as_str(), query.record_type) {
        ("2.0.0.127.zen.spamhaus.org", 1) => Reply::address([127, 0, 0, 2]),
        _ => Reply::NoSuchName(Some(60)),
    });
    let site = Site::new();
    let replacements = [
        suffix,
        ("port = 389", &format!("port = {}", directory.port)),
        ("secret of the reader", slapd::PASSWORD),
        ("/etc/mtpolicyd/ca.pem", &authority),
        ("servers = \"127.0.0.1\"", &format!("servers = \"{}\"", dns.address())),
    ];
    configured(&site, "ldap/mtpolicyd.conf", &replacements);
    let daemon = site.start();
    let ask = |client: &str, user: &str| {
        let (instance, head) = (instance(), "protocol_state=RCPT\nsender=alice@example.net");
        let question = format!("{head}\nclient_address={client}\nrecipient={user}\ninstance={instance}");
        daemon.ask(&question).action()
    };
    const CLEAN: &str = "PREPEND X-MtScore: NO score=0";
    const MARKED: &str = "PREPEND X-MtScore: YES score=5 [spamhaus=5]";
    for (user, stranger, listed) in [
        ("strict@example.org", "defer greylisting is active", "reject delivery from 127.0.0.2 rejected"),
        ("open@example.org", CLEAN, MARKED),
        ("plain@example.org", CLEAN, MARKED),
        ("*", CLEAN, MARKED),
    ] {
        assert_eq!(ask("192.0.2.1", user), stranger, "{user}\n{}", daemon.log());
        let answer = ask("127.0.0.2", user);
        assert!(answer.starts_with(listed), "{user}: {answer}");
    }
    // Without the directory nobody has chosen anything.
    directory.stop();
    assert_eq!(ask("192.0.2.1", "strict@example.org"), CLEAN);
}
