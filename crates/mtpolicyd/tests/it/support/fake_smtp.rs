//! A mail server for tests, on a port of its own. It says what the test wants, wrong things included, and
//! remembers what it was told.
//!
//! Knows: lines. Must not know: SMTP, who asks.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does about a line.
#[derive(Clone, Debug)]
pub enum Say {
    /// These lines, separated by line feeds, each ended as SMTP has it.
    Lines(&'static str),
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing.
    Nothing,
    /// Closes the connection.
    Close,
    /// Says it, then closes the connection.
    Last(&'static str),
    /// Says it so much later.
    Late(Duration, &'static str),
}

/// What a friendly server says about a line; the greeting is about an empty one.
pub fn friendly(line: &str) -> Say {
    match line.split([' ', ':']).next().unwrap_or_default() {
        "" => Say::Lines("220 mx.test ESMTP"),
        "EHLO" => Say::Lines("250-mx.test\n250 SIZE 10000"),
        "QUIT" => Say::Last("221 2.0.0 bye"),
        "RCPT" if line.contains("<unknown") => Say::Lines("550 5.1.1 no such user"),
        "RCPT" if line.contains("<full") => Say::Lines("452-4.2.2 mailbox\n452 4.2.2 full"),
        "RCPT" if line.contains("<unwanted") => Say::Lines("550 5.7.1 not from you"),
        _ => Say::Lines("250 2.0.0 ok"),
    }
}

/// The server; it stops when it is dropped.
pub struct FakeSmtp {
    address: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    stopped: Arc<AtomicBool>,
}

impl FakeSmtp {
    /// Starts a server on a free port of 127.0.0.1 that asks `behaviour` what to do about each line.
    pub fn start(behaviour: impl Fn(&str) -> Say + Send + Sync + 'static) -> FakeSmtp {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let server = FakeSmtp { address, said: Arc::default(), stopped: Arc::default() };
        let (said, stopped) = (server.said.clone(), server.stopped.clone());
        let behaviour = Arc::new(behaviour);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (said, behaviour) = (said.clone(), behaviour.clone());
                thread::spawn(move || converse(&stream, &*behaviour, &said));
            }
        });
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything it was told so far; an empty line for each connection.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("no holder panics").clone()
    }

    /// How many lines began so; `""` counts connections.
    pub fn count(&self, begin: &str) -> usize {
        let is_meant =
            |line: &&String| if begin.is_empty() { line.is_empty() } else { line.starts_with(begin) };
        self.said().iter().filter(is_meant).count()
    }
}

impl Drop for FakeSmtp {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(mut stream: &TcpStream, behaviour: &dyn Fn(&str) -> Say, said: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines();
    let mut line = String::new();
    loop {
        said.lock().expect("no holder panics").push(line.clone());
        let crlf = |text: &str| text.split('\n').flat_map(|line| [line, "\r\n"]).collect::<String>();
        let (bytes, ends) = match behaviour(&line) {
            Say::Lines(text) => (crlf(text).into_bytes(), false),
            Say::Bytes(bytes) => (bytes, false),
            Say::Nothing => (Vec::new(), false),
            Say::Close => return,
            Say::Last(text) => (crlf(text).into_bytes(), true),
            Say::Late(delay, text) => {
                thread::sleep(delay);
                (crlf(text).into_bytes(), false)
            }
        };
        if stream.write_all(&bytes).is_err() || ends {
            return;
        }
        let Some(Ok(next)) = lines.next() else { return };
        line = next;
    }
}
