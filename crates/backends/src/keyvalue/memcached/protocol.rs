//! The text protocol of memcached: commands as bytes, replies from bytes.
//!
//! See protocol.txt of memcached 1.6. Only `get` and `gets` of one key, so that every reply is one line, or
//! one value and `END`.
//!
//! Knows: that protocol. Must not know: sockets, what the values are for.

use crate::clock::Clock;
use smallvec::SmallVec;
use std::ops::Range;
use std::time::Duration;

/// The longest key.
pub(super) const MAX_KEY_BYTES: usize = 250;

/// The longest value: what memcached takes unless it is told otherwise (its `-I`), which counts the key too.
pub(super) const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// The longest line of a reply: that of a value, with its key.
const MAX_LINE_BYTES: usize = 1024;

/// Longer lifetimes would be taken as a time since the epoch.
const MAX_RELATIVE_SECONDS: u64 = 30 * 86400;

/// Commands that are sent together, and answered in this order.
pub(super) struct Request {
    bytes: Vec<u8>,
    /// The number of replies to expect.
    replies: usize,
    /// Where the key is that a value in a reply must have.
    read: Range<usize>,
}

/// The replies to a request, in the order of its commands.
pub(super) type Replies = SmallVec<[Reply; 2]>;

/// What a server says to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A value.
    Value {
        /// What its writer had to say of it; Perl's client that it is serialized or compressed.
        flags: u32,
        /// What a later `cas` has to name, after `gets`.
        cas: u64,
        data: Vec<u8>,
    },
    /// `END`: there is no value.
    Miss,
    Stored,
    NotStored,
    /// It is not the value that `cas` was told of.
    Exists,
    NotFound,
    Deleted,
    Touched,
    Version,
    /// What `incr` has made of a number.
    Number(u64),
    /// The request was understood and can't be done.
    Error(String),
}

/// What the bytes are that have come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A reply, and its length in bytes.
    Reply(Reply, usize),
    /// The beginning of one.
    Incomplete,
    /// No reply to this request: what follows can't be trusted either.
    OutOfStep(&'static str),
}

impl Request {
    /// Without a command.
    pub(super) fn new() -> Request {
        Request { bytes: Vec::with_capacity(128), replies: 0, read: 0..0 }
    }

    /// Reads a key. At most once in a request.
    pub(super) fn get(self, key: &[u8]) -> Request {
        self.read(b"get ", key)
    }

    /// Reads a key, and what a `cas` needs. At most once in a request.
    pub(super) fn gets(self, key: &[u8]) -> Request {
        self.read(b"gets ", key)
    }

    /// Sets a key.
    pub(super) fn set(self, key: &[u8], value: &[u8], lifetime: Duration) -> Request {
        self.store("set", key, value, &expiry(lifetime), "")
    }

    /// Sets a key that is not there.
    pub(super) fn add(self, key: &[u8], value: &[u8], lifetime: Duration) -> Request {
        self.store("add", key, value, &expiry(lifetime), "")
    }

    /// Sets a key whose value is still the one that `gets` has read.
    pub(super) fn set_unchanged(self, key: &[u8], value: &[u8], lifetime: Duration, cas: u64) -> Request {
        self.store("cas", key, value, &expiry(lifetime), &format!(" {cas}"))
    }

    /// Removes a key whose value is still the one that `gets` has read. There is no such command: an empty
    /// value takes its place that has already expired, and so is none.
    pub(super) fn delete_unchanged(self, key: &[u8], cas: u64) -> Request {
        self.store("cas", key, b"", "-1", &format!(" {cas}"))
    }

    /// Removes a key.
    pub(super) fn delete(self, key: &[u8]) -> Request {
        self.command(&[b"delete ", key])
    }

    /// Adds one to a number that is there.
    pub(super) fn increment(self, key: &[u8]) -> Request {
        self.command(&[b"incr ", key, b" 1"])
    }

