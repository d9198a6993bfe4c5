//! Scripts, which a server runs as one command, and what they reply.
//!
//! Knows: how a script is sent. Must not know: what one does.

use super::call::STALE;
use super::error::RequestError;
use redis::{Cmd, ServerErrorKind, Value, cmd};

/// A script (Lua) that callers bring. It is best kept in a static, since its hash is computed when it is
/// made.
///
/// It is executed only as long as its caller waits: a server that was asleep skips it.
pub struct Script {
    pub(super) lua: Lua,
    /// Whether it does no harm to run it again.
    pub(super) repeatable: bool,
}

impl Script {
    /// A script that is not run again when its connection broke, so that what it was to do may be done or
    /// not.
    pub fn once(body: &str) -> Script {
        // What it replies stands between the sign that it was executed and the time, which the clock wants.
        let text = format!(
            "local time = redis.call('TIME') \
             local now = time[1] * 1000 + math.floor(time[2] / 1000) \
             local begin_by = tonumber(table.remove(ARGV)) \
             if begin_by ~= 0 and now > begin_by then return {{{STALE}, now}} end \
             local function body()\n{body}\nend \
             return {{1, body() or false, now}}"
        );
        Script { lua: Lua::new(text), repeatable: false }
    }

    /// A script that does no harm if it is run again with the same arguments.
    pub fn repeatable(body: &str) -> Script {
        Script { repeatable: true, ..Script::once(body) }
    }
}

/// What a script of a caller replied; `None` if it was too late and did nothing.
pub(super) fn body_of(reply: Value) -> Result<Option<Value>, RequestError> {
    let Value::Array(parts) = reply else { return Err(unexpected()) };
    match <[Value; 3]>::try_from(parts) {
        Ok([Value::Int(1), reply, _]) => Ok(Some(reply)),
        Err(parts) if parts.first() == Some(&Value::Int(STALE)) => Ok(None),
        _ => Err(unexpected()),
    }
}

/// A script in Lua.
pub(super) struct Lua {
    text: String,
    /// By which a server knows it once it has run it.
    hash: String,
}

impl Lua {
    /// A script of this text.
    pub(super) fn new(text: impl Into<String>) -> Lua {
        let text = text.into();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Lua { text, hash }
    }

    /// Runs it, if the server knows it.
    pub(super) fn by_hash(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        command("EVALSHA", &self.hash, keys, args)
    }

    /// Runs it and makes it known.
    pub(super) fn by_text(&self, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
        command("EVAL", &self.text, keys, args)
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
pub(super) fn texts(reply: Value) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut texts = Vec::new();
    flatten(reply, &mut texts)?;
    Ok(texts)
}

fn flatten(reply: Value, texts: &mut Vec<Vec<u8>>) -> Result<(), RequestError> {
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
pub(super) fn unexpected() -> RequestError {
    RequestError::Refused("a reply that this command does not have".to_owned())
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
