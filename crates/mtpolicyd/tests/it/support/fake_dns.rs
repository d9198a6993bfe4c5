//! A name server for tests, on a port of its own, over UDP and TCP. It says what the test wants, wrong things
//! included, and remembers what it was asked.
//!
//! Knows: the wire format of the DNS (RFC 1035). Must not know: who asks.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const TXT: u16 = 16;

/// The flag AD, in the second byte of the flags (RFC 4035 section 3.2.3).
const AUTHENTIC: u8 = 0x20;

/// How long a TCP client may take to send its question.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// A question as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The name in lower case, without the final dot; bytes beyond ASCII as Latin-1.
    pub name: String,
    /// The number of the record type: 1 is A, 16 is TXT.
    pub record_type: u16,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// The port that it came from.
    pub port: u16,
    /// Whether it says that it understands the flag AD.
    pub wants_proof: bool,
    id: u16,
    /// The question section as it was sent.
    question: Vec<u8>,
}

/// What the server does about a question.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Says nothing.
    Silence,
    /// These addresses, with this TTL in seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// TXT records, each of several strings, with this TTL in seconds.
    Texts(Vec<Vec<Vec<u8>>>, u32),
    /// Records of any type, by its number and their data on the wire, with this TTL in seconds.
    Records(Vec<(u16, Vec<u8>)>, u32),
    /// The name is another name, which has this address.
    Alias(&'static str, Ipv4Addr, u32),
    /// No such name; with an SOA record that makes it valid for this many seconds, or without one.
    NoSuchName(Option<u32>),
    /// The name exists, but has no such records.
    NoData(Option<u32>),
    /// An error: 2 is SERVFAIL, 5 is REFUSED.
    Code(u8),
    /// With the flag AD, as from a server that has validated it.
    Proved(Box<Reply>),
    /// Cut over UDP; whole over TCP.
    Truncated(Box<Reply>),
    /// Under another id.
    WrongId(Box<Reply>),
    /// As an answer to another question.
    WrongQuestion(Box<Reply>),
    /// These bytes after the right id.
    Garbage(Vec<u8>),
    /// Later.
    Late(Duration, Box<Reply>),
    /// One after the other, over UDP.
    Both(Box<Reply>, Box<Reply>),
}

impl Reply {
    /// One address that holds for an hour.
    pub fn address(address: [u8; 4]) -> Self {
        Self::Addresses(vec![address.into()], 3600)
    }

    /// One TXT record of one string that holds for an hour.
    pub fn text(text: &str) -> Self {
        Self::Texts(vec![vec![text.as_bytes().to_vec()]], 3600)
    }
}

/// The server; it stops when it is dropped.
pub struct FakeDns {
    address: SocketAddr,
    queries: Arc<Mutex<Vec<Query>>>,
    stopped: Arc<AtomicBool>,
}

impl FakeDns {
    /// Starts a server on a free port of 127.0.0.1 that asks `behaviour` what to do about each question.
    pub fn start(behaviour: impl Fn(&Query) -> Reply + Send + Sync + 'static) -> Self {
        let (udp, tcp) = same_port_twice();
        let server = Self {
            address: udp.local_addr().expect("a bound socket has an address"),
            queries: Arc::default(),
            stopped: Arc::default(),
        };
        let shared =
            Arc::new(Shared { behaviour: Box::new(behaviour), queries: Arc::clone(&server.queries) });
        let (for_udp, for_tcp) = (Arc::clone(&shared), shared);
        let (udp_stopped, tcp_stopped) = (Arc::clone(&server.stopped), Arc::clone(&server.stopped));
        thread::spawn(move || for_udp.serve_udp(&udp, &udp_stopped));
        thread::spawn(move || for_tcp.serve_tcp(&tcp, &tcp_stopped));
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything it was asked so far.
    pub fn queries(&self) -> Vec<Query> {
        self.queries.lock().expect("no holder panics").clone()
    }

    /// How often it was asked about a name, whatever the type.
    pub fn count(&self, name: &str) -> usize {
        self.queries().iter().filter(|query| query.name == name).count()
    }
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Both threads wait for something to come in, so something does.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(&[], self.address);
        }
        let _ = TcpStream::connect(self.address);
    }
}

/// A UDP and a TCP socket on one port.
fn same_port_twice() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("there are free ports");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("a bound socket has an address")) {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for both UDP and TCP");
}

struct Shared {
    behaviour: Box<dyn Fn(&Query) -> Reply + Send + Sync>,
    queries: Arc<Mutex<Vec<Query>>>,
}

impl Shared {
    fn serve_udp(&self, socket: &UdpSocket, stopped: &AtomicBool) {
        let mut packet = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            for (delay, message) in self.answer(&packet[..length], client.port(), false) {
                let socket = socket.try_clone().expect("a socket can be cloned");
                after(delay, move || {
                    let _ = socket.send_to(&message, client);
                });
            }
        }
    }

    fn serve_tcp(self: &Arc<Self>, listener: &TcpListener, stopped: &AtomicBool) {
        while let Ok((stream, _)) = listener.accept() {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(self);
            thread::spawn(move || shared.converse(stream));
        }
    }

    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(TCP_PATIENCE))?;
        let port = stream.peer_addr()?.port();
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut packet = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut packet)?;
            for (delay, message) in self.answer(&packet, port, true) {
                thread::sleep(delay);
                let length = u16::try_from(message.len()).expect("test messages are short");
                stream.write_all(&[&length.to_be_bytes()[..], &message].concat())?;
            }
        }
    }

    fn answer(&self, packet: &[u8], port: u16, tcp: bool) -> Vec<(Duration, Vec<u8>)> {
        let Some(query) = read_query(packet, port, tcp) else { return Vec::new() };
        self.queries.lock().expect("no holder panics").push(query.clone());
        let reply = (self.behaviour)(&query);
        messages(&query, &reply)
    }
}

