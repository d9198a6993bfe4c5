//! Places for connections when there are no more: who waits longest for nothing goes.
//!
//! Knows: the limits of connections and of what they hold. Must not know: plugins.

use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, OK, Site};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

#[test]
fn beyond_max_connections_the_longest_idle_one_goes() {
    let daemon = Daemon::start(&format!("max_connections = 2\nkeepalive_timeout = 0\n{OK}"));
    let [mut first, mut second] = [daemon.connect(), daemon.connect()];
    assert_eq!(first.ask("a=b").action(), "OK");
    assert_eq!(second.ask("a=b").action(), "OK");
    assert_eq!(first.ask("a=b").action(), "OK");
    assert_eq!(daemon.connect().ask("a=b").action(), "OK");
    daemon.logged("all 2 connections are in use");
    daemon.logged("to make room for others");
}

#[test]
fn one_that_drips_a_request_is_idle_too() {
    let daemon = Daemon::start(&format!("max_connections = 1\nkeepalive_timeout = 0\n{OK}"));
    let mut dripping = daemon.connect();
    dripping.send_raw(b"request=smtpd_access_policy\nsender=").unwrap();
    assert_eq!(daemon.connect().ask("a=b").action(), "OK");
    dripping.expect_closed();
}

#[test]
fn one_that_is_being_answered_is_not() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = Site::new();
    site.replace("$UPSTREAM", upstream.local_addr().unwrap());
    let proxy = OK.replace("module = \"Action\"", "module = \"Proxy\"");
    site.configure(&format!(
        "max_connections = 1\n{}",
        proxy.replace("action = \"OK\"", "host = \"$UPSTREAM\"\n    timeout = 60")
    ));
    // Whether it listens can't be asked for without taking the only place.
    let daemon = site.start();
    let mut asking = daemon.connect();
    asking.send("instance=a.1");
    let (mut peer, _) = upstream.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(BufReader::new(&peer).lines().map_while(Result::ok).any(|line| line == "instance=a.1"));
    let mut waiting = Client::tcp(daemon.address()).unwrap();
    waiting.send("instance=a.2");
    daemon.logged("all 1 connections are in use");
    peer.write_all(b"action=OK one\n\n").unwrap();
    assert_eq!(asking.answer().action(), "OK one");
    asking.expect_closed();
    let (mut peer, _) = upstream.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(BufReader::new(&peer).lines().map_while(Result::ok).any(|line| line == "instance=a.2"));
    peer.write_all(b"action=OK two\n\n").unwrap();
    assert_eq!(waiting.answer().action(), "OK two");
}

#[test]
fn large_requests_that_never_end_have_a_bound_together() {
    /// Bytes that are sent over each connection, below the limit of one request, and how many are opened.
    const BYTES: usize = 700_000;
    const CONNECTIONS: usize = 150;
    let daemon = Daemon::start(&format!("keepalive_timeout = 0\n{OK}"));
    let line = format!("a={}\n", "x".repeat(99_997));
    let part = line.repeat(BYTES / line.len());
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = daemon.connect();
        client.send_raw(part.as_bytes()).unwrap();
        held.push(client);
        // In between others are answered.
        assert_eq!(daemon.ask("a=b").action(), "OK");
    }
    daemon.logged("to make room for others");
    held.remove(0).expect_closed();
}
