//! The units for systemd: what they start, and what they let the daemon do.
//!
//! Knows: the files in `etc`. Must not know: the daemon's code.

use crate::support::daemon::{OK, PROGRAM, Site, errors_of, output_of, run};
use crate::support::leaves_out;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The exposure that systemd may find, from 0 to 10.
const MAX_EXPOSURE: f64 = 1.4;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).expect("it is there")
}

/// The values of a setting of the service, in the order of the file.
fn values(name: &str) -> Vec<String> {
    let text = text("mtpolicyd.service");
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_bad_file_stops_a_reload_before_the_daemon_sees_it() {
    let [start] = &values("ExecStart")[..] else { panic!("one command starts it") };
    let (_, file) = start.split_once(" -f -c ").expect("it stays in the foreground");
    let reload = format!("{} reload -c {file}", start.split(' ').next().unwrap());
    assert_eq!(values("ExecReload"), [reload]);
    assert_eq!(values("Type"), ["notify"], "the start fails if the daemon does not come as far as its ports");
    // Also without a control socket: the file is read first.
    for switch in ["on", "off"] {
        let control =
            format!("<Control>\n  socket = \"$DIR/control.sock\"\n  enabled = {switch}\n</Control>\n");
        let good = format!("{control}{OK}");
        let bad = format!("{control}{}", OK.replace("module =", "modul ="));
        let daemon = Site::with(&good).start();
        for (text, succeeds) in [(good, true), (bad, false)] {
            daemon.site.configure(&text);
            let mut command = daemon.site.command_after(&["reload"]);
            let output = run(command.env("MAINPID", daemon.id().to_string()), b"");
            assert_eq!(output.status.success(), succeeds, "{switch}: {}", errors_of(&output));
            match (succeeds, switch) {
                // A signal is gone before the file is read; so the next file waits for that.
                (true, _) => drop(daemon.logged("reloaded")),
                // The answer may be there before the line of the log is.
                (false, "on") => drop(daemon.logged("modul")),
                (false, _) => assert!(!daemon.log().contains("modul"), "{}", daemon.log()),
            }
        }
        assert_eq!(daemon.ask("a=b").action(), "OK");
    }
    // The start fails for a bad file with what is not tried again.
    let site = Site::with(&OK.replace("module =", "modul ="));
    let code = site.run(&["-f"]).status.code().expect("it ends").to_string();
    assert!(values("RestartPreventExitStatus")[0].split(' ').any(|status| status == code), "{code}");
}

#[test]
fn it_keeps_others_out_and_lets_the_daemon_see_its_own_addresses() {
    assert_eq!(values("StateDirectoryMode"), ["0750"]);
    assert_eq!(values("UMask"), ["0027"]);
    assert!(values("RestrictAddressFamilies")[0].split(' ').any(|family| family == "AF_NETLINK"));
    // Sockets get their group by chown.
    assert_eq!(values("SystemCallFilter").last().map(String::as_str), Some("@chown"));
}

/// The units with a program and a user that are there, and `systemd-analyze`, if it is.
fn analyzed(what: &str, arguments: &[&str]) -> Option<std::process::Output> {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        leaves_out("there is no systemd-analyze", what);
        return None;
    }
    let folder = tempfile::tempdir().expect("it works");
    for unit in ["mtpolicyd.service", "mtpolicyd.socket"] {
        let text = text(unit).replace("/usr/local/sbin/mtpolicyd", PROGRAM);
        let text = text.replace("=mtpolicyd\nGroup=mtpolicyd", "=daemon\nGroup=daemon");
        fs::write(folder.path().join(unit), text).expect("it works");
    }
    let mut command = Command::new(analyze);
    command.current_dir(folder.path()).args(arguments);
    Some(run(&mut command, b""))
}

#[test]
fn systemd_understands_them() {
    let arguments = ["verify", "--man=no", "./mtpolicyd.service", "./mtpolicyd.socket"];
    let Some(output) = analyzed("that systemd understands the units", &arguments) else { return };
    let errors = errors_of(&output);
    let ours: Vec<_> = errors.lines().filter(|line| line.contains("mtpolicyd")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn little_of_the_system_is_exposed() {
    let arguments = ["security", "--offline=true", "--no-pager", "./mtpolicyd.service"];
    let Some(output) = analyzed("how much of the system the unit exposes", &arguments) else { return };
    let report = output_of(&output);
    let (_, level) = report.split_once("Overall exposure level for mtpolicyd.service: ").expect(&report);
    let exposure: f64 = level.split(' ').next().unwrap().parse().expect(level);
    assert!(exposure <= MAX_EXPOSURE, "{report}");
}
