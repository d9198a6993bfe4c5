//! What is in `examples/` works as its files say, against the real servers.
//!
//! Knows: the files of the examples. Must not know: the daemon's code.

use crate::support::daemon::{PROGRAM, Site, errors_of, run};
use crate::support::servers::python;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

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
pub fn configured(site: &Site, file: &str, replacements: &[(&str, &str)]) {
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

/// A number that no other message of this run has.
pub fn instance() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("mail.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The end of a message of a user to this many recipients.
fn mail_of(user: &str, recipients: u32) -> String {
    format!(
        "protocol_state=END-OF-MESSAGE\ninstance={}\nsasl_username={user}\nrecipient_count={recipients}\n\
         size=1000",
        instance()
    )
}

const OVER_QUOTA: &str = "reject you have sent to as many recipients as you may today";

#[test]
fn quota_per_user() {
    let site = Site::new();
    let database = site.path("quota.sqlite");
    let folder = database.parent().unwrap().display().to_string();
    let tables = rusqlite::Connection::open(&database).unwrap();
    tables.execute_batch(&example("quota-per-user/users.sql", &[])).unwrap();
    configured(&site, "quota-per-user/mtpolicyd.conf", &[("/var/lib/mtpolicyd", &folder)]);
    let daemon = site.start();
    let mut client = daemon.connect();
    assert_eq!(client.ask(&mail_of("trainee@example.org", 5)).action(), "dunno");
    assert_eq!(client.ask(&mail_of("trainee@example.org", 1)).action(), OVER_QUOTA);
    assert_eq!(client.ask(&mail_of("newsletter@example.org", 9_000)).action(), "dunno");
    // Who has no limit of his own, from many connections at the same time.
    let passed = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = daemon.connect();
                for _ in 0..20 {
                    let action = client.ask(&mail_of("somebody@example.org", 1)).action();
                    assert!([OVER_QUOTA, "dunno"].contains(&action.as_str()), "{action}");
                    passed.fetch_add(u32::from(action == "dunno"), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 100);
    let counted = |user: &str| {
        let sql = "SELECT sum(count_rcpt) FROM acct_sasl_username WHERE key = ?";
        tables.query_row(sql, [user], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(counted("somebody@example.org"), 100);
    assert_eq!(counted("trainee@example.org"), 5);
    // A new limit holds from the next message on.
    let raise = example("quota-per-user/README.md", &[]);
    let raise = raise.lines().find_map(|line| line.trim().strip_prefix('"')).expect("it says how");
    tables.execute(&raise.trim_end_matches('"').replace("\\\"", "\""), []).unwrap();
    assert_eq!(client.ask(&mail_of("trainee@example.org", 45)).action(), "dunno");
    assert_eq!(client.ask(&mail_of("trainee@example.org", 1)).action(), OVER_QUOTA);
}

#[test]
fn http_lookup() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/http-lookup");
    let folder = fs::canonicalize(folder).unwrap();
    let mut service = python::start(&folder.join("service.py"), &folder.join("choices.json"));
    let site = Site::new();
    let port = format!(":{}/", service.port);
    configured(&site, "http-lookup/mtpolicyd.conf", &[(":8081/", &port)]);
    let daemon = site.start();
    let ask = |sender: &str, recipient: &str| {
        let (instance, head) = (instance(), "protocol_state=RCPT\nhelo_name=[192.0.2.1]");
        daemon.ask(&format!("{head}\nsender={sender}\nrecipient={recipient}\ninstance={instance}")).action()
    };
    const KNOWN: &str = "PREPEND X-MtScore: NO score=-1 [choices=-5, helo-is-an-address=4]";
    const MARKED: &str = "PREPEND X-MtScore: YES score=4 [helo-is-an-address=4]";
    for (sender, recipient, answer) in [
        ("pest@example.org", "bob@example.net", "reject this recipient takes no mail from you"),
        ("alice@example.org", "bob@example.net", KNOWN),
        ("alice@example.org", "Carol@example.net", "reject this looks like spam"),
        ("alice@example.org", "nobody@example.net", MARKED),
    ] {
        assert_eq!(ask(sender, recipient), answer, "{sender} {recipient}\n{}", daemon.log());
        let readme = example("http-lookup/README.md", &[]);
        assert!(answer == MARKED || readme.contains(answer), "the page says so: {answer}");
    }
    service.stop();
    assert_eq!(ask("alice@example.org", "bob@example.net"), KNOWN, "it is known still");
    assert_eq!(ask("dave@example.org", "carol@example.net"), MARKED);
}