fn after(delay: Duration, send: impl FnOnce() + Send + 'static) {
    if delay.is_zero() {
        send();
    } else {
        thread::spawn(move || {
            thread::sleep(delay);
            send();
        });
    }
}

fn read_query(packet: &[u8], port: u16, tcp: bool) -> Option<Query> {
    let id = u16::from_be_bytes([*packet.first()?, *packet.get(1)?]);
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(packet.get(at..at + length)?.iter().map(|&byte| char::from(byte)).collect::<String>());
        at += length;
    }
    let record_type = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    let question = packet.get(12..at + 4)?.to_vec();
    let wants_proof = packet.get(3)? & AUTHENTIC != 0;
    let name = labels.join(".").to_ascii_lowercase();
    Some(Query { name, record_type, tcp, port, wants_proof, id, question })
}

/// The messages that make up a reply, each with its delay.
fn messages(query: &Query, reply: &Reply) -> Vec<(Duration, Vec<u8>)> {
    let now = |message| vec![(Duration::ZERO, message)];
    match reply {
        Reply::Silence => Vec::new(),
        Reply::Garbage(bytes) => now([&query.id.to_be_bytes()[..], bytes].concat()),
        Reply::Late(delay, reply) => {
            messages(query, reply).into_iter().map(|(more, message)| (*delay + more, message)).collect()
        }
        Reply::Both(first, second) => [messages(query, first), messages(query, second)].concat(),
        Reply::WrongId(reply) => messages(&Query { id: !query.id, ..query.clone() }, reply),
        Reply::WrongQuestion(reply) => {
            let mut question = wire_name("another.test");
            question.extend_from_slice(&query.question[query.question.len() - 4..]);
            messages(&Query { question, ..query.clone() }, reply)
        }
        Reply::Proved(reply) => {
            let mut messages = messages(query, reply);
            messages.iter_mut().for_each(|(_, message)| message[3] |= AUTHENTIC);
            messages
        }
        Reply::Truncated(whole) if query.tcp => messages(query, whole),
        Reply::Truncated(_) => now(message(query, 0x0200, &[], &[])),
        Reply::Code(code) => now(message(query, u16::from(*code), &[], &[])),
        Reply::NoSuchName(ttl) => now(message(query, 3, &[], &soa(*ttl))),
        Reply::NoData(ttl) => now(message(query, 0, &[], &soa(*ttl))),
        Reply::Addresses(..) | Reply::Texts(..) | Reply::Records(..) | Reply::Alias(..) => {
            now(message(query, 0, &records(query.record_type, reply), &[]))
        }
    }
}

/// The records of a reply that are of the wanted type.
fn records(record_type: u16, reply: &Reply) -> Vec<Vec<u8>> {
    // A pointer to the name in the question section (RFC 1035 section 4.1.4).
    let asked = &[0xc0, 12];
    match reply {
        Reply::Addresses(addresses, ttl) if record_type == A => {
            addresses.iter().map(|address| record(asked, A, *ttl, &address.octets())).collect()
        }
        Reply::Texts(texts, ttl) if record_type == TXT => {
            texts.iter().map(|strings| record(asked, TXT, *ttl, &text_data(strings))).collect()
        }
        Reply::Records(list, ttl) => {
            let wanted = list.iter().filter(|(of_type, _)| *of_type == record_type);
            wanted.map(|(of_type, data)| record(asked, *of_type, *ttl, data)).collect()
        }
        Reply::Alias(target, address, ttl) if record_type == A => {
            let target = wire_name(target);
            vec![record(asked, CNAME, *ttl, &target), record(&target, A, *ttl, &address.octets())]
        }
        _ => Vec::new(),
    }
}

fn message(query: &Query, flags: u16, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
    let counts =
        [1, answers.len(), authorities.len(), 0].map(|count| u16::try_from(count).expect("few records"));
    let mut message = query.id.to_be_bytes().to_vec();
    // A response, recursion desired and available.
    message.extend((0x8180 | flags).to_be_bytes());
    message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    message.extend(&query.question);
    message.extend(answers.iter().chain(authorities).flatten());
    message
}

fn record(owner: &[u8], record_type: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("test records are short");
    let class_internet = 1_u16;
    [
        owner,
        &record_type.to_be_bytes(),
        &class_internet.to_be_bytes(),
        &ttl.to_be_bytes(),
        &length.to_be_bytes(),
        data,
    ]
    .concat()
}

/// An SOA record of the root that lets a negative answer hold so long.
fn soa(ttl: Option<u32>) -> Vec<Vec<u8>> {
    let Some(ttl) = ttl else { return Vec::new() };
    let names = [0, 0];
    let serial_refresh_retry_expire_minimum = [1, ttl, ttl, ttl, ttl].map(u32::to_be_bytes).concat();
    vec![record(&[0], SOA, ttl, &[&names[..], &serial_refresh_retry_expire_minimum].concat())]
}

fn text_data(strings: &[Vec<u8>]) -> Vec<u8> {
    let with_length = |string: &Vec<u8>| {
        let length = u8::try_from(string.len()).expect("a character string has at most 255 bytes");
        [&[length][..], string].concat()
    };
    strings.iter().flat_map(with_length).collect()
}

/// A name as it stands in a message: labels with their lengths.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        wire.push(u8::try_from(label.len()).expect("test names are short"));
        wire.extend(label.as_bytes());
    }
    wire.push(0);
    wire
}