    /// Has a key live on from now.
    pub(super) fn touch(self, key: &[u8], lifetime: Duration) -> Request {
        self.command(&[b"touch ", key, b" ", expiry(lifetime).as_bytes()])
    }

    /// Asks for the version.
    pub(super) fn version(self) -> Request {
        self.command(&[b"version"])
    }

    /// What is sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The number of replies to expect.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    fn read(mut self, verb: &[u8], key: &[u8]) -> Request {
        let begin = self.bytes.len() + verb.len();
        self.read = begin..begin + key.len();
        self.command(&[verb, key])
    }

    fn store(self, verb: &str, key: &[u8], value: &[u8], expiry: &str, behind: &str) -> Request {
        let numbers = format!(" 0 {expiry} {}{behind}\r\n", value.len());
        self.command(&[verb.as_bytes(), b" ", key, numbers.as_bytes(), value])
    }

    fn command(mut self, parts: &[&[u8]]) -> Request {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.replies += 1;
        self
    }

    /// The reply that these bytes begin with.
    pub(super) fn parse(&self, bytes: &[u8]) -> Parsed {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            let endless = bytes.len() > MAX_LINE_BYTES;
            return if endless { Parsed::OutOfStep("an endless line") } else { Parsed::Incomplete };
        };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        if let Some(head) = line.strip_prefix(b"VALUE ") {
            return self.parse_value(head, bytes, end + 1);
        }
        let reply = match line {
            b"END" => Reply::Miss,
            b"STORED" => Reply::Stored,
            b"NOT_STORED" => Reply::NotStored,
            b"EXISTS" => Reply::Exists,
            b"NOT_FOUND" => Reply::NotFound,
            b"DELETED" => Reply::Deleted,
            b"TOUCHED" => Reply::Touched,
            // Refused without a look at the rest of the command, which may be taken as another one.
            b"ERROR" => return Parsed::OutOfStep("ERROR"),
            _ if line.starts_with(b"VERSION ") => Reply::Version,
            _ => match other_line(line) {
                Some(reply) => reply,
                None => return Parsed::OutOfStep("no reply that memcached knows"),
            },
        };
        Parsed::Reply(reply, end + 1)
    }

    /// `key flags length [cas]`, the value, `END`.
    fn parse_value(&self, head: &[u8], bytes: &[u8], begin: usize) -> Parsed {
        let mut words = head.split(|byte| *byte == b' ');
        if words.next() != Some(&self.bytes[self.read.clone()]) {
            return Parsed::OutOfStep("the value of another key");
        }
        let mut number = || words.next().and_then(number);
        let (Some(flags), Some(length), cas) = (number(), number(), number()) else {
            return Parsed::OutOfStep("a value without flags or length");
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_VALUE_BYTES {
            return Parsed::OutOfStep("a value beyond 1 MB");
        }
        const TAIL: &[u8] = b"\r\nEND\r\n";
        let Some(rest) = bytes.get(begin + length..begin + length + TAIL.len()) else {
            return Parsed::Incomplete;
        };
        if rest != TAIL {
            return Parsed::OutOfStep("a value of another length");
        }
        let flags = u32::try_from(flags).unwrap_or(u32::MAX);
        let data = bytes[begin..begin + length].to_vec();
        Parsed::Reply(Reply::Value { flags, cas: cas.unwrap_or(0), data }, begin + length + TAIL.len())
    }
}

