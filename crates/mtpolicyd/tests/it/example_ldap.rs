//! The example with a directory, set up by the very commands of its page on what Debian ships.
//!
//! Knows: the files of the example, Debian's slapd. Must not know: the daemon's code.

use crate::examples::{configured, example, instance};
use crate::support::daemon::Site;
use crate::support::fake_dns::{FakeDns, Reply};
use crate::support::is_root_or_leaves_out;
use crate::support::servers::slapd;
use std::fs;
use std::path::Path;
use std::process::Command;

const FILES: [&str; 5] = ["schema.ldif", "users.ldif", "certificate.cnf", "tls.ldif", "mtpolicyd.conf"];

/// Has a shell do what the page says, in a folder with the files of the example.
fn follow_the_page(folder: &Path, replacements: &[(&str, &str)]) {
    let fill = |text: String| replacements.iter().fold(text, |text, (from, to)| text.replace(from, to));
    for file in FILES {
        fs::write(folder.join(file), fill(example(&format!("ldap/{file}"), &[])))
            .expect("the folder is writable");
    }
    let page = example("ldap/README.md", &[]);
    let commands = page.lines().filter_map(|line| line.strip_prefix("    "));
    let wanted = |line: &&str| ["ldapadd", "openssl", "ldapmodify"].iter().any(|name| line.starts_with(name));
    let commands: Vec<_> = commands.filter(wanted).map(|line| fill(line.to_owned())).collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        let output =
            Command::new("sh").args(["-c", &command]).current_dir(folder).output().expect("there is a shell");
        assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn ldap() {
    if !is_root_or_leaves_out("the example with a directory: only root may change its configuration") {
        return;
    }
    let mut directory = slapd::start_as_debian_does("dc=example,dc=org", "of the admin");
    let site = Site::new();
    let (here, socket) = (site.path(""), slapd::socket(&directory.path("socket").display().to_string()));
    let here = here.display().to_string();
    follow_the_page(
        &site.path(""),
        &[("ldapi:///", &format!("'{socket}'")), (" -W ", " -w 'of the admin' "), ("/etc/ldap/", &here)],
    );
    let dns = FakeDns::start(|query| match (query.name.as_str(), query.record_type) {
        ("2.0.0.127.zen.spamhaus.org", 1) => Reply::address([127, 0, 0, 2]),
        _ => Reply::NoSuchName(Some(60)),
    });
    let replacements = [
        ("port = 389", format!("port = {}", directory.port)),
        ("/etc/mtpolicyd/ca.pem", format!("{here}localhost.pem")),
        ("servers = \"127.0.0.1\"", format!("servers = \"{}\"", dns.address())),
    ];
    let replacements = replacements.each_ref().map(|(from, to)| (*from, to.as_str()));
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
