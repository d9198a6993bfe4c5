//! `mtpolicyd support`: an archive that tar(1) reads, never over another file, with and without a daemon.
//!
//! Knows: the command line, tar. Must not know: the daemon's code. That no secret is in it is shown by
//! `secrets.rs` too, with one of each kind.

use crate::support::daemon::{OK, Site, errors_of, output_of, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const MORE: &str = "log_file = \"$DIR/mail.log\"\n<Control>\nsocket = \"$DIR/control.sock\"\n</Control>\n\
                    <Connection db>\nmodule = Redis\nserver = \"127.0.0.1:1\"\npassword = hunter2\n\
                    </Connection>\n";

/// A postconf(1) with a password and the key of a list.
const POSTCONF: &str = "#!/bin/sh\n[ \"$1\" = -n ] || exit 0\n\
                        echo 'smtp_sasl_password_maps = static:me:hunter2'\n\
                        echo 'smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:1,'\n\
                        echo ' reject_rbl_client hunter2.zen.dq.spamhaus.net'\n";

/// Runs the command in the folder of a site, where there is a `bin` with other programs.
fn support(site: &Site, words: &[&str]) -> Output {
    let path = format!("{}:{}", site.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let words = [&["support"], words].concat();
    run(site.command_after(&words).env("PATH", path).current_dir(site.path("")), b"")
}

/// What tar says of an archive, or of a file in it.
fn tar(words: &[&str], archive: &Path) -> String {
    let output = run(Command::new("tar").arg(words[0]).arg(archive).args(&words[1..]), b"");
    assert!(output.status.success(), "{}", errors_of(&output));
    output_of(&output)
}

fn add_postconf(site: &Site) {
    fs::create_dir(site.path("bin")).expect("the folder is writable");
    let path = site.path("bin/postconf");
    fs::write(&path, POSTCONF).expect("the folder is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn a_tar_has_everything_and_is_not_written_over_another_file() {
    let site = Site::with(&format!("{MORE}{OK}"));
    add_postconf(&site);
    // A password that got into the log by other ways is taken out too.
    fs::write(site.path("mail.log"), "before: hunter2\n").expect("the folder is writable");
    let daemon = site.start();
    daemon.ask("client_address=192.0.2.7");
    let output = support(&daemon.site, &["-o", "x.tar"]);
    let told = output_of(&output);
    assert!(output.status.success(), "{}", errors_of(&output));
    assert!(told.contains("written: x.tar") && told.contains("CLIENTS, SENDERS AND RECIPIENTS"), "{told}");
    let archive = daemon.site.path("x.tar");
    assert_eq!(archive.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let names = tar(&["-tf"], &archive);
    for name in [
        "README.txt",
        "version.txt",
        "configuration.conf",
        "check.txt",
        "doctor.txt",
        "status.json",
        "metrics.txt",
        "lists.txt",
        "postconf-n.txt",
        "postconf-M.txt",
        "resolv.conf",
        "unit.txt",
        "log.txt",
    ] {
        assert!(names.lines().any(|line| line == format!("mtpolicyd-support/{name}")), "{name}: {names}");
    }
    let all = tar(&["-xOf"], &archive);
    assert!(!all.contains("hunter2"), "{all}");
    for words in [
        "password = \"(not shown)\"",
        "smtp_sasl_password_maps = (not shown)",
        "reject_rbl_client ***.zen.dq.spamhaus.net",
        "before: (not shown)",
        "client=192.0.2.7",
        "mtpolicyd_requests_total",
        "D23",
    ] {
        assert!(all.contains(words), "{words}: {all}");
    }
    let before = fs::read(&archive).unwrap();
    let output = support(&daemon.site, &["-o", "x.tar"]);
    assert!(
        output.status.code() == Some(2) && errors_of(&output).contains("x.tar: File exists"),
        "{output:?}"
    );
    assert_eq!(fs::read(&archive).unwrap(), before);
    let output = support(&daemon.site, &["-o", "none/x.tar"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = support(&daemon.site, &["-o", "y.tar", "--without-log"]);
    assert!(output.status.success() && output_of(&output).contains("left out: --without-log"), "{output:?}");
    let all = tar(&["-xOf"], &daemon.site.path("y.tar"));
    assert!(!all.contains("client=192.0.2.7"), "{all}");
}

#[test]
fn without_a_daemon_and_with_mistakes_the_rest_is_told() {
    let site = Site::with(&format!("{MORE}port = nowhere\nunknown = hunter2\n{OK}"));
    add_postconf(&site);
    let output = support(&site, &[]);
    assert!(output.status.success(), "{}", errors_of(&output));
    let told = output_of(&output);
    let name = told.lines().find_map(|line| line.strip_prefix("written: ")).expect("it says where");
    assert!(name.starts_with("mtpolicyd-support-20") && name.ends_with(".tar"), "{name}");
    let all = tar(&["-xOf"], &site.path(name));
    assert!(!all.contains("hunter2"), "{all}");
    for words in ["exit status 1", "exit status 2", "error[", "<Connection \"db\">"] {
        assert!(all.contains(words), "{words}: {all}");
    }
}
