//! Counts in Redis: one script, by the time of the server, so that the clocks of the daemons do not matter.
//!
//! Knows: the script, its reply. Must not know: what the limit is for.

use super::state::{Demand, Fill, State, Taken};
use super::{Edit, PREFIX};
use backends::keyvalue::{Redis, Script};
use backends::{BackendError, Call, Failure};
use std::sync::LazyLock;

/// The script; its head says what it wants and returns.
pub static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::repeatable(include_str!("take.lua")));
/// The same where nothing tells that an attempt has been counted already.
static UNNOTED: LazyLock<Script> = LazyLock::new(|| Script::once(include_str!("take.lua")));

/// The first argument of the script for the time of the server.
const SERVER_TIME: i64 = 0;

/// See `Counts::take`.
pub async fn take(
    redis: &Redis,
    key: &str,
    demand: Demand<'_>,
    attempt: &str,
    call: Call<'_>,
) -> Result<Taken, BackendError> {
    // One key holds all limits, so a cluster has them on one node.
    let mut keys = vec![format!("{PREFIX}{key}").into_bytes()];
    keys.extend(redis.beside(&keys[0], attempt));
    let script = if keys.len() > 1 { &SCRIPT } else { &UNNOTED };
    let reply = redis.eval(script, &keys, &arguments(demand, SERVER_TIME), call).await?;
    read(&reply, demand).ok_or_else(|| BackendError {
        connection: redis.name().into(),
        failure: Failure::Refused("the script that counts answered something else".to_owned()),
    })
}

/// Replaces a state that is still the same. Arguments: the state, the new one or nothing, and its lifetime in
/// milliseconds.
static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::once(REPLACE_TEXT));
const REPLACE_TEXT: &str = "\
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1";

/// How often a change is begun anew when requests are counted meanwhile.
const MAX_TRIES: usize = 50;

/// See `Counts::edit`.
pub(super) async fn edit(
    redis: &Redis,
    key: &str,
    edits: &[Edit],
    now: i64,
    call: Call<'_>,
) -> Result<(), BackendError> {
    let key = format!("{PREFIX}{key}").into_bytes();
    for _ in 0..MAX_TRIES {
        let held = redis.get(&key, call).await?.unwrap_or_default();
        let mut state = State::decode(&held);
        state.apply(edits, now);
        let (text, life) = (state.encode().into_bytes(), state.life().as_millis().max(1).to_string());
        let replaced =
            redis.eval(&REPLACE, std::slice::from_ref(&key), &[held, text, life.into_bytes()], call).await?;
        if replaced.first().is_some_and(|done| done == b"1") {
            return Ok(());
        }
    }
    let failure = Failure::Refused("the counts change faster than they can be changed by hand".to_owned());
    Err(BackendError { connection: redis.name().into(), failure })
}

/// What the script wants to know.
pub fn arguments(demand: Demand<'_>, now: i64) -> Vec<Vec<u8>> {
    let anyway = u8::from(demand.passes_anyway).to_string();
    let mut arguments = [now.to_string(), demand.amount.to_string(), anyway].map(String::into_bytes).to_vec();
    for rule in demand.rules {
        arguments.push(rule.name.clone().into_bytes());
        let numbers = [rule.life, rule.leak, rule.scale, rule.capacity, rule.grain];
        arguments.extend(numbers.map(|number| number.to_string().into_bytes()));
    }
    arguments
}

/// What the script answered.
pub fn read(reply: &[Vec<u8>], demand: Demand<'_>) -> Option<Taken> {
    let [passed, now, state, said @ ..] = reply else { return None };
    let (passed, now) = (passed == b"1", std::str::from_utf8(now).ok()?.parse().ok()?);
    let notices = said.iter().map(|text| read_notice(text)).collect::<Option<_>>()?;
    Some(Taken { notices, ..State::decode(state).judge(demand, now, passed) })
}

fn read_notice(text: &[u8]) -> Option<(usize, Fill)> {
    let (rule, slot) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let slot: i64 = slot.parse().ok()?;
    let fill = [Fill::Nearly, Fill::Full].into_iter().find(|fill| fill.slot() == slot)?;
    Some((rule.parse().ok()?, fill))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Algorithm, Rates};
    use crate::value::Value;

    #[test]
    fn a_reply_is_read() {
        let rules = Rates::parse("2/1h, 9/1d").unwrap().rules(Algorithm::Window);
        let demand = Demand { rules: &rules, amount: 1, passes_anyway: false };
        let reply = |texts: &[&str]| -> Vec<Vec<u8>> { texts.iter().map(|text| (*text).into()).collect() };
        let texts = ["0", "5000", "w3600000=1000:1000:2,-100:5000:0 w86400000=1000:1000:2", "0:-100"];
        let taken = read(&reply(&texts), demand).unwrap();
        assert_eq!((taken.passed, &taken.notices[..]), (false, &[(0, Fill::Full)][..]));
        let usage: Vec<_> = taken.usage.iter().map(|u| (u.count, u.retry_after.as_secs())).collect();
        assert_eq!(usage, [(2, 3596), (2, 0)]);
        for bad in [&["1"][..], &["1", "x", ""], &["1", "5", "", "0:1"], &["1", "5", "", "x"]] {
            assert_eq!(read(&reply(bad), demand), None, "{bad:?}");
        }
    }
}
