//! Counters in Redis: a hash for each counter, and one beside it for the reservations.
//!
//! Knows: the keys and the scripts. Must not know: requests, plugins.

mod by_hand;

use super::Counter;
use super::amounts::{Amounts, Metric};
use super::reservations::LIFETIME;
use crate::value::numeric_prefix;
use backends::keyvalue::{Redis, Script};
use backends::{BackendError, Call};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Counts, unless it is noted that this attempt has been counted, and removes a reservation. Keys: the
/// counter, its reservations, the note. Arguments: the four amounts, the lifetime in seconds, the
/// reservation.
static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::repeatable(SETTLE_TEXT));
const SETTLE_TEXT: &str = "\
if ARGV[6] ~= '' then redis.call('HDEL', KEYS[2], ARGV[6]) end
if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', 60000) then return 0 end
for i, name in ipairs({'count', 'count_rcpt', 'size', 'size_rcpt'}) do
  redis.call('HINCRBY', KEYS[1], name, ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1";

/// Compares what is counted and reserved with a threshold, and reserves. A reservation is its place in the
/// queue, its end and the four amounts; one that is there already only looks at those before it. Arguments:
/// the reservation, the metric, its place among the four, the threshold, the lifetime, the four amounts,
/// what was counted elsewhere.
static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::repeatable(RESERVE_TEXT));
const RESERVE_TEXT: &str = "\
local now = tonumber(redis.call('TIME')[1])
local mine = redis.call('HGET', KEYS[2], ARGV[1])
local place = mine and tonumber(string.match(mine, '^%d+'))
local used = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or 0) + tonumber(ARGV[10])
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  if all[i] ~= 'place' and all[i] ~= ARGV[1] then
    local numbers = {}
    for number in string.gmatch(all[i + 1], '%d+') do numbers[#numbers + 1] = tonumber(number) end
    if numbers[2] <= now then
      redis.call('HDEL', KEYS[2], all[i])
    elseif not place or numbers[1] < place then
      used = used + numbers[2 + tonumber(ARGV[3])]
    end
  end
end
if used >= tonumber(ARGV[4]) then return 0 end
if not mine then
  place = redis.call('HINCRBY', KEYS[2], 'place', 1)
  local ends = now + tonumber(ARGV[5])
  local text = table.concat({place, ends, ARGV[6], ARGV[7], ARGV[8], ARGV[9]}, ' ')
  redis.call('HSET', KEYS[2], ARGV[1], text)
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return 1";

static READ: LazyLock<Script> =
    LazyLock::new(|| Script::repeatable("return redis.call('HGET', KEYS[1], ARGV[1]) or '0'"));

static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::repeatable("return redis.call('HDEL', KEYS[1], ARGV[1])"));

/// The counters of one field.
pub struct RedisTable {
    redis: Arc<Redis>,
    name: String,
    /// After what time a counter that nobody adds to is forgotten.
    lifetime: Duration,
}

impl RedisTable {
    /// The counters of that name.
    pub fn new(redis: Arc<Redis>, name: &str, lifetime: Duration) -> RedisTable {
        RedisTable { redis, name: name.to_owned(), lifetime }
    }

    /// Counts, and removes the reservation. The same attempt counts once, however often it is made.
    pub async fn settle(
        &self,
        counter: &Counter,
        amounts: &Amounts,
        reservation: Option<&str>,
        attempt: &str,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let mut arguments: Vec<_> = amounts.all().iter().map(i64::to_string).collect();
        arguments.push(self.lifetime.as_secs().to_string());
        arguments.push(reservation.unwrap_or_default().to_owned());
        let [counted, reserved] = self.keys(counter);
        // It has another beginning, so that whoever looks at counters does not meet it.
        let noted = [b"mtpolicyd:noted:", &counted[..], b":", attempt.as_bytes()].concat();
        self.eval(&SETTLE, &[counted, reserved, noted], arguments, call).await.map(drop)
    }

    /// Reserves, unless the threshold has been reached: whether it did.
    pub async fn reserve(
        &self,
        counter: &Counter,
        metric: Metric,
        threshold: i64,
        amounts: &Amounts,
        token: &str,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let mut arguments = vec![
            token.to_owned(),
            metric.to_string(),
            (metric as usize + 1).to_string(),
            threshold.to_string(),
            LIFETIME.as_secs().to_string(),
        ];
        arguments.extend(amounts.all().iter().map(i64::to_string));
        arguments.push(self.read_written(counter, metric, call).await?.to_string());
        let reply = self.eval(&RESERVE, &self.keys(counter), arguments, call).await?;
        Ok(reply.first().is_some_and(|passed| passed == b"1"))
    }

    /// Removes a reservation.
    pub async fn give_back(
        &self,
        counter: &Counter,
        token: &str,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let [_, reserved] = self.keys(counter);
        self.eval(&GIVE_BACK, &[reserved], vec![token.to_owned()], call).await.map(drop)
    }

    /// What has been counted.
    pub async fn read(&self, counter: &Counter, metric: Metric, call: Call<'_>) -> Result<f64, BackendError> {
        let here = self.read_key(&counter.key, counter, metric, call).await?;
        Ok(here + self.read_written(counter, metric, call).await?)
    }

    /// What earlier versions counted under the key as it is written. Only an earlier version adds to it, so
    /// that it may be read by itself; it may be on another node of a cluster.
    async fn read_written(
        &self,
        counter: &Counter,
        metric: Metric,
        call: Call<'_>,
    ) -> Result<f64, BackendError> {
        match &counter.written {
            Some(written) => self.read_key(written, counter, metric, call).await,
            None => Ok(0.0),
        }
    }

    async fn read_key(
        &self,
        key: &str,
        counter: &Counter,
        metric: Metric,
        call: Call<'_>,
    ) -> Result<f64, BackendError> {
        let [counted, _] = self.keys_of(key, counter);
        let reply = self.eval(&READ, &[counted], vec![metric.to_string()], call).await?;
        Ok(numeric_prefix(reply.first().map_or(&b""[..], Vec::as_slice)))
    }

    async fn eval(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        arguments: Vec<String>,
        call: Call<'_>,
    ) -> Result<Vec<Vec<u8>>, BackendError> {
        let arguments: Vec<_> = arguments.into_iter().map(String::into_bytes).collect();
        self.redis.eval(script, keys, &arguments, call).await
    }

    /// The hash of the counter and that of its reservations. What is in braces decides about the node of a
    /// cluster, so both are on the same.
    fn keys(&self, counter: &Counter) -> [Vec<u8>; 2] {
        self.keys_of(&counter.key, counter)
    }

    fn keys_of(&self, key: &str, counter: &Counter) -> [Vec<u8>; 2] {
        let counted = format!("{{{},{},{key}}}", self.name, counter.time);
        let reserved = format!("{counted},reserved");
        [counted.into_bytes(), reserved.into_bytes()]
    }
}
