//! Requests to the console as a browser sends them, byte for byte: one for each connection.
//!
//! Knows: HTTP/1.1 (RFC 9112), cookies, forms. Must not know: which pages there are.

use super::PATIENCE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where the console is.
#[derive(Clone, Debug)]
pub enum Place {
    /// At a port.
    Tcp(SocketAddr),
    /// At a UNIX socket.
    Unix(PathBuf),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its status.
    pub status: u16,
    /// Its head, in lower case.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Page {
    /// The value of a header, named in lower case; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default()
    }

    /// What its forms carry.
    #[track_caller]
    pub fn form_token(&self) -> String {
        let after = self.body.split("name=\"form\" value=\"").nth(1).expect("a form of somebody signed in");
        after.split('"').next().unwrap_or_default().to_owned()
    }
}

/// A browser.
#[derive(Clone, Debug)]
pub struct Browser {
    /// Where it goes.
    pub place: Place,
    /// What it calls the console.
    pub host: String,
    /// Its cookie, once it has one.
    pub cookie: Option<String>,
    /// More lines of the head, each with its end.
    pub more: String,
}

impl Browser {
    /// One that has no cookie.
    pub fn at(place: Place) -> Browser {
        let host = match &place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(_) => "mx.example.org".to_owned(),
        };
        Browser { place, host, cookie: None, more: String::new() }
    }

    /// The same with more lines in the head.
    pub fn with(&self, more: &str) -> Browser {
        Browser { more: format!("{}{more}", self.more), ..self.clone() }
    }

    /// A page.
    #[track_caller]
    pub fn get(&self, path: &str) -> Page {
        self.send("GET", path, "", "")
    }

    /// A form, sent from a page of the console.
    #[track_caller]
    pub fn post(&self, path: &str, form: &str) -> Page {
        let origin = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", self.host);
        self.send("POST", path, &origin, form)
    }

    /// Follows a link that signs in, and keeps its cookie.
    #[track_caller]
    pub fn follow(&mut self, path: &str) -> Page {
        let page = self.get(path);
        self.keep_cookie(&page);
        page
    }

    /// Keeps the cookie of an answer.
    pub fn keep_cookie(&mut self, page: &Page) {
        let pair = page.header("set-cookie").split(';').next().unwrap_or_default();
        self.cookie = (!pair.is_empty()).then(|| pair.to_owned());
    }

    /// Any request.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Page {
        self.try_send(method, path, headers, body).expect("the console answers")
    }

    /// The same; `None` if the connection is refused or closed without an answer.
    pub fn try_send(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<Page> {
        let mut stream = self.connect()?;
        stream.write_all(self.request(method, path, headers, body).as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        // The names of headers in lower case, but the values as they are.
        let lines = head.lines().map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}\n", name.to_lowercase()),
            None => format!("{line}\n"),
        });
        Some(Page { status, head: lines.collect(), body: body.to_owned() })
    }

    /// The bytes of a request.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n"));
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             {}{}{headers}\r\n{body}",
            self.host,
            body.len(),
            cookie.unwrap_or_default(),
            self.more
        )
    }

    /// A connection.
    pub fn connect(&self) -> Option<Box<dyn Connection>> {
        match &self.place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).ok()?;
                Some(Box::new(stream))
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).ok()?;
                Some(Box::new(stream))
            }
        }
    }
}

/// A connection of either kind.
pub trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}
