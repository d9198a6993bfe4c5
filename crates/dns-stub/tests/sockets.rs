//! The resolver on real sockets: ports, identifiers, connections, ports that nobody has.
//!
//! Knows: the face of the crate. Must not know: how it is done.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dns_stub::{Class, Config, Data, Error, Name, Question, RecordType, Resolver};

/// What a server was asked: the port it came from, whether over TCP, the message.
type Asked = Arc<Mutex<Vec<(u16, bool, Vec<u8>)>>>;

/// The answer 127.0.0.2 to whatever is asked; it is cut off, or said to be so, over UDP.
fn answer(query: &[u8], is_cut: bool) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut message = query[..end].to_vec();
    message[2] |= if is_cut { 0x82 } else { 0x80 };
    message[3] = 0x80;
    message[7] = 1;
    message[11] = 0;
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 2]);
    message
}

/// A server whose answers to names that begin with `long` are for TCP only, and that writes names that begin
/// with `loud` in capital letters over UDP. It lives as long as the test.
fn server() -> (SocketAddr, Asked) {
    let (tcp, udp) = sockets();
    let address = tcp.local_addr().unwrap();
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let query = &buffer[..length];
            log.lock().unwrap().push((from.port(), false, query.to_vec()));
            let is_long = query[13..17].eq_ignore_ascii_case(b"long");
            let mut message = answer(query, is_long);
            if query[13..17].eq_ignore_ascii_case(b"loud") {
                message[12..30].make_ascii_uppercase();
            }
            let _ = udp.send_to(&message, from);
        }
    });
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let log = Arc::clone(&log);
            thread::spawn(move || converse(stream, &log));
        }
    });
    (address, asked)
}

/// A port that is free over TCP may be in use over UDP: another is tried then.
fn sockets() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        match UdpSocket::bind(tcp.local_addr().unwrap()) {
            Ok(udp) => return (tcp, udp),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
        }
    }
}

fn converse(mut stream: TcpStream, log: &Asked) {
    let port = stream.peer_addr().unwrap().port();
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query).unwrap();
        let message = answer(&query, false);
        log.lock().unwrap().push((port, true, query));
        let frame = [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
        // In two parts, as the network has it.
        stream.write_all(&frame[..7]).unwrap();
        stream.write_all(&frame[7..]).unwrap();
    }
}

fn resolver(servers: &[SocketAddr], fresh_ports: bool) -> Resolver {
    let timeout = Some(Duration::from_secs(20));
    Resolver::new(Config { servers: servers.to_vec(), timeout, fresh_ports, ..Config::default() })
}

fn question(name: &str) -> Question {
    Question::new(Name::parse(name).unwrap(), RecordType::A)
}

/// Starts all, then awaits all.
async fn ask(resolver: &Resolver, names: &[String]) {
    let start = |name: &String| resolver.start(&question(name), Class::Foreign).unwrap();
    let lookups: Vec<_> = names.iter().map(start).collect();
    for lookup in lookups {
        let answer = lookup.await.unwrap();
        assert_eq!(answer.records().collect::<Vec<_>>(), [Data::A([127, 0, 0, 2].into())]);
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}.example.test")).collect()
}

#[tokio::test]
async fn nobody_can_tell_ports_identifiers_and_case() {
    let (address, asked) = server();
    let resolver = resolver(&[address], false);
    for name in names("n", 300) {
        ask(&resolver, &[name]).await;
    }
    let asked = asked.lock().unwrap();
    let ports: HashSet<_> = asked.iter().map(|(port, ..)| port).collect();
    let ids: HashSet<_> = asked.iter().map(|(.., query)| &query[..2]).collect();
    let cases: HashSet<_> =
        asked.iter().map(|(.., query)| &query[query.len() - 29..query.len() - 16]).collect();
    // Of 64,512 ports and 65,536 identifiers 300 random ones have a pair twice now and then, not ten.
    assert!(ports.len() > 290 && ids.len() > 290, "{} ports, {} identifiers", ports.len(), ids.len());
    assert!(ports.iter().all(|port| **port >= 1_024));
    assert!(cases.len() > 200, "{} cases of one name", cases.len());
}

#[tokio::test]
async fn what_is_started_together_is_sent_together() {
    for (fresh_ports, expected) in [(false, 1), (true, 13)] {
        let (address, asked) = server();
        ask(&resolver(&[address], fresh_ports), &names("n", 13)).await;
        let ports: HashSet<_> = asked.lock().unwrap().iter().map(|(port, ..)| *port).collect();
        assert_eq!((ports.len(), asked.lock().unwrap().len()), (expected, 13));
    }
}

#[tokio::test]
async fn long_answers_share_one_connection() {
    let (address, asked) = server();
    let resolver = resolver(&[address], false);
    ask(&resolver, &names("long", 20)).await;
    ask(&resolver, &names("longer", 1)).await;
    let asked = asked.lock().unwrap();
    let over_tcp: Vec<_> = asked.iter().filter(|(_, is_tcp, _)| *is_tcp).map(|(port, ..)| port).collect();
    let connections: HashSet<_> = over_tcp.iter().collect();
    assert_eq!((over_tcp.len(), connections.len(), asked.len()), (21, 1, 42));
}

#[tokio::test]
async fn a_server_with_a_spelling_of_its_own_is_believed_over_tcp() {
    let (address, asked) = server();
    ask(&resolver(&[address], false), &names("loud", 2)).await;
    let asked = asked.lock().unwrap();
    let is_lower = |query: &[u8]| !query[12..30].iter().any(u8::is_ascii_uppercase);
    let over_tcp: Vec<_> = asked.iter().filter(|(_, is_tcp, _)| *is_tcp).collect();
    assert_eq!((asked.len(), over_tcp.len()), (6, 2));
    assert!(over_tcp.iter().all(|(.., query)| is_lower(query)));
}

#[tokio::test]
async fn a_port_that_nobody_has_is_noticed_at_once() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (address, _asked) = server();
    ask(&resolver(&[closed, closed, address], false), &names("n", 2)).await;
    let alone = resolver(&[closed], false).start(&question("a.test"), Class::Foreign).unwrap().await;
    assert!(matches!(alone, Err(Error::Unreachable(_))), "{alone:?}");
}

#[test]
fn a_resolver_outlives_the_runtime_that_its_questions_were_asked_in() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (servers, timeout) = (vec![silent.local_addr().unwrap()], Some(Duration::from_millis(100)));
    let resolver = Resolver::new(Config { servers, timeout, attempts: Some(1), ..Config::default() });
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(async {
        let lookup = resolver.start(&question("a.test"), Class::Foreign).unwrap();
        // Long enough to be sent and looked for, too short to be given up.
        assert!(tokio::time::timeout(Duration::from_millis(20), lookup).await.is_err());
    });
    let outcome =
        runtime().block_on(async { resolver.start(&question("b.test"), Class::Foreign).unwrap().await });
    assert_eq!(outcome, Err(Error::TimedOut));
}

#[tokio::test]
async fn what_was_started_is_sent_before_it_is_awaited() {
    let (address, asked) = server();
    let resolver = resolver(&[address], false);
    let lookups: Vec<_> =
        names("n", 3).iter().map(|name| resolver.start(&question(name), Class::Foreign).unwrap()).collect();
    resolver.flush();
    // The other side is a thread, so that nothing else runs in this one.
    let end = Instant::now() + Duration::from_secs(20);
    while asked.lock().unwrap().len() < lookups.len() {
        assert!(Instant::now() < end, "nothing was sent");
        thread::yield_now();
    }
}
