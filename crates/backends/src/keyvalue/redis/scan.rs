//! Pages of what is in Redis, in the order in which it is handed out; in a cluster, server by server.
//!
//! `SCAN` holds a server up for a moment only, however many keys it has; `KEYS` is never sent.
//!
//! Knows: `SCAN`, the servers of a cluster. Must not know: what the values are for.

use super::Redis;
use super::call::{Command, Patience, Servers, exchange};
use super::error::{RequestError, answer_of};
use super::node::Node;
use super::script::{Lua, unexpected};
use crate::keyvalue::scan::{BAD_CURSOR, HashPage, Held, MAX_SHOWN, Page, Scan};
use crate::{BackendError, Call};
use redis::{Cmd, Pipeline, Value, cmd};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;

/// About how many keys a server looks at in one go.
const KEYS_PER_ROUND: usize = 250;

/// How many goes a page takes at most.
const MAX_ROUNDS: usize = 100;

/// The cursor with which a server begins and ends.
const BEGIN: &str = "0";

/// `KEYS[1]` is the key. Replies with its value, or nothing where it is not one, and with the milliseconds
/// that it still lives: -1 forever, -2 where there is nothing.
static HELD: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local value = redis.pcall('GET', KEYS[1]) if type(value) == 'table' then value = false end \
         return {value, redis.call('PTTL', KEYS[1])}",
    )
});

impl Redis {
    /// What is under a key, with how long it still lives.
    pub async fn held(&self, key: &[u8], call: Call<'_>) -> Result<Option<Held>, BackendError> {
        let full = &*self.key(key);
        let reply = self.run(&HELD, &[full], &[], Command::repeatable, call).await?;
        let Value::Array(parts) = reply else { return self.read(Err(unexpected())) };
        match <[Value; 2]>::try_from(parts) {
            Ok([value, left]) => Ok(held(key, value, &left)),
            Err(_) => self.read(Err(unexpected())),
        }
    }

    /// A page of what is under keys that begin alike.
    pub async fn scan(&self, scan: Scan<'_>, call: Call<'_>) -> Result<Page, BackendError> {
        let ask = |key: &[u8]| {
            let (mut get, mut left) = (cmd("GETRANGE"), cmd("PTTL"));
            get.arg(key).arg(0).arg(MAX_SHOWN);
            left.arg(key);
            vec![get, left]
        };
        let read = |key: &[u8], replies: &[Value]| match replies {
            [value, left] => held(key, value.clone(), left),
            _ => None,
        };
        let (entries, next) = self.page(scan, ask, read, call).await?;
        Ok(Page { entries, next })
    }

    /// A page of the hashes whose keys begin alike, with these fields of each.
    pub async fn scan_hashes(
        &self,
        scan: Scan<'_>,
        fields: &[&str],
        call: Call<'_>,
    ) -> Result<HashPage, BackendError> {
        let ask = |key: &[u8]| {
            let mut get = cmd("HMGET");
            get.arg(key).arg(fields);
            vec![get]
        };
        let read = |key: &[u8], replies: &[Value]| {
            let [Value::Array(values)] = replies else { return None };
            let value = |value: &Value| match value {
                Value::BulkString(text) => Some(text.clone()),
                _ => None,
            };
            Some((key.to_vec(), values.iter().map(value).collect()))
        };
        let (entries, next) = self.page(scan, ask, read, call).await?;
        Ok(HashPage { entries, next })
    }

    /// Reads what is under the keys of a page by the commands that `ask` makes for each.
    async fn page<T>(
        &self,
        scan: Scan<'_>,
        ask: impl Fn(&[u8]) -> Vec<Cmd>,
        read: impl Fn(&[u8], &[Value]) -> Option<T>,
        call: Call<'_>,
    ) -> Result<(Vec<T>, Option<String>), BackendError> {
        let patience = Patience { deadline: call.deadline(), reply: self.timeout, failover: self.failover };
        let nodes = self.read(self.servers.masters(patience).await)?;
        let begin = scan.cursor.map_or(Some((0, BEGIN.to_owned())), |cursor| find(cursor, &nodes));
        let refused = || Err(RequestError::Refused(BAD_CURSOR.to_owned()));
        let (mut at, mut cursor) = self.read(begin.map_or_else(refused, Ok))?;
        let pattern = pattern(&[self.prefix.as_bytes(), scan.prefix].concat());
        let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
        for _ in 0..MAX_ROUNDS {
            let Some((_, node)) = nodes.get(at) else { break };
            let (next, mut keys) = self.read(round(node, &pattern, &cursor, patience).await)?;
            keys.retain(|key| seen.insert(key.clone()));
            let replies = self.read(ask_all(node, &keys, &ask, patience).await)?;
            let found = keys.iter().zip(&replies);
            // Behind the prefix of the connection are the keys as callers know them.
            entries.extend(found.filter_map(|(key, replies)| read(key.get(self.prefix.len()..)?, replies)));
            cursor = next;
            at += usize::from(cursor == BEGIN);
            if entries.len() >= scan.size() || Instant::now() >= call.deadline() {
                break;
            }
        }
        Ok((entries, nodes.get(at).map(|(name, _)| format!("{name}|{cursor}"))))
    }
}

