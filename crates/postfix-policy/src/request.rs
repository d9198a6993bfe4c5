//! One request: the bytes as received, and where its attributes are in them.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::mailbox::folded;
use crate::{Decoder, Mailbox, ProtocolError};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

/// Attributes found without allocating: Postfix sends about 30.
const USUAL_ATTRIBUTES: usize = 32;

/// Where the attributes of a request are, in the order received.
pub(crate) type Ranges = SmallVec<[Range; USUAL_ATTRIBUTES]>;

/// One attribute's place in its frame. 32 bits suffice, since a frame is bounded by a mebibyte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) start: u32,
    pub(crate) equal_sign: u32,
    pub(crate) end: u32,
}

impl Range {
    fn name<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[self.start as usize..self.equal_sign as usize]
    }

    fn value<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        &frame[self.equal_sign as usize + 1..self.end as usize]
    }
}

/// One request, or anything else of the form `name=value` lines and an empty line.
///
/// Names and values are bytes: Postfix passes on what SMTP clients sent. A clone shares the received bytes.
#[derive(Clone, Debug)]
pub struct Request {
    frame: Bytes,
    attributes: Ranges,
    sender: OnceLock<Arc<Mailbox>>,
    recipient: OnceLock<Arc<Mailbox>>,
    client_ip: OnceLock<Option<IpAddr>>,
}

impl Request {
    /// `attributes` must lie within `frame`.
    pub(crate) fn new(frame: Bytes, attributes: Ranges) -> Request {
        let (sender, recipient, client_ip) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Request { frame, attributes, sender, recipient, client_ip }
    }

