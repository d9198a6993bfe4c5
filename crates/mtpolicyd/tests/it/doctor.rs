//! `mtpolicyd doctor` as a program, with a real Postfix too.
//!
//! Knows: the command line, Postfix. Must not know: what is looked for.

use crate::support::daemon::{OK, PROGRAM, Site, errors_of, output_of, run};
use crate::support::postfix::{Postfix, postfix_or_leaves_out};
use std::fs;
use std::process::Command;

fn doctor(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").arg("-c").arg(site.config()).args(arguments);
    let output = run(&mut command, b"");
    (output.status.code(), output_of(&output) + &errors_of(&output))
}

#[test]
fn files_of_another_machine_are_looked_at() {
    let site = Site::with(OK);
    let policy = format!("check_policy_service {{ inet:127.0.0.1:{}, timeout=25s }}", site.port);
    let (main, master) = (site.path("main"), site.path("master"));
    fs::write(&main, format!("smtpd_recipient_restrictions = reject_unauth_destination, {policy}\n"))
        .unwrap();
    fs::write(&master, "smtp inet n - y - - smtpd\n").unwrap();
    let files = ["--postconf", main.to_str().unwrap(), "--mastercf", master.to_str().unwrap()];
    let (code, said) = doctor(&site, &files);
    assert!(code == Some(1) && said.contains("warn  D09 ") && said.contains("0 wrong, 1 doubtful"), "{said}");
    assert!(said.contains("not looked at: the running daemon"), "{said}");
    let (code, said) = doctor(&site, &[&files[..], &["--format", "json"]].concat());
    let finding: serde_json::Value = serde_json::from_str(&said).expect("an object");
    assert!(code == Some(1) && finding["code"] == "D09" && finding["severity"] == "warning", "{said}");
    // It prints, and changes nothing.
    let (_, said) = doctor(&site, &[&files[..], &["--fix"]].concat());
    assert!(said.contains("\npostconf -e 'smtpd_recipient_restrictions = "), "{said}");
    assert!(said.contains("default_action=DUNNO"), "{said}");
    let fixed = said.lines().find_map(|line| line.strip_prefix("postconf -e '")?.strip_suffix('\'')).unwrap();
    fs::write(&main, format!("{fixed}\n")).unwrap();
    let (code, said) = doctor(&site, &files);
    assert!(code == Some(0) && said.contains("0 wrong, 0 doubtful"), "{said}");
    // What can't be read is not a finding.
    let (code, said) = doctor(&site, &["--postconf", "/none/such"]);
    assert!(code == Some(2) && said.contains("/none/such"), "{said}");
    // A mistake in the daemon's own file does not keep the rest from being looked at.
    site.configure("port = nowhere\n");
    let (code, said) = doctor(&site, &files);
    assert!(
        code == Some(0) && said.contains("not looked at: ") && said.contains("mtpolicyd check"),
        "{said}"
    );
}

#[test]
fn a_repair_that_is_printed_repairs_a_real_postfix() {
    if !postfix_or_leaves_out("repairs of the doctor") {
        return;
    }
    let site = Site::with(OK);
    let policy = format!("check_policy_service inet:127.0.0.1:{}", site.port);
    let postfix = Postfix::start(&format!("permit_mynetworks, {policy}, reject_unauth_destination"));
    let configuration = postfix.queue().with_file_name("config");
    let look = || {
        let printed = |flag: &str| {
            let mut command = Command::new("postconf");
            output_of(&run(command.arg("-c").arg(&configuration).arg(flag), b""))
        };
        let (main, master) = (site.path("main"), site.path("master"));
        let relay = "smtpd_relay_restrictions =\n";
        fs::write(
            &main,
            printed("-n").replace("smtpd_relay_restrictions = reject_unauth_destination\n", relay),
        )
        .unwrap();
        fs::write(&master, printed("-M")).unwrap();
        let files = ["--postconf", main.to_str().unwrap(), "--mastercf", master.to_str().unwrap(), "--fix"];
        doctor(&site, &files)
    };
    let (code, said) = look();
    assert_eq!(code, Some(1), "{said}");
    for found in ["# D07 ", "# D09 "] {
        assert!(said.contains(found), "{said}");
    }
    for line in said.lines().filter(|line| line.starts_with("postconf ")) {
        let mut shell = Command::new("sh");
        let output = run(shell.arg("-c").arg(line).env("MAIL_CONFIG", &configuration), b"");
        assert!(output.status.success(), "{line}: {}", errors_of(&output));
    }
    let (code, said) = look();
    assert_eq!(code, Some(0), "{said}");
}
