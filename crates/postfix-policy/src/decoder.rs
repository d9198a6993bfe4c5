//! Finds requests in the bytes of a connection.

use bytes::BytesMut;
use memchr::{memchr, memchr_iter};

use crate::ProtocolError;
use crate::limits::Limits;
use crate::request::{Range, Ranges, Request};

/// Finds requests in a growing buffer, and remembers how far it has looked: input that comes byte by byte
/// costs no more than input that comes at once.
///
/// Use one for each connection, with a buffer that only this decoder takes bytes from. A broken input stays
/// broken: after an error each call returns it again.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Bytes at the buffer's front that have been looked through.
    scanned: usize,
    /// Where the line begins that `scanned` is in.
    line_start: usize,
    attributes: Ranges,
    broken: Option<ProtocolError>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::with_limits(Limits::REQUEST)
    }
}

impl Decoder {
    pub(crate) fn with_limits(limits: Limits) -> Decoder {
        Decoder { limits, scanned: 0, line_start: 0, attributes: Ranges::new(), broken: None }
    }

    /// Takes the next whole request off the buffer's front; `None` if more bytes are needed.
    ///
    /// Call it after each read: a peer that exceeds a limit is found as soon as it does.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        match self.scan(buffer) {
            Ok(None) => {
                self.scanned = buffer.len();
                Ok(None)
            }
            Ok(Some(length)) => {
                self.scanned = 0;
                self.line_start = 0;
                let attributes = std::mem::take(&mut self.attributes);
                Ok(Some(Request::new(buffer.split_to(length).freeze(), attributes)))
            }
            Err(error) => {
                self.broken = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Whether the buffer holds the beginning of a request: the peer is then expected to go on soon.
    pub fn is_mid_request(&self, buffer: &BytesMut) -> bool {
        !buffer.is_empty()
    }

    /// Goes through the lines that have become whole. Returns the request's length once its end is found.
    fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let fresh = self.scanned;
        for newline in memchr_iter(b'\n', &buffer[fresh..]).map(|at| fresh + at) {
            let line = &buffer[self.line_start..newline];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let length = newline + 1;
            self.check_lengths(line.len(), length)?;
            if line.is_empty() {
                refuse_nul(&buffer[fresh..length])?;
                return Ok(Some(length));
            }
            self.add_attribute(line)?;
            self.line_start = length;
        }
        // At least a line feed is still to come, and a carriage return at the end may belong to it.
        self.check_lengths((buffer.len() - self.line_start).saturating_sub(1), buffer.len() + 1)?;
        refuse_nul(&buffer[fresh..])?;
        Ok(None)
    }

    fn check_lengths(&self, line: usize, message: usize) -> Result<(), ProtocolError> {
        if line > self.limits.line_bytes {
            return Err(ProtocolError::LineTooLong { limit: self.limits.line_bytes });
        }
        if message > self.limits.message_bytes {
            return Err(ProtocolError::RequestTooLong { limit: self.limits.message_bytes });
        }
        Ok(())
    }

    /// `line` begins at `line_start`.
    fn add_attribute(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        // Names are short: a search that is fast on long texts takes longer to begin.
        let Some(name_length) = line.iter().position(|byte| *byte == b'=') else {
            return Err(ProtocolError::no_equal_sign(line));
        };
        if self.attributes.len() == self.limits.attributes {
            return Err(ProtocolError::TooManyAttributes { limit: self.limits.attributes });
        }
        // No offset exceeds the limit of a message, which 32 bits hold many times over.
        let start = self.line_start as u32;
        let (equal_sign, end) = (start + name_length as u32, start + line.len() as u32);
        self.attributes.push(Range { start, equal_sign, end });
        Ok(())
    }
}

