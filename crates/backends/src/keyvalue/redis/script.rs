//! Scripts, which a server runs as one command, and what they reply.
//!
//! Knows: how a script is sent. Must not know: what one does.

use super::trouble::Trouble;
use redis::{Cmd, Script, ServerErrorKind, Value, cmd};

/// A script in Lua.
pub(super) struct Lua<'a> {
    text: &'a str,
    /// By which a server knows it once it has run it.
    hash: String,
}

impl<'a> Lua<'a> {
    /// A script of this text.
    pub(super) fn new(text: &'a str) -> Lua<'a> {
        Lua { text, hash: Script::new(text).get_hash().to_owned() }
    }

    /// Runs it, if the server knows it.
    pub(super) fn by_hash(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        command("EVALSHA", &self.hash, keys, args)
    }

    /// Runs it and makes it known.
    pub(super) fn by_text(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        command("EVAL", self.text, keys, args)
    }
}

fn command(name: &str, script: &str, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(keys.len()).arg(keys).arg(args);
    command
}

/// Whether the server does not know the script, which then has done nothing.
pub(super) fn is_unknown(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// A reply as a list of texts: numbers in decimals, nothing as an empty text, lists in lists one after
/// another.
pub(super) fn texts(reply: Value) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut texts = Vec::new();
    flatten(reply, &mut texts)?;
    Ok(texts)
}

fn flatten(reply: Value, texts: &mut Vec<Vec<u8>>) -> Result<(), Trouble> {
    match reply {
        Value::Array(replies) => return replies.into_iter().try_for_each(|reply| flatten(reply, texts)),
        Value::Nil => texts.push(Vec::new()),
        Value::Int(number) => texts.push(number.to_string().into_bytes()),
        Value::BulkString(text) => texts.push(text),
        Value::SimpleString(text) => texts.push(text.into_bytes()),
        Value::Okay => texts.push(b"OK".to_vec()),
        _ => return Err(unexpected()),
    }
    Ok(())
}

/// A reply that the command does not have.
pub(super) fn unexpected() -> Trouble {
    Trouble::Refused("a reply that this command does not have".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_a_list_of_texts() {
        let list = |list: &[Value]| Value::Array(list.to_vec());
        let nested = list(&[Value::Int(-3), Value::Nil, list(&[Value::BulkString(b"x".to_vec())])]);
        assert_eq!(texts(nested).unwrap(), [b"-3".to_vec(), Vec::new(), b"x".to_vec()]);
        assert_eq!(texts(Value::Okay).unwrap(), [b"OK".to_vec()]);
        assert!(texts(Value::Double(1.5)).is_err());
    }
}