/// A number, or a refusal. Other errors of a client may leave the value behind, to be taken as a command.
fn other_line(line: &[u8]) -> Option<Reply> {
    if line.starts_with(b"SERVER_ERROR") || line.starts_with(b"CLIENT_ERROR cannot increment") {
        return Some(Reply::Error(String::from_utf8_lossy(line).into_owned()));
    }
    number(line.trim_ascii_end()).map(Reply::Number)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A lifetime as memcached wants it: whole seconds, and beyond 30 days the time since the epoch, which ends
/// in 2038 there. A part of a second counts as one, since 0 would be forever.
fn expiry(lifetime: Duration) -> String {
    if lifetime.is_zero() {
        return "-1".to_owned();
    }
    let seconds = lifetime.as_secs().saturating_add(u64::from(lifetime.subsec_nanos() > 0));
    if seconds <= MAX_RELATIVE_SECONDS {
        return seconds.to_string();
    }
    let now = u64::try_from(Clock::System.now()).unwrap_or(0);
    let last = u64::from(i32::MAX.unsigned_abs()) - 1;
    now.saturating_add(seconds).min(last).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(request: &Request, bytes: &[u8]) -> Reply {
        for end in 0..bytes.len() {
            assert_eq!(request.parse(&bytes[..end]), Parsed::Incomplete);
        }
        match request.parse(bytes) {
            Parsed::Reply(reply, length) if length == bytes.len() => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_written() {
        let minute = Duration::from_secs(60);
        let request = Request::new().add(b"lock", b"me", minute).get(b"k");
        assert_eq!(request.bytes(), b"add lock 0 60 2\r\nme\r\nget k\r\n");
        assert_eq!(request.replies(), 2);
        let request = Request::new().increment(b"n").touch(b"n", Duration::from_millis(1));
        assert_eq!(request.bytes(), b"incr n 1\r\ntouch n 1\r\n");
        assert_eq!(Request::new().delete_unchanged(b"k", 7).bytes(), b"cas k 0 -1 0 7\r\n\r\n");
        assert_eq!(Request::new().set(b"k", b"", Duration::ZERO).bytes(), b"set k 0 -1 0\r\n\r\n");
    }

    #[test]
    fn lifetimes_are_seconds_or_a_time() {
        assert_eq!(expiry(Duration::from_millis(1500)), "2");
        assert_eq!(expiry(Duration::from_secs(30 * 86400)), "2592000");
        let at: i64 = expiry(Duration::from_secs(31 * 86400)).parse().unwrap();
        assert!((at - Clock::System.now() - 31 * 86400).abs() <= 1);
        assert_eq!(expiry(Duration::MAX), "2147483646");
    }

    #[test]
    fn replies_are_read_in_whatever_pieces_they_come() {
        let request = Request::new().gets(b"k");
        let value = |cas| Reply::Value { flags: 1, cas, data: b"a\r\nb".to_vec() };
        assert_eq!(reply(&request, b"VALUE k 1 4 9\r\na\r\nb\r\nEND\r\n"), value(9));
        assert_eq!(reply(&request, b"VALUE k 1 4\r\na\r\nb\r\nEND\r\n"), value(0));
        for (bytes, expected) in [
            (&b"END\r\n"[..], Reply::Miss),
            (b"STORED\r\n", Reply::Stored),
            (b"NOT_STORED\r\n", Reply::NotStored),
            (b"EXISTS\r\n", Reply::Exists),
            (b"NOT_FOUND\r\n", Reply::NotFound),
            (b"DELETED\r\n", Reply::Deleted),
            (b"TOUCHED\r\n", Reply::Touched),
            (b"VERSION 1.6.18\r\n", Reply::Version),
            (b"12\r\n", Reply::Number(12)),
            (b"SERVER_ERROR out of memory\r\n", Reply::Error("SERVER_ERROR out of memory".to_owned())),
        ] {
            assert_eq!(reply(&request, bytes), expected);
        }
    }

    #[test]
    fn what_is_no_reply_ends_the_connection() {
        let request = Request::new().get(b"k");
        for bytes in [
            &b"VALUE other 0 1\r\nx\r\nEND\r\n"[..],
            b"VALUE k 0 1\r\nxyz\r\nEND\r\n",
            b"VALUE k 0\r\n",
            b"VALUE k 0 99999999\r\n",
            b"ERROR\r\n",
            b"CLIENT_ERROR bad data chunk\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            &[b'x'; 2000],
        ] {
            assert!(matches!(request.parse(bytes), Parsed::OutOfStep(_)), "{bytes:?}");
        }
    }
}
