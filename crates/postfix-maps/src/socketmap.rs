//! The socketmap protocol (socketmap_table(5)): a question and an answer, each as a netstring.

use crate::ReplyError;
use crate::limits::SOCKETMAP_REPLY_MAX_BYTES;

/// Digits of the longest length that a reply may have.
const LENGTH_MAX_DIGITS: usize = 6;

/// What a server says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It has this value.
    Found(Vec<u8>),
    /// There is no such key.
    NotFound,
    /// It can't say: `TEMP`, `TIMEOUT` or `PERM`, and why.
    Failed(String),
}

/// The question for a key of a map.
pub fn request(map: &str, key: &[u8]) -> Vec<u8> {
    let length = map.len() + 1 + key.len();
    [format!("{length}:{map} ").as_bytes(), key, b","].concat()
}

/// The reply at the beginning of what has come so far; `None` if it is not whole yet.
///
/// # Errors
/// When no further bytes can make it one.
pub fn reply(bytes: &[u8]) -> Result<Option<Reply>, ReplyError> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == bytes.len() && digits <= LENGTH_MAX_DIGITS {
        return Ok(None);
    }
    let length = std::str::from_utf8(&bytes[..digits]).ok().and_then(|digits| digits.parse().ok());
    let length: usize = match (length, bytes.get(digits)) {
        (Some(length), Some(b':')) if digits <= LENGTH_MAX_DIGITS => length,
        _ => return Err(ReplyError("the reply is not a netstring")),
    };
    if length > SOCKETMAP_REPLY_MAX_BYTES {
        return Err(ReplyError("the reply is longer than 100000 bytes"));
    }
    let rest = &bytes[digits + 1..];
    match (rest.get(..length), rest.get(length)) {
        (Some(text), Some(b',')) if rest.len() == length + 1 => meaning(text).map(Some),
        (_, None) => Ok(None),
        _ => Err(ReplyError("the reply is not a netstring, or more than one")),
    }
}

fn meaning(text: &[u8]) -> Result<Reply, ReplyError> {
    let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let rest = text.get(word.len() + 1..).unwrap_or_default();
    match word {
        b"OK" => Ok(Reply::Found(rest.to_vec())),
        b"NOTFOUND" => Ok(Reply::NotFound),
        b"TEMP" | b"TIMEOUT" | b"PERM" => {
            Ok(Reply::Failed(String::from_utf8_lossy(text).trim_end().to_owned()))
        }
        _ => Err(ReplyError("the reply is not one of OK, NOTFOUND, TEMP, TIMEOUT, PERM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_netstring() {
        assert_eq!(request("access", b"a@b"), b"10:access a@b,");
    }

    #[test]
    fn replies_are_read_once_they_are_whole() {
        let whole = b"10:OK 550 yes,";
        for end in 0..whole.len() {
            assert_eq!(reply(&whole[..end]), Ok(None), "{end}");
        }
        assert_eq!(reply(whole), Ok(Some(Reply::Found(b"550 yes".to_vec()))));
        assert_eq!(reply(b"9:NOTFOUND ,"), Ok(Some(Reply::NotFound)));
        assert_eq!(reply(b"3:OK ,"), Ok(Some(Reply::Found(Vec::new()))));
        assert_eq!(reply(b"12:TEMP no disk,"), Ok(Some(Reply::Failed("TEMP no disk".to_owned()))));
    }

    #[test]
    fn other_bytes_are_no_reply() {
        for bad in ["HTTP/1.1", ":", "2:OK;", "100001:", "0000001:", "3:YES,", "2:OK,x", "9999999", "0:,"] {
            assert!(reply(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
