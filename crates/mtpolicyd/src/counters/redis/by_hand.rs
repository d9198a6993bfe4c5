//! Counters in Redis as an administrator sees and changes them.
//!
//! Knows: the keys. Must not know: plugins, thresholds.

use super::RedisTable;
use crate::counters::tables::NUMBERS;
use crate::counters::{Counted, CountedPage, Counter, Metric};
use backends::keyvalue::{Scan, Script};
use backends::{BackendError, Call};
use std::sync::LazyLock;

/// Gives fields of a hash other values. Arguments: the lifetime in seconds; name and value of each.
static PUT: LazyLock<Script> = LazyLock::new(|| Script::repeatable(PUT_TEXT));
const PUT_TEXT: &str = "\
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1";

/// Reads the numbers, and whether there are any.
static ROW: LazyLock<Script> = LazyLock::new(|| Script::repeatable(ROW_TEXT));
const ROW_TEXT: &str = "\
local row = redis.call('HMGET', KEYS[1], 'count', 'count_rcpt', 'size', 'size_rcpt')
return {redis.call('EXISTS', KEYS[1]), row[1] or '', row[2] or '', row[3] or '', row[4] or ''}";

static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::repeatable("return redis.call('DEL', KEYS[1])"));

impl RedisTable {
    /// Some of the counters of a span of time, from a cursor on.
    pub async fn page(
        &self,
        time: &str,
        cursor: Option<&str>,
        limit: usize,
        call: Call<'_>,
    ) -> Result<CountedPage, BackendError> {
        let prefix = format!("{{{},{time},", self.name);
        let scan = Scan { prefix: prefix.as_bytes(), cursor, limit };
        let page = self.redis.scan_hashes(scan, &NUMBERS, call).await?;
        // The hash of the reservations ends otherwise.
        let rows = page.entries.into_iter().filter_map(|(key, fields)| {
            let key = key.strip_prefix(prefix.as_bytes())?.strip_suffix(b"}")?;
            let numbers: Option<Vec<_>> = fields.iter().map(|field| number(field.as_deref()?)).collect();
            let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
            Some(Counted { key: String::from_utf8_lossy(key).into_owned(), numbers })
        });
        Ok(CountedPage { rows: rows.collect(), next: page.next })
    }

    /// One counter.
    pub async fn row(&self, counter: &Counter, call: Call<'_>) -> Result<Option<Counted>, BackendError> {
        let [counted, _] = self.keys(counter);
        let reply = self.eval(&ROW, &[counted], Vec::new(), call).await?;
        let [exists, numbers @ ..] = &reply[..] else { return Ok(None) };
        if exists == b"0" {
            return Ok(None);
        }
        let numbers: Option<Vec<_>> = numbers.iter().map(|field| number(field)).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        Ok(Some(Counted { key: counter.key.clone(), numbers }))
    }

    /// Gives numbers of a counter other values.
    pub async fn put(
        &self,
        counter: &Counter,
        values: &[(Metric, i64)],
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let [counted, _] = self.keys(counter);
        let mut arguments = vec![self.lifetime.as_secs().to_string()];
        for metric in Metric::ALL {
            if let Some((_, value)) = values.iter().find(|(of, _)| *of == metric) {
                arguments.extend([metric.to_string(), value.to_string()]);
            }
        }
        self.eval(&PUT, &[counted], arguments, call).await.map(drop)
    }

    /// Forgets a counter.
    pub async fn remove(&self, counter: &Counter, call: Call<'_>) -> Result<(), BackendError> {
        let [counted, _] = self.keys(counter);
        self.eval(&REMOVE, &[counted], Vec::new(), call).await.map(drop)
    }
}

/// A number of a hash.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
