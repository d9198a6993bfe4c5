//! The unit for systemd: what it starts, and what it lets the daemon do.
//!
//! Knows: `etc/mtpolicyd.service`. Must not know: the daemon's code.

use crate::support::daemon::{OK, PROGRAM, Site, errors_of, run};
use crate::support::leaves_out;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/mtpolicyd.service")
}

/// The values of a setting, in the order of the file.
fn values(name: &str) -> Vec<String> {
    let text = fs::read_to_string(unit()).expect("it is there");
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_bad_file_stops_start_and_reload_before_the_daemon_sees_it() {
    let [start] = &values("ExecStart")[..] else { panic!("one command starts it") };
    let (_, file) = start.split_once(" -f -c ").expect("it stays in the foreground");
    let check = format!("{} check {file}", start.split(' ').next().unwrap());
    assert_eq!(values("ExecStartPre"), [check.as_str()]);
    assert_eq!(values("ExecReload"), [check.as_str(), "/bin/sh -c 'kill -HUP $MAINPID'"], "in this order");
    // The command fails for a bad file, and for none other.
    let site = Site::with(OK);
    for (text, succeeds) in [(OK.to_owned(), true), (OK.replace("module =", "modul ="), false)] {
        site.configure(&text);
        let output = run(Command::new(PROGRAM).arg("check").arg(site.config()), b"");
        assert_eq!(output.status.success(), succeeds, "{}", errors_of(&output));
    }
}

#[test]
fn it_keeps_others_out_and_lets_the_daemon_see_its_own_addresses() {
    assert_eq!(values("StateDirectoryMode"), ["0750"]);
    assert_eq!(values("UMask"), ["0027"]);
    assert!(values("RestrictAddressFamilies")[0].split(' ').any(|family| family == "AF_NETLINK"));
    // Sockets get their group by chown.
    assert!(!values("SystemCallFilter").iter().any(|filter| filter.contains("~@privileged")));
}

#[test]
fn systemd_understands_it() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        leaves_out("there is no systemd-analyze", "that systemd understands the unit");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(unit()).unwrap().replace("/usr/local/sbin/mtpolicyd", PROGRAM);
    // A user that is there, and no page of the manual that is not installed.
    let text = text.replace("User=mtpolicyd", "User=daemon").replace("Documentation=", "#");
    let path = folder.path().join("mtpolicyd.service");
    fs::write(&path, text).unwrap();
    let output = run(Command::new(analyze).args(["verify", "--man=no"]).arg(&path), b"");
    let ours: Vec<_> = errors_of(&output)
        .lines()
        .filter(|line| line.contains("mtpolicyd.service:"))
        .map(str::to_owned)
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
