//! A client that asks as Postfix does, and badly where the test wants it.
//!
//! Knows: the policy protocol on the wire. Must not know: the daemon's code.

use super::PATIENCE;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The text behind `action=`.
    Action(String),
    /// The connection was closed instead.
    Closed,
}

impl Answer {
    /// The action.
    ///
    /// # Panics
    /// When the connection was closed.
    #[track_caller]
    pub fn action(self) -> String {
        match self {
            Answer::Action(action) => action,
            Answer::Closed => panic!("the daemon closed the connection"),
        }
    }
}

/// One connection to the daemon; every wait on it ends.
pub struct Client {
    stream: Box<dyn Stream>,
    /// What was received beyond the last answer.
    received: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Client {
    /// Connects over TCP.
    pub fn tcp(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: Box::new(stream), received: Vec::new() })
    }

    /// Connects to a UNIX socket.
    pub fn unix(path: &Path) -> io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: Box::new(stream), received: Vec::new() })
    }

    /// Sends these attributes, one a line, as a whole request.
    #[track_caller]
    pub fn send(&mut self, attributes: &str) {
        let lines = attributes.lines().map(|line| format!("{}\n", line.trim_start()));
        let request = format!("request=smtpd_access_policy\n{}\n", lines.collect::<String>());
        self.send_raw(request.as_bytes()).expect("the daemon reads");
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\n\n") {
                let answer: Vec<u8> = self.received.drain(..end + 2).collect();
                return Answer::Action(action_of(&answer[..end]));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(self.received.is_empty(), "half an answer: {:?}", self.received.escape_ascii());
                    return Answer::Closed;
                }
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Answer::Closed,
                // A signal handler does not start a read with a time limit again.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Asks and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, attributes: &str) -> Answer {
        self.send(attributes);
        self.answer()
    }

    /// Waits until the daemon closes the connection.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert_eq!(self.answer(), Answer::Closed);
    }
}

/// The one action of an answer, which has to be what Postfix takes for one.
#[track_caller]
fn action_of(answer: &[u8]) -> String {
    let text = std::str::from_utf8(answer).expect("an answer is UTF-8");
    let action = text.strip_prefix("action=").expect("an answer begins with `action=`");
    assert!(!action.contains(char::is_control), "an answer is one printable line: {action:?}");
    action.to_owned()
}
