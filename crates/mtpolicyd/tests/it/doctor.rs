//! `mtpolicyd doctor` as a program, with a real Postfix too.
//!
//! Knows: the command line, Postfix. Must not know: what is looked for.

use crate::fake_dns::{FakeDns, Query, Reply};
use crate::support::daemon::{OK, PROGRAM, Site, errors_of, output_of, run};
use crate::support::postfix::{Postfix, postfix_or_leaves_out};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// A set-up that is right: main.cf, master.cf, and a daemon with a list, a journal and a key in a file.
const MAIN: &str = "\
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, \
check_policy_service { inet:127.0.0.1:$PORT, default_action=DUNNO, timeout=25s }
";

const MASTER: &str = "smtp inet n - y - - smtpd\n";

const DAEMON: &str = "port = \"127.0.0.1:$PORT\"
<Dns>
  servers = \"$DNS\"
</Dns>
<Control>
  socket = \"$DIR/control.sock\"
</Control>
<Journal>
  file = \"$DIR/journal.db\"
</Journal>
<VirtualHost $PORT>
  name = inbound
  <Plugin list>
    module = RBL
    domain = \"${file:$DIR/key}.bl.test\"
    mode = passive
  </Plugin>
</VirtualHost>
";

const STORE: &str = "<Connection store>\nmodule = Redis\nserver = \"127.0.0.1:1\"\n</Connection>\n";

/// A name server with a list that has its test point, and everything once it is told so.
fn name_server(lists_everybody: &Arc<AtomicBool>) -> FakeDns {
    let says = lists_everybody.clone();
    FakeDns::start(move |query: &Query| match query.record_type {
        1 if query.name.starts_with("2.0.0.127.") || says.load(Ordering::SeqCst) => {
            Reply::address([127, 0, 0, 2])
        }
        _ => Reply::NoSuchName(Some(0)),
    })
}

/// What is found beside this daemon: the exit code, the codes, and all that was printed. The settings of
/// Postfix are in the folder of the site.
fn look(site: &Site) -> (Option<i32>, Vec<String>, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").arg("-c").arg(site.config()).args(["--format", "json"]);
    let output = run(command.env("MAIL_CONFIG", site.path("")), b"");
    let findings = output_of(&output);
    let code = |line: &str| {
        let finding: serde_json::Value = serde_json::from_str(line).expect("an object");
        finding["code"].as_str().expect("it has a code").to_owned()
    };
    let codes: BTreeSet<_> = findings.lines().map(code).collect();
    (output.status.code(), codes.into_iter().collect(), findings + &errors_of(&output))
}

#[track_caller]
fn is_right(site: &Site, what: &str) {
    let (code, codes, said) = look(site);
    assert!(code == Some(0) && codes.is_empty(), "{what}: {said}");
}

#[track_caller]
fn is_found(site: &Site, expected: &str) {
    let (code, codes, said) = look(site);
    assert!(code == Some(1) && codes == [expected], "{expected}: {said}");
    assert!(!said.contains("k3y"), "{said}");
}

#[test]
fn a_live_daemon_is_asked_and_each_fault_is_found_alone() {
    if !postfix_or_leaves_out("the doctor beside a live daemon") {
        return;
    }
    let lists_everybody = Arc::new(AtomicBool::new(false));
    let server = name_server(&lists_everybody);
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    site.configure(DAEMON);
    let write = |site: &Site, name: &str, text: &str| {
        fs::write(site.path(name), site.fill(text)).expect("the folder is writable");
    };
    let set_mode = |site: &Site, name: &str, mode: u32| {
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    write(&site, "key", "k3y");
    set_mode(&site, "key", 0o600);
    write(&site, "main.cf", MAIN);
    write(&site, "master.cf", MASTER);
    let daemon = site.start();
    let site = &daemon.site;
    is_right(site, "at first");
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").arg("-c").arg(site.config()).env("MAIL_CONFIG", site.path(""));
    let said = output_of(&run(&mut command, b""));
    for words in ["daemon 3.", "1 DNS list tested", "main.cf and master.cf read", "0 wrong, 0 doubtful"] {
        assert!(said.contains(words), "{words}: {said}");
    }

    set_mode(site, "key", 0o644);
    is_found(site, "D25");
    set_mode(site, "key", 0o600);

    write(site, "main.cf", &MAIN.replace("default_action=DUNNO, ", ""));
    is_found(site, "D09");
    write(site, "main.cf", MAIN);

    daemon.reload(&format!("{STORE}{DAEMON}"));
    is_found(site, "D23");
    daemon.reload(DAEMON);
    is_right(site, "the store is gone");

    site.configure(&format!("# changed\n{DAEMON}"));
    is_found(site, "D30");
    daemon.hang_up();
    is_right(site, "it was read again");

    lists_everybody.store(true, Ordering::SeqCst);
    is_found(site, "D22");
}
