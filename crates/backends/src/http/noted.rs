//! How what a web service is asked and answers is noted, and read back for a replay.
//!
//! Knows: answers. Must not know: what they mean.

#![cfg_attr(not(feature = "http"), allow(dead_code, reason = "there is no service to ask"))]

use super::HttpAnswer;
use crate::BackendError;
use crate::replay::{self, MAX_SHOWN_BYTES, Part, Replay, parts, push_quoted};
use lookups::LookupKind;

/// What stands before the number of an answer.
const STATUS: &str = "status ";

/// A body that is sent: its length, and as much of a checksum as tells the questions of one request apart
/// but does not tell what it says.
pub(super) fn question(body: &[u8]) -> String {
    let sum = body.iter().fold(0_u16, |sum, byte| sum.rotate_left(5).wrapping_mul(31) ^ u16::from(*byte));
    format!("a body of {} bytes ({sum:04x})", body.len())
}

/// The answer; its body too if it is short.
pub(super) fn answer(answer: &HttpAnswer) -> String {
    let HttpAnswer { status, body, .. } = answer;
    let mut text = format!("{STATUS}{status}, {} bytes", body.len());
    if !body.is_empty() && body.len() <= MAX_SHOWN_BYTES {
        text.push_str(": ");
        push_quoted(&mut text, body);
    }
    text
}

/// What was recorded of a question, or of the same one of an earlier request: its answer may have been used
/// again.
pub(super) fn replayed(replay: &Replay, name: &str, body: &[u8]) -> Result<HttpAnswer, BackendError> {
    let recorded = replay.kept_answer(LookupKind::Http, name, &question(body), body);
    let missed = |what: String| {
        replay.miss(what);
        Err(replay::not_asked(name))
    };
    let Some(answer) = recorded else { return missed(name.to_owned()) };
    if let Some(error) = replay::failure(name, &answer) {
        return Err(error);
    }
    match read(&answer) {
        Some(answer) => Ok(answer),
        None => missed(format!("the answer of {name}")),
    }
}

fn read(text: &str) -> Option<HttpAnswer> {
    let (status, rest) = text.strip_prefix(STATUS)?.split_once(", ")?;
    let status = status.parse().ok()?;
    let body = match rest.split_once(" bytes: ") {
        Some((_, shown)) => match <[Part; 1]>::try_from(parts(shown)?).ok()? {
            [Part::Value(body)] => body,
            _ => return None,
        },
        None if rest == "0 bytes" => Vec::new(),
        None => return None,
    };
    Some(HttpAnswer { status, body, max_age: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_back() {
        for (status, body) in [(200, &b"{\"a\":\n\"\xc3\xa4\"}"[..]), (204, b""), (503, b"")] {
            let all = HttpAnswer { status, body: body.to_vec(), max_age: None };
            assert_eq!(read(&answer(&all)), Some(all));
        }
        let long = HttpAnswer { status: 200, body: vec![b'x'; 500], max_age: None };
        assert_eq!(answer(&long), "status 200, 500 bytes");
        assert_eq!(read(&answer(&long)), None);
        assert_ne!(question(b"ab"), question(b"ba"));
    }
}