impl Servers {
    /// All servers that have keys, each with a name that stays.
    async fn masters(&self, patience: Patience) -> Result<Vec<(String, Arc<Node>)>, RequestError> {
        match self {
            Servers::One(node) => Ok(vec![(String::new(), node.clone())]),
            Servers::Cluster(cluster) => {
                let by = patience.deadline.min(Instant::now() + patience.reply);
                let nodes = cluster.masters(by).await?;
                Ok(nodes.into_iter().map(|(address, node)| (address.to_string(), node)).collect())
            }
        }
    }
}

/// Where a cursor leads: the server, and its own cursor. One that has gone is skipped.
fn find(cursor: &str, nodes: &[(String, Arc<Node>)]) -> Option<(usize, String)> {
    let (name, cursor) = cursor.rsplit_once('|')?;
    if cursor.is_empty() || !cursor.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match nodes.iter().position(|(node, _)| node == name) {
        Some(at) => Some((at, cursor.to_owned())),
        None => Some((nodes.iter().filter(|(node, _)| node.as_str() < name).count(), BEGIN.to_owned())),
    }
}

/// Some keys of a server, and its next cursor.
async fn round(
    node: &Arc<Node>,
    pattern: &[u8],
    cursor: &str,
    patience: Patience,
) -> Result<(String, Vec<Vec<u8>>), RequestError> {
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_PER_ROUND);
    let replies = ask(node, vec![scan], patience).await?;
    let [Value::Array(parts)] = &replies[..] else { return Err(refusal(&replies)) };
    let [Value::BulkString(next), Value::Array(keys)] = &parts[..] else { return Err(unexpected()) };
    let keys = keys.iter().filter_map(|key| match key {
        Value::BulkString(key) => Some(key.clone()),
        _ => None,
    });
    Ok((String::from_utf8_lossy(next).into_owned(), keys.collect()))
}

/// What a server says about each of these keys.
async fn ask_all(
    node: &Arc<Node>,
    keys: &[Vec<u8>],
    of_key: &impl Fn(&[u8]) -> Vec<Cmd>,
    patience: Patience,
) -> Result<Vec<Vec<Value>>, RequestError> {
    let (mut commands, mut lengths) = (Vec::new(), Vec::new());
    for key in keys {
        let of_it = of_key(key);
        lengths.push(of_it.len());
        commands.extend(of_it);
    }
    if commands.is_empty() {
        return Ok(Vec::new());
    }
    let mut replies = ask(node, commands, patience).await?.into_iter();
    Ok(lengths.into_iter().map(|length| replies.by_ref().take(length).collect()).collect())
}

/// The replies of a server to some commands, errors among them.
async fn ask(node: &Arc<Node>, commands: Vec<Cmd>, patience: Patience) -> Result<Vec<Value>, RequestError> {
    let pack = |_: &Node| {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in &commands {
            pipeline.add_command(command.clone());
        }
        pipeline
    };
    let (replies, in_use) = exchange(node, pack, patience).await?;
    in_use.answered();
    Ok(replies)
}

/// What a server says instead of the reply to `SCAN`.
fn refusal(replies: &[Value]) -> RequestError {
    match replies {
        [Value::ServerError(error)] => RequestError::Refused(answer_of(error)),
        _ => unexpected(),
    }
}

/// What is under a key, by its value and by the milliseconds that it still lives.
fn held(key: &[u8], value: Value, left: &Value) -> Option<Held> {
    let left = match left {
        Value::Int(-2) => return None,
        Value::Int(left) => u64::try_from(*left).ok().map(Duration::from_millis),
        // The key has just moved to another server, where it is found.
        _ => return None,
    };
    let value = match value {
        Value::BulkString(value) => Some(value),
        _ => None,
    };
    Some(Held { key: key.to_vec(), value, left })
}

/// The pattern of all keys that begin so.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]\\^-".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(pattern(b"a*b[c]?\\,"), b"a\\*b\\[c\\]\\?\\\\,*");
    }

    #[test]
    fn a_cursor_names_a_server_and_its_place_there() {
        assert_eq!(find("|17", &[]), Some((0, "0".to_owned())), "the server has gone");
        for cursor in ["", "17", "a|", "a|x", "a|-1"] {
            assert_eq!(find(cursor, &[]), None, "{cursor}");
        }
    }
}
