//! A store in a table of a database.
//!
//! Values are texts, so that an administrator can read them; one that is not UTF-8, or has a NUL, is written
//! as `\x` and hexadecimal digits. When a value expires is in milliseconds since the epoch by the clock of
//! the daemon that wrote it.
//!
//! Knows: SQL. Must not know: what the values are for.

mod scan;
mod statements;

use self::statements::Statements;
use super::keys::stand_in;
use super::{Lock, Locked, lock_name, parse_number};
use crate::clock::Clock;
use crate::sql::{Output, Param, Schema, Sql, Statement, Work};
use crate::{BackendError, Call, Failure};
use std::sync::Arc;
use std::time::Duration;

/// The longest key in bytes: what the column takes.
const MAX_KEY_BYTES: usize = 255;

/// The longest value in bytes as it is written: a little less than a reply of a database may have.
const MAX_VALUE_BYTES: usize = 1_000_000;

/// Maximum number of expired rows removed in one transaction, so that others need not wait long.
const EXPIRED_PER_WORK: u64 = 1_000;

/// How long removing them may go on.
const EXPIRE_LIMIT: Duration = Duration::from_secs(60);

/// A table of values.
pub struct SqlTable {
    sql: Arc<Sql>,
    statements: Statements,
}

impl SqlTable {
    /// The table `mtpolicyd_store` of a database, made when it is first used.
    pub fn new(sql: Arc<Sql>) -> SqlTable {
        let statements = Statements::new(sql.dialect(), EXPIRED_PER_WORK);
        SqlTable { sql, statements }
    }

    /// The database.
    pub fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// The table.
    pub fn schema(&self) -> Schema {
        Schema::new(statements::TABLE, "name", self.statements.create.iter().cloned())
    }