fn refuse_nul(bytes: &[u8]) -> Result<(), ProtocolError> {
    if memchr(0, bytes).is_some() { Err(ProtocolError::Nul) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_ATTRIBUTES, MAX_LINE_BYTES, MAX_REQUEST_BYTES};

    type Pairs = Vec<(String, String)>;

    /// All requests of an input that comes at once, and the error that ended it.
    fn decode(input: impl AsRef<[u8]>) -> (Vec<Pairs>, Option<ProtocolError>) {
        let mut buffer = BytesMut::from(input.as_ref());
        let mut decoder = Decoder::default();
        let mut requests = Vec::new();
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(request)) => requests.push(
                    request
                        .iter()
                        .map(|(name, value)| {
                            (name.escape_ascii().to_string(), value.escape_ascii().to_string())
                        })
                        .collect(),
                ),
                Ok(None) => return (requests, None),
                Err(error) => return (requests, Some(error)),
            }
        }
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn requests_come_one_after_the_other() {
        let (requests, error) = decode("a=1\nb=\n\n\nc=x=y\n\nd=");
        assert_eq!(requests, [pairs([("a", "1"), ("b", "")]), vec![], pairs([("c", "x=y")])]);
        assert_eq!(error, None);
    }

    #[test]
    fn one_carriage_return_belongs_to_the_line_break() {
        let (requests, error) = decode("a=1\r\nb=2\n\r\na=1\r\r\n\n");
        assert_eq!(requests, [pairs([("a", "1"), ("b", "2")]), pairs([("a", r"1\r")])]);
        assert_eq!(error, None);
    }

    #[test]
    fn names_may_be_empty_and_bytes_be_any() {
        let (requests, _) = decode(b"=x\n==\ns=\xc3(\n\n");
        assert_eq!(requests, [pairs([("", "x"), ("", "="), ("s", r"\xc3(")])]);
    }

    #[test]
    fn a_line_without_an_equal_sign_ends_the_connection() {
        let (requests, error) = decode("a=1\n\nGET / HTTP/1.0\r\nb=1\n\n");
        assert_eq!(requests.len(), 1);
        assert_eq!(error, Some(ProtocolError::NoEqualSign { line: "GET / HTTP/1.0".to_owned() }));
    }

    #[test]
    fn nul_is_refused_when_its_turn_comes() {
        let (requests, error) = decode("a=1\n\nb=\0");
        assert_eq!((requests.len(), error), (1, Some(ProtocolError::Nul)));
        assert_eq!(decode("b=\0\n\n").1, Some(ProtocolError::Nul));
    }

    #[test]
    fn a_line_may_reach_its_limit_but_not_exceed_it() {
        let line = format!("a={}", "x".repeat(MAX_LINE_BYTES - 2));
        assert_eq!(decode(format!("{line}\r\n\n")).0.len(), 1);
        assert_eq!(decode(format!("{line}\r")).1, None);
        for tail in ["x\n\n", "xx", "\r\r"] {
            let error = ProtocolError::LineTooLong { limit: MAX_LINE_BYTES };
            assert_eq!(decode(format!("{line}{tail}")).1, Some(error), "{tail:?}");
        }
    }

    #[test]
    fn attributes_may_reach_their_limit_but_not_exceed_it() {
        let all = "a=1\n".repeat(MAX_ATTRIBUTES);
        assert_eq!(decode(format!("{all}\n")).0[0].len(), MAX_ATTRIBUTES);
        let error = ProtocolError::TooManyAttributes { limit: MAX_ATTRIBUTES };
        assert_eq!(decode(format!("{all}a=1\n")).1, Some(error));
    }

    #[test]
    fn a_request_may_reach_its_limit_but_not_exceed_it() {
        let line = format!("a={}\n", "x".repeat(MAX_REQUEST_BYTES / 8 - 3));
        let most = line.repeat(8);
        assert_eq!(decode(format!("{}\n", &most[1..])).1, None, "the name of the first line is now empty");
        for input in [format!("{most}\n"), most] {
            assert_eq!(decode(input).1, Some(ProtocolError::RequestTooLong { limit: MAX_REQUEST_BYTES }));
        }
    }

    #[test]
    fn an_endless_line_is_refused_without_being_kept() {
        let mut buffer = BytesMut::new();
        let mut decoder = Decoder::default();
        let error = loop {
            buffer.extend_from_slice(&[b'A'; 4096]);
            match decoder.decode(&mut buffer) {
                Ok(request) => assert!(request.is_none() && decoder.is_mid_request(&buffer)),
                Err(error) => break error,
            }
        };
        assert_eq!(error, ProtocolError::LineTooLong { limit: MAX_LINE_BYTES });
        assert!(buffer.len() <= MAX_LINE_BYTES + 4096);
        assert_eq!(decoder.decode(&mut buffer).unwrap_err(), error, "and stays so");
    }
}
