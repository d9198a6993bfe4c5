//! `policyd-client` against the real daemon.
//!
//! Knows: its options, output and exit codes. Must not know: the protocol.

use crate::support::daemon::{Daemon, errors_of, output_of, run};
use crate::support::free_port;
use std::process::{Command, Output};

/// A daemon that tells good senders from bad ones, on a port and on a socket.
const CONFIG: &str = "\
port = \"127.0.0.1:$PORT, $DIR/policy.sock|unix\"
<VirtualHost $PORT>
  name = \"incoming\"
  <Plugin bad>
    module = \"Condition\"
    key = \"sender\"
    match = \"bad@b.example\"
    action = \"reject you are bad\"
  </Plugin>
</VirtualHost>
<VirtualHost $DIR/policy.sock>
  name = \"local\"
  <Plugin ok>
    module = \"Action\"
    action = \"OK local\"
  </Plugin>
</VirtualHost>
";

fn client(arguments: &[&str], input: &str) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_policyd-client")).args(arguments), input.as_bytes())
}

fn over_tcp(daemon: &Daemon, more: &[&str], input: &str) -> Output {
    let host = daemon.address().to_string();
    client(&[&["-h", &host], more].concat(), input)
}

#[test]
fn each_question_gets_one_line() {
    let daemon = Daemon::start(CONFIG);
    let output = over_tcp(&daemon, &[], "sender=bad@b.example\n\nsender=a@b.example\n\n");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", errors_of(&output));
    assert_eq!(output_of(&output), "reject you are bad\ndunno\n");
}

#[test]
fn verbose_shows_both_sides() {
    let daemon = Daemon::start(CONFIG);
    let output = over_tcp(&daemon, &["-v"], "instance=a.1\nsender=bad@b.example\n\n");
    assert_eq!(output_of(&output), "reject you are bad\n");
    let shown = errors_of(&output);
    for line in [">> request=smtpd_access_policy", ">> instance=a.1", "<< action=reject you are bad"] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
}

#[test]
fn keepalive_uses_one_connection() {
    let daemon = Daemon::start(&format!("log_level = 3\nmax_keepalive = 3\n{CONFIG}"));
    let questions = "sender=bad@b.example\n\n".repeat(7);
    let closed = || daemon.log().lines().filter(|line| line.contains("the connection is closed")).count();
    let output = over_tcp(&daemon, &["-k"], &questions);
    assert!(output.status.success(), "{}", errors_of(&output));
    assert_eq!(output_of(&output), "reject you are bad\n".repeat(7));
    crate::support::eventually("the connections are closed", || (closed() >= 4).then_some(()));
    // One to see whether the daemon is there, then three, three and one requests.
    assert_eq!(closed(), 4, "{}", daemon.log());
}

#[test]
fn a_socket_takes_the_place_of_an_address() {
    let daemon = Daemon::start(CONFIG);
    let socket = daemon.site.path("policy.sock");
    let output = client(&["-s", socket.to_str().unwrap()], "sender=bad@b.example\n\n");
    assert_eq!(output_of(&output), "OK local\n");
    assert!(output.status.success());
}

#[test]
fn exit_codes_are_those_of_the_system() {
    const ENOENT: i32 = 2;
    const EINVAL: i32 = 22;
    const ECONNREFUSED: i32 = 111;
    const NO_ERRNO: i32 = 255;
    let refused = format!("127.0.0.1:{}", free_port());
    let question = "sender=a@b.example\n\n";
    for (arguments, input, code) in [
        (["-h", refused.as_str()], question, ECONNREFUSED),
        (["-s", "/no/such/socket"], question, ENOENT),
        (["-h", "127.0.0.1"], question, EINVAL),
        (["-h", refused.as_str()], "", 0),
        (["-h", refused.as_str()], "sender=a@b.example\n", NO_ERRNO),
    ] {
        let output = client(&arguments, input);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", errors_of(&output));
        assert!(output.stdout.is_empty());
        assert_eq!(output.stderr.is_empty(), code == 0);
    }
}

#[test]
fn a_daemon_that_hangs_up_is_a_failure() {
    let daemon =
        Daemon::start(&CONFIG.replace("module = \"Condition\"", "module = \"RBL\"\n domain = \"zen.test\""));
    // RBL needs an address; without one it fails, and on_error closes the connection.
    let output = over_tcp(&daemon, &[], "sender=a@b.example\n\n");
    assert!(!output.status.success() && output.stdout.is_empty());
    // The protocol has no reasons, so it says where to look.
    let said = errors_of(&output);
    assert!(said.contains("closed without an answer") && said.contains("`on_error` is `close`"), "{said}");
    assert!(said.contains("its log says which"), "{said}");
}

#[test]
fn help_is_an_option() {
    let output = client(&["--help"], "");
    assert!(output.status.success() && output_of(&output).contains("--socket_path"));
    assert_eq!(client(&["--bogus"], "").status.code(), Some(2));
}
