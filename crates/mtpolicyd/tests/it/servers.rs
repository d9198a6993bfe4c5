//! The servers that tests talk to can be started, stopped and frozen, and end with the test.
//!
//! Knows: `support::servers`. Must not know: the daemon.

use crate::support::servers::certificates::Certificates;
use crate::support::servers::{Server, mariadb, memcached, nginx, postgres, redis, slapd};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("it is a limit");
    stream
}

/// Starting waits until it answers; this does all the rest.
fn can_be_handled(mut server: Server) {
    server.restart();
    server.stop();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_err());
    server.start();
    server.freeze();
    let port = server.port;
    drop(server);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}

#[test]
fn databases_can_be_handled() {
    can_be_handled(mariadb::start());
    can_be_handled(postgres::start());
}

#[test]
fn stores_can_be_handled() {
    can_be_handled(memcached::start());
    drop(memcached::start_unix());
    can_be_handled(redis::start_with(&["--requirepass", "secret"]));
}

#[test]
fn a_directory_can_be_handled() {
    can_be_handled(slapd::start(slapd::TOP, Some(&Certificates::new()), ""));
}

#[test]
fn a_web_server_can_be_handled() {
    can_be_handled(nginx::start(None, ""));
    can_be_handled(nginx::start(Some(&Certificates::new()), ""));
}

#[test]
fn a_frozen_server_says_nothing_until_it_goes_on() {
    let server = redis::start();
    let mut stream = connect(&server);
    server.freeze();
    stream.write_all(b"PING\r\n").unwrap();
    assert!(stream.read(&mut [0; 7]).is_err());
    server.thaw();
    let mut said = [0; 7];
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"+PONG\r\n");
}

#[test]
fn a_sentinel_has_a_replica_take_over() {
    let mut master = redis::start();
    let replica = redis::start_replica(&master);
    let sentinel = redis::start_sentinel("mymaster", &master, 1);
    master.stop();
    let new_master = format!("\r\n{}\r\n", replica.port);
    crate::support::eventually("the replica is the master", || {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
        redis::command(sentinel.port, &question).contains(&new_master).then_some(())
    });
}

#[test]
fn a_cluster_knows_where_a_key_lives() {
    let servers = redis::start_cluster();
    let replies = servers.each_ref().map(|server| redis::command(server.port, &["SET", "a", "b"]));
    assert_eq!(replies.iter().filter(|reply| reply.starts_with("+OK")).count(), 1, "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply.starts_with("-MOVED 15495")).count(), 2, "{replies:?}");
}
