//! Many connections, slow ones, hostile ones: none of them disturbs another.
//!
//! Knows: the protocol and its limits. Must not know: plugins.

use crate::support::client::{Answer, Client};
use crate::support::daemon::{Daemon, OK};
use crate::support::{PATIENCE, eventually, leaves_out};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn start(options: &str) -> Daemon {
    Daemon::start(&format!("{options}\n{OK}"))
}

#[test]
fn a_port_that_waits_holds_no_place() {
    let both = OK.replace("127.0.0.1:$PORT", "127.0.0.1:$PORT, 127.0.0.1:$OTHER")
        + &OK[OK.find("<VirtualHost").unwrap()..].replace("$PORT", "$OTHER");
    let daemon = Daemon::start(&format!("max_connections = 1\n{both}"));
    assert_eq!(daemon.connect_to(daemon.site.other_port).ask("a=b").action(), "OK");
    assert_eq!(daemon.connect().ask("a=b").action(), "OK");
}

#[test]
fn a_request_has_to_arrive_in_time_but_an_idle_connection_may_stay() {
    // Debian ships `keepalive_timeout = 0`.
    let daemon = start("request_timeout = 1\nkeepalive_timeout = 0");
    let mut idle = daemon.connect();
    assert_eq!(idle.ask("a=b").action(), "OK");
    let early = Instant::now() + Duration::from_millis(900);
    let mut slow = daemon.connect();
    slow.send_raw(b"request=smtpd_access_policy\nsender=").unwrap();
    slow.expect_closed();
    assert!(Instant::now() >= early, "it has its whole time");
    daemon.logged("a request took too long to arrive");
    assert_eq!(idle.ask("a=b").action(), "OK");
}

#[test]
fn a_trickle_does_not_extend_the_time() {
    let daemon = start("request_timeout = 1\nkeepalive_timeout = 0");
    let mut slow = daemon.connect();
    eventually("the daemon hangs up", || {
        std::thread::sleep(Duration::from_millis(50));
        slow.send_raw(b"a=b\n").is_err().then_some(())
    });
    daemon.logged("a request took too long to arrive");
}

#[test]
fn an_idle_connection_is_closed_after_keepalive_timeout() {
    let daemon = start("keepalive_timeout = 1");
    let mut client = daemon.connect();
    let early = Instant::now() + Duration::from_millis(900);
    assert_eq!(client.ask("a=b").action(), "OK");
    client.expect_closed();
    assert!(Instant::now() >= early, "it is kept for its whole time");
}

#[test]
fn a_connection_is_closed_after_max_keepalive_requests() {
    let daemon = start("max_keepalive = 2");
    let mut client = daemon.connect();
    assert_eq!(client.ask("a=b").action(), "OK");
    assert_eq!(client.ask("a=b").action(), "OK");
    client.expect_closed();
}

#[test]
fn a_client_that_leaves_disturbs_nobody() {
    let daemon = start("");
    daemon.connect().send("a=b");
    let mut half = daemon.connect();
    half.send_raw(b"sender=").unwrap();
    drop(half);
    daemon.logged("the client left in the middle of a request");
    assert_eq!(daemon.ask("a=b").action(), "OK");
}

/// What no Postfix sends, and what the log says of it.
const HOSTILE: [(&str, &[u8], usize); 6] = [
    ("a line is longer than", b"x", 10 << 20),
    ("a line is longer than", b"sender=\xff\xfe", 5 << 20),
    ("attributes", b"a=b\n", 10_000),
    ("a NUL byte", b"sender=\0\n\n", 1),
    ("a line without an equal sign", b"\x16\x03\x01\x02\n", 1),
    ("a line without an equal sign", b"\x1b[2J\xff\r\n", 1),
];

#[test]
fn hostile_clients_are_shown_the_door() {
    let mut daemon = start("");
    let mut good = daemon.connect();
    for (complaint, bytes, times) in HOSTILE {
        let mut hostile = daemon.connect();
        // The daemon may hang up before all is sent.
        let _ = hostile.send_raw(&bytes.repeat(times));
        assert_eq!(hostile.answer(), Answer::Closed, "{complaint}");
        daemon.logged(complaint);
        assert_eq!(good.ask("a=b").action(), "OK");
    }
    assert!(daemon.terminate().success());
    let log = daemon.log();
    assert_eq!(
        log.lines().filter(|line| line.contains("the connection is closed")).count(),
        HOSTILE.len(),
        "{log}"
    );
    assert!(log.lines().all(|line| line.len() < 1000 && !line.contains(char::is_control)), "{log}");
}

#[test]
fn a_reader_that_does_not_read_is_given_up() {
    /// Small, so that the answers fill the buffers of the kernel soon.
    const RECEIVED: usize = 4096;
    // Long answers, so that a few thousand of them are enough.
    let long = format!("action = \"OK {}\"", "x".repeat(1_000));
    let text = OK.replace("action = \"OK\"", &long);
    let daemon = Daemon::start(&format!("request_timeout = 1\nlog_level = 2\n{text}"));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVED).unwrap();
    socket.connect(&daemon.address().into()).unwrap();
    let mut deaf = TcpStream::from(socket);
    deaf.set_write_timeout(Some(PATIENCE)).unwrap();
    let requests = b"a=b\n\n".repeat(1_000);
    // The daemon reads no more once it can't write, and hangs up after a while.
    while deaf.write_all(&requests).is_ok() {}
    daemon.logged("the client does not read its answer");
    assert!(daemon.ask("a=b").action().starts_with("OK x"));
}

/// Connections of one large mail server.
const IDLE: usize = 2_000;

#[test]
fn two_thousand_idle_connections_delay_nobody() {
    /// For everything else that this process has open.
    const OTHERS: u64 = 1_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < IDLE as u64 + OTHERS {
        leaves_out(&format!("the limit of open files is {hard}"), "thousands of idle connections");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let daemon = start("log_level = 0\nkeepalive_timeout = 0");
    assert_eq!(daemon.ask("a=b").action(), "OK");
    let before = memory_kib(&daemon);
    let mut idle: Vec<Client> = (0..IDLE).map(|_| daemon.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.ask("a=b").action(), "OK");
    }
    assert_eq!(daemon.ask("a=b").action(), "OK");
    let each = memory_kib(&daemon).saturating_sub(before) / IDLE as u64;
    assert!(each < 16, "an idle connection costs {each} KiB");
    for client in [0, IDLE / 2, IDLE - 1] {
        assert_eq!(idle[client].ask("a=b").action(), "OK");
    }
}

/// Memory of the process.
fn memory_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
