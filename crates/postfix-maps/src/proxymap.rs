//! The protocol of Postfix's proxymap(8): names and values, each with a NUL behind it, and a NUL more at the
//! end.

use crate::ReplyError;
use crate::limits::PROXYMAP_REPLY_MAX_BYTES;

/// Has the table locked while it is read, and keys folded to lower case where its type does so.
const FLAGS: &str = "16448";

/// What the server says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It has this value.
    Found(Vec<u8>),
    /// There is no such key.
    NotFound,
    /// It can't say, or does not want to.
    Failed(&'static str),
}

/// The question for a key of a table, such as `hash:/etc/postfix/access`. A key with a NUL in it can't be
/// asked for.
pub fn request(table: &str, key: &[u8]) -> Option<Vec<u8>> {
    if key.contains(&0) || table.contains('\0') {
        return None;
    }
    let before = format!("request\0lookup\0table\0{table}\0flags\0{FLAGS}\0key\0");
    Some([before.as_bytes(), key, b"\0\0"].concat())
}

/// What a reply may have beside its status and its value.
const MAX_ATTRIBUTES: usize = 16;

/// The reply at the beginning of what has come so far; `None` if it is not whole yet. Versions of Postfix
/// since 3.6 say first which protocol they speak.
///
/// # Errors
/// When no further bytes can make it one.
pub fn reply(bytes: &[u8]) -> Result<Option<Reply>, ReplyError> {
    let mut parts = bytes.split(|byte| *byte == 0);
    // What stands behind the last NUL is not whole.
    let whole = bytes.iter().filter(|byte| **byte == 0).count();
    let mut left = whole;
    let (mut status, mut value) = (None, None);
    for _ in 0..MAX_ATTRIBUTES {
        let mut part = || {
            left = left.checked_sub(1)?;
            parts.next()
        };
        let Some(name) = part() else { return incomplete(bytes) };
        if name.is_empty() {
            // The end of a list: of the greeting, or of the reply.
            if status.is_some() {
                return meaning(status, value).map(Some);
            }
            continue;
        }
        let Some(text) = part() else { return incomplete(bytes) };
        match name {
            b"status" => status = Some(text),
            b"value" => value = Some(text),
            b"protocol" if text != b"proxymap_protocol" => {
                return Err(ReplyError("this is another service of Postfix than proxymap"));
            }
            _ => {}
        }
    }
    Err(ReplyError("the reply has too many attributes"))
}

fn incomplete(bytes: &[u8]) -> Result<Option<Reply>, ReplyError> {
    let long = bytes.len() > PROXYMAP_REPLY_MAX_BYTES;
    if long { Err(ReplyError("the reply is longer than 256 KiB")) } else { Ok(None) }
}

fn meaning(status: Option<&[u8]>, value: Option<&[u8]>) -> Result<Reply, ReplyError> {
    match (status, value) {
        (Some(b"0"), Some(value)) => Ok(Reply::Found(value.to_vec())),
        (Some(b"1"), _) => Ok(Reply::NotFound),
        (Some(b"2"), _) => Ok(Reply::Failed("the table can't be searched now")),
        (Some(b"3"), _) => Ok(Reply::Failed("the server does not understand the question")),
        (Some(b"4"), _) => Ok(Reply::Failed("the table is not in proxy_read_maps of Postfix")),
        (Some(b"5"), _) => Ok(Reply::Failed("the table is not what it should be")),
        _ => Err(ReplyError("the reply has no known status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each part with a NUL behind it.
    fn bytes(parts: &[&str]) -> Vec<u8> {
        parts.iter().flat_map(|part| [part.as_bytes(), b"\0"].concat()).collect()
    }

    #[test]
    fn a_question_is_a_list_of_attributes() {
        let question = bytes(&["request", "lookup", "table", "hash:map", "flags", "16448", "key", "a@b", ""]);
        assert_eq!(request("hash:map", b"a@b"), Some(question));
        assert_eq!(request("hash:map", &bytes(&["a"])), None);
    }

    #[test]
    fn replies_are_read_once_they_are_whole() {
        let whole = bytes(&["protocol", "proxymap_protocol", "", "status", "0", "value", "OK then", ""]);
        for end in 0..whole.len() {
            assert_eq!(reply(&whole[..end]), Ok(None), "{end}");
        }
        assert_eq!(reply(&whole), Ok(Some(Reply::Found(b"OK then".to_vec()))));
        assert_eq!(reply(&bytes(&["status", "1", "value", "", ""])), Ok(Some(Reply::NotFound)));
        assert!(matches!(reply(&bytes(&["status", "4", "value", "", ""])), Ok(Some(Reply::Failed(_)))));
    }

    #[test]
    fn other_bytes_are_no_reply() {
        assert!(reply(&bytes(&["protocol", "cleanup_protocol", ""])).is_err());
        assert!(reply(&bytes(&["status", "77", "value", "x", ""])).is_err());
        assert!(reply(&bytes(&["status", "0", ""])).is_err());
        assert!(reply(&bytes(&["a"; 2 * MAX_ATTRIBUTES])).is_err());
        assert!(reply(&vec![b'x'; PROXYMAP_REPLY_MAX_BYTES + 1]).is_err());
    }
}