    /// Removes what has expired: how much.
    pub async fn expire(&self, call: Call<'_>) -> Result<u64, BackendError> {
        let call = call.at_most(EXPIRE_LIMIT);
        let mut removed = 0;
        loop {
            let expire = Statement { sql: self.statements.expire.clone(), params: vec![now()] };
            let some = affected(self.run(vec![expire], false, call).await?.first());
            removed += some;
            if some < EXPIRED_PER_WORK {
                return Ok(removed);
            }
        }
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], call: Call<'_>) -> Result<Option<Vec<u8>>, BackendError> {
        let query = self.select(key);
        let rows = self.sql.query_or_make(query, || self.create(call), call).await?;
        Ok(first_value(&rows).map(decode))
    }

    /// Sets a value, whatever there was, for a time. At most 1 MB.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        self.run(vec![self.upsert(key, value, lifetime)?], true, call).await.map(drop)
    }

    /// Sets a value unless there is one: whether it did. At most 1 MB.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let add = self.insert(key, value, lifetime)?;
        Ok(affected(self.run(vec![add], true, call).await?.first()) > 0)
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        let delete = Statement { sql: self.statements.delete.clone(), params: vec![name(key), now()] };
        Ok(affected(self.run(vec![delete], true, call).await?.first()) > 0)
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on. An error if the
    /// value is not a number.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        let mut params = vec![name(key), until(lifetime)];
        params.extend(std::iter::repeat_n(now(), self.statements.increment_nows));
        let increment = Statement { sql: self.statements.increment.clone(), params };
        // In the same transaction nobody changes the row in between.
        let outputs = self.run(vec![increment, self.select(key)], true, call).await?;
        let number = outputs.get(1).and_then(|output| first_value(&output.rows));
        // Its lifetime may have been nothing.
        number.map_or(Ok(1), |text| parse_number(text.as_bytes())).map_err(|message| self.refused(message))
    }

    /// Locks `key` for `owner`, for `lifetime` unless that is renewed, and reads it, in one transaction.
    pub async fn lock(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<Locked, BackendError> {
        let work = vec![self.insert(&lock_name(key), owner, lifetime)?, self.select(key)];
        let outputs = self.run(work, false, call).await?;
        if affected(outputs.first()) == 0 {
            return Ok(Locked::Theirs);
        }
        Ok(Locked::ours(outputs.get(1).and_then(|output| first_value(&output.rows)).map(decode)))
    }

    /// Keeps a lock for `lifetime` from now on, if it still is this owner's: whether it was.
    pub async fn renew(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let params = vec![until(lifetime), name(&lock_name(key)), self.value(owner)?, now()];
        let renew = Statement { sql: self.statements.renew.clone(), params };
        Ok(affected(self.run(vec![renew], false, call).await?.first()) > 0)
    }

    /// Sets what a lock protects and gives the lock back in one transaction, if it still is its owner's:
    /// whether it was.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let lock_key = lock_name(key);
        let mut params = vec![name(key), self.value(value)?, until(lifetime)];
        params.extend([name(&lock_key), self.value(lock.owner)?, now()]);
        let set = Statement { sql: self.statements.set_locked.clone(), params };
        // What a power cut loses is a message in the middle of its way, since Postfix stops as well. A server
        // that crashes is back while the next recipient waits.
        let durable = self.sql.crash_loses();
        let outputs = self.run(vec![set, self.release(&lock_key, lock.owner)?], durable, call).await?;
        Ok(affected(outputs.last()) > 0)
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, key: &[u8], owner: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        let unlock = self.release(&lock_name(key), owner)?;
        Ok(affected(self.run(vec![unlock], false, call).await?.first()) > 0)
    }

    fn release(&self, lock: &[u8], owner: &[u8]) -> Result<Statement, BackendError> {
        let params = vec![name(lock), self.value(owner)?, now()];
        Ok(Statement { sql: self.statements.unlock.clone(), params })
    }

    fn upsert(&self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<Statement, BackendError> {
        let params = vec![name(key), self.value(value)?, until(lifetime)];
        Ok(Statement { sql: self.statements.set.clone(), params })
    }

    fn select(&self, key: &[u8]) -> Statement {
        Statement { sql: self.statements.get.clone(), params: vec![name(key), now()] }
    }

    /// Inserts a row unless there is one that has not expired.
    fn insert(&self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<Statement, BackendError> {
        let mut params = vec![name(key), self.value(value)?, until(lifetime)];
        params.extend(std::iter::repeat_n(now(), self.statements.add_nows));
        Ok(Statement { sql: self.statements.add.clone(), params })
    }

    /// Does a work, after making the table if it is missing. A lock that a power cut loses is nobody's
    /// anyway, so not every work is durable.
    async fn run(
        &self,
        statements: Vec<Statement>,
        durable: bool,
        call: Call<'_>,
    ) -> Result<Vec<Output>, BackendError> {
        let work = Work { statements, lock: None, durable };
        self.sql.run_or_make(work, || self.create(call), call).await
    }

    async fn create(&self, call: Call<'_>) -> Result<(), BackendError> {
        // PostgreSQL refuses to make a table twice at the same time.
        self.sql.make_table(&self.schema(), call).await
    }

    fn value(&self, bytes: &[u8]) -> Result<Param, BackendError> {
        let text = encode(bytes);
        if text.len() <= MAX_VALUE_BYTES {
            return Ok(Param::Text(text));
        }
        let length = text.len();
        Err(self.refused(format!("a value of {length} bytes is beyond the limit of {MAX_VALUE_BYTES}")))
    }

    fn refused(&self, message: String) -> BackendError {
        BackendError { connection: self.sql.name().into(), failure: Failure::Refused(message) }
    }
}

/// A key as the table has it.
fn name(key: &[u8]) -> Param {
    let text = std::str::from_utf8(key).ok();
    let text = text.filter(|text| text.len() <= MAX_KEY_BYTES && !text.contains('\0'));
    Param::Text(text.map_or_else(|| stand_in(key), str::to_owned))
}

/// Now, in milliseconds since the epoch.
fn now() -> Param {
    Param::Integer(Clock::System.now_millis())
}

fn until(lifetime: Duration) -> Param {
    let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    Param::Integer(Clock::System.now_millis().saturating_add(lifetime))
}

fn affected(output: Option<&Output>) -> u64 {
    output.map_or(0, |output| output.affected)
}

fn first_value(rows: &[Vec<Option<String>>]) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}

/// What marks a value that is written in hexadecimal.
const HEX: &str = "\\x";

fn encode(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') && !text.starts_with(HEX) => text.to_owned(),
        _ => value.iter().fold(HEX.to_owned(), |mut text, byte| {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
            text
        }),
    }
}

/// What [`encode`] has made of a value; the text itself if somebody else wrote it.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.strip_prefix(HEX).filter(|digits| digits.len() % 2 == 0).and_then(|digits| {
        let pairs = digits.as_bytes().chunks_exact(2);
        pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Option<Vec<u8>>>()
    });
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_and_come_back() {
        for (value, text) in [
            (&b"plain"[..], "plain"),
            ("Grüße\r\n".as_bytes(), "Grüße\r\n"),
            (b"", ""),
            (b"\0\xff", "\\x00ff"),
            (b"\\x41", "\\x5c783431"),
        ] {
            assert_eq!(encode(value), text);
            assert_eq!(decode(text), value);
        }
        assert_eq!(decode("\\x4"), b"\\x4");
        assert_eq!(decode("\\xzz"), b"\\xzz");
    }

    #[test]
    fn keys_that_do_not_fit_are_replaced() {
        assert_eq!(name(b"a b"), Param::Text("a b".to_owned()));
        for key in [&b"\0"[..], b"\xff", &[b'x'; 256]] {
            assert_eq!(name(key), Param::Text(stand_in(key)));
        }
    }
}
