//! A web server for tests, on a port of its own. It says what the test wants, wrong things
//! included, and remembers what it was asked.
//!
//! Knows: HTTP/1.1 (RFC 9112) as far as clients here speak it. Must not know: who asks.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `POST`.
    pub method: String,
    /// `/path?query`.
    pub path: String,
    /// The names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
    /// The number of the connection, from 0.
    pub connection: usize,
}

impl Asked {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the server does about a request.
#[derive(Clone, Debug)]
pub enum Say {
    /// Nothing; the connection stays open.
    Silence,
    /// Nothing; the connection is closed.
    Close,
    /// Status 200 and this body.
    Json(String),
    /// The same with more lines in the head, each with its end.
    JsonWith(&'static str, String),
    /// Another status and an empty body.
    Status(u16),
    /// These bytes; then the connection is closed.
    Raw(Vec<u8>),
    /// Status 200 and this body, a byte at a time, this long after one another.
    Drip(String, Duration),
    /// An answer, this much later.
    Late(Duration, Box<Say>),
    /// An answer; then the connection is closed, which the answer does not announce.
    ThenClose(Box<Say>),
}

impl Say {
    /// Status 200 and this body.
    pub fn json(body: impl Into<String>) -> Say {
        Say::Json(body.into())
    }
}

/// A server; it stops when this is dropped.
pub struct FakeHttp {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    /// How many of them this side has closed.
    closed: AtomicUsize,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    say: Box<dyn Fn(&Asked) -> Say + Send + Sync>,
}

impl FakeHttp {
    /// One that says this.
    pub fn start(say: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> FakeHttp {
        FakeHttp::start_on(0, say)
    }

    /// The same on a port of the caller's choice.
    pub fn start_on(port: u16, say: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> FakeHttp {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
            say: Box::new(say),
        });
        let server = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if server.ended.load(Ordering::SeqCst) {
                    break;
                }
                let number = server.connections.fetch_add(1, Ordering::SeqCst);
                lock(&server.open).push(stream.try_clone().expect("a descriptor is free"));
                let server = server.clone();
                thread::spawn(move || server.serve(stream, number));
            }
        });
        FakeHttp { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked by POST so far.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = lock(&self.shared.asked);
        asked.iter().filter(|asked| asked.method == "POST").cloned().collect()
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections it has closed so far.
    pub fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }
}

impl Drop for FakeHttp {
    /// As a process that ends: all connections are closed.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts, which then gives the port back.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, number: usize) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_nodelay(true);
        let closer = stream.try_clone().expect("a descriptor is free");
        let mut reader = BufReader::new(stream);
        while let Some(asked) = read(&mut reader, number) {
            lock(&self.asked).push(asked.clone());
            let say = (self.say)(&asked);
            if !matches!(self.answer(&mut reader, say, asked.method == "HEAD"), Some(true)) {
                break;
            }
        }
        // Others hold it too.
        let _ = closer.shutdown(Shutdown::Both);
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the connection stays open; `None` when the client is gone.
    fn answer(&self, stream: &mut BufReader<TcpStream>, say: Say, head_only: bool) -> Option<bool> {
        let head = |status: u16, more: &str, length: usize| {
            let about = "Content-Type: application/json\r\nContent-Length";
            format!("HTTP/1.1 {status} Some Reason\r\n{more}{about}: {length}\r\n\r\n")
        };
        match say {
            Say::Silence => {
                // Until the client hangs up.
                let _ = stream.read(&mut [0]);
                Some(false)
            }
            Say::Close => Some(false),
            Say::Json(body) => self.answer(stream, Say::JsonWith("", body), head_only),
            Say::JsonWith(more, body) => {
                let body_sent = if head_only { "" } else { &body };
                let answer = head(200, more, body.len()) + body_sent;
                send(stream, answer.as_bytes()).map(|()| true)
            }
            Say::Status(204) => send(stream, b"HTTP/1.1 204 No Content\r\n\r\n").map(|()| true),
            Say::Status(status) => send(stream, head(status, "", 0).as_bytes()).map(|()| true),
            Say::Raw(bytes) => send(stream, &bytes).map(|()| false),
            Say::Drip(body, wait) => {
                for byte in (head(200, "", body.len()) + &body).bytes() {
                    send(stream, &[byte])?;
                    thread::sleep(wait);
                }
                Some(true)
            }
            Say::Late(wait, say) => {
                thread::sleep(wait);
                self.answer(stream, *say, head_only)
            }
            Say::ThenClose(say) => self.answer(stream, *say, head_only).map(|_| false),
        }
    }
}

fn send(stream: &mut BufReader<TcpStream>, bytes: &[u8]) -> Option<()> {
    let stream = stream.get_mut();
    stream.write_all(bytes).and_then(|()| stream.flush()).ok()
}

fn read(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        let read = stream.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().expect("a number"))];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Asked { method, path, headers, body, connection })
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