    /// Builds a request that nobody sent: for clients, tools and tests.
    ///
    /// Refuses what the protocol can't carry (line breaks and NUL, and `=` in a name) and what exceeds
    /// [`limits`](crate::limits).
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Request, ProtocolError>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut frame = BytesMut::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            if memchr::memchr3(b'\n', 0, b'=', name).is_some() || memchr::memchr2(b'\n', 0, value).is_some() {
                return Err(ProtocolError::unwritable(name, value));
            }
            frame.reserve(name.len() + value.len() + "=\r\n".len());
            frame.put_slice(name);
            frame.put_u8(b'=');
            frame.put_slice(value);
            // A reader takes one carriage return for a part of the line break: give it one of its own.
            frame.put_slice(if value.ends_with(b"\r") { b"\r\n" } else { b"\n" });
        }
        frame.put_u8(b'\n');
        // Each line so far has an equal sign and none is empty, so the frame ends where it should.
        let limit = crate::limits::MAX_REQUEST_BYTES;
        Decoder::default().decode(&mut frame)?.ok_or(ProtocolError::RequestTooLong { limit })
    }

    /// The value of an attribute. Of a repeated name the last one counts, as in the original.
    ///
    /// Compares the names one after the other: with some thirty of them that is faster than hashing.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let range = self.attributes.iter().rev().find(|range| range.name(&self.frame) == name.as_bytes())?;
        Some(range.value(&self.frame))
    }

    /// The sender as Postfix will understand it, read when it is first asked for. A request that names none
    /// has the null sender.
    pub fn sender(&self) -> &Mailbox {
        self.sender.get_or_init(|| Arc::new(Mailbox::sender(self.shared("sender"))))
    }

    /// The recipient as Postfix will understand it. There is none at the end of a message with several.
    pub fn recipient(&self) -> &Mailbox {
        self.recipient.get_or_init(|| Arc::new(Mailbox::recipient(self.shared("recipient"))))
    }

    /// The IP address of the client, read when it is first asked for; `None` where Postfix knows none. An
    /// IPv4 address that is written as one of IPv6 (`::ffff:192.0.2.1`) is that IPv4 address.
    pub fn client_ip(&self) -> Option<IpAddr> {
        let read = || str::from_utf8(self.get("client_address")?).ok()?.parse().ok();
        *self.client_ip.get_or_init(|| read().map(|ip: IpAddr| ip.to_canonical()))
    }

    /// The attribute as an address of the envelope, if it is one.
    pub fn mailbox(&self, name: &str) -> Option<&Mailbox> {
        match name {
            "sender" => Some(self.sender()),
            "recipient" => Some(self.recipient()),
            _ => None,
        }
    }

    /// The value of an attribute; of an address of the envelope what Postfix will understand.
    pub fn address(&self, name: &str) -> Option<&[u8]> {
        let value = self.get(name)?;
        Some(self.mailbox(name).map_or(value, Mailbox::address))
    }

    /// The value of an attribute and, if it is an address that Postfix will understand otherwise, that
    /// address: what a list has to be asked about. Nothing if the request has no such attribute.
    pub fn forms(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let rewritten = self.mailbox(name).filter(|mailbox| mailbox.is_rewritten()).map(Mailbox::address);
        self.get(name).into_iter().chain(rewritten)
    }

    /// The value of an attribute as a key for counting: in lower case, and an address of the envelope as
    /// Postfix will understand it.
    pub fn key(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let value = self.get(name)?;
        Some(self.mailbox(name).map_or_else(|| folded(value), Mailbox::key))
    }

    /// A value that shares the bytes of the request; empty if there is none.
    fn shared(&self, name: &str) -> Bytes {
        self.get(name).map(|value| self.frame.slice_ref(value)).unwrap_or_default()
    }

    /// Names and values in the order received, repeated ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.attributes.iter().map(|range| (range.name(&self.frame), range.value(&self.frame)))
    }

    /// The bytes as received, with the final empty line.
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(request: &Request) -> Vec<(&[u8], &[u8])> {
        request.iter().collect()
    }

    #[test]
    fn a_client_of_ipv4_is_one_however_it_is_written() {
        for (text, ip) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
        ] {
            let request = Request::from_pairs([("client_address", text)]).unwrap();
            assert_eq!(request.client_ip().map(|ip| ip.to_string()).as_deref(), ip, "{text}");
        }
        assert_eq!(Request::from_pairs([("x", "192.0.2.1")]).unwrap().client_ip(), None);
    }

    #[test]
    fn of_a_repeated_name_the_last_one_counts() {
        let request = Request::from_pairs([("x", "1"), ("y", "2"), ("x", "")]).unwrap();
        assert_eq!(request.get("x"), Some(&b""[..]));
        assert_eq!(request.get("y"), Some(&b"2"[..]));
        assert_eq!(request.get("z"), None);
        assert_eq!(request.get(""), None);
        assert_eq!(request.frame(), b"x=1\ny=2\nx=\n\n");
    }

    #[test]
    fn odd_but_legal_attributes_survive() {
        let odd = [(&b""[..], &b"no name"[..]), (b"", b""), (b"a", b"b=c="), (b"\xff\r", b" \xfe\r\r")];
        assert_eq!(pairs(&Request::from_pairs(odd).unwrap()), odd);
        assert_eq!(pairs(&Request::from_pairs::<&str, &str>([]).unwrap()), []);
    }

    #[test]
    fn addresses_are_read_once() {
        let request = Request::from_pairs([("sender", "Site!Bob"), ("sasl_username", "BOB")]).unwrap();
        assert!(std::ptr::eq(request.sender(), request.clone().sender()));
        assert_eq!(request.forms("sender").collect::<Vec<_>>(), [&b"Site!Bob"[..], b"Bob@site"]);
        assert_eq!(request.forms("sasl_username").collect::<Vec<_>>(), [b"BOB"]);
        assert_eq!(request.address("sender"), Some(&b"Bob@site"[..]));
        assert_eq!(
            (request.address("sasl_username"), request.address("recipient")),
            (Some(&b"BOB"[..]), None)
        );
        assert_eq!((request.forms("recipient").count(), request.recipient().is_null()), (0, true));
        assert_eq!(request.key("sender").as_deref(), Some(&b"bob@site"[..]));
        assert_eq!(request.key("sasl_username").as_deref(), Some(&b"bob"[..]));
        assert_eq!(request.key("recipient"), None);
    }

    #[test]
    fn what_can_not_be_written_is_refused() {
        for pair in [("a\n", "b"), ("a", "b\nc"), ("a=", "b"), ("a\0", "b"), ("a", "\0")] {
            assert!(matches!(Request::from_pairs([pair]), Err(ProtocolError::Unwritable { .. })), "{pair:?}");
        }
        let many = (0..crate::limits::MAX_ATTRIBUTES + 1).map(|number| (number.to_string(), ""));
        assert!(matches!(Request::from_pairs(many), Err(ProtocolError::TooManyAttributes { .. })));
    }
}
