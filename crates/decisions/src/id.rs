//! The identifiers of decisions: ordered by time, short enough for the telephone.
//!
//! Knows: clocks, Crockford's base 32. Must not know: what a decision is.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z in seconds of UNIX time, the first moment that has an identifier.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);
/// Bits of the number within a hundredth of a second.
const COUNTER_BITS: u32 = 10;
/// Bits of the number of the daemon.
const NODE_BITS: u32 = 4;
/// Bits of the hundredths of seconds: enough until 2047.
const TIME_BITS: u32 = 36;
/// The largest number of a daemon.
pub const MAX_NODE: u8 = (1 << NODE_BITS) - 1;

const CHARACTERS: usize = 10;
/// Without I, L, O and U (<https://www.crockford.com/base32.html>).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The identifier of a decision, written as `9F3KQ-2M7TX`: 36 bits of hundredths of a second since 2026,
/// 4 bits that tell daemons apart, 10 bits that count. From one daemon, later decisions have larger
/// identifiers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DecisionId(u64);

/// Why a text is not the identifier of a decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the identifier of a decision, which looks like 9F3KQ-2M7TX")]
pub struct IdError(String);

impl DecisionId {
    /// Stands where there is none, such as in an explanation. The first moment would have it, which is over.
    pub const NONE: DecisionId = DecisionId(0);

    /// Whether it stands where there is none.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub fn is_none(&self) -> bool {
        *self == DecisionId::NONE
    }

    /// The identifier with this number; bits that no identifier has are dropped.
    pub const fn from_number(number: u64) -> DecisionId {
        DecisionId(number & ((1 << (TIME_BITS + NODE_BITS + COUNTER_BITS)) - 1))
    }

    /// Its number; the order of numbers is that of time.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// When it was made, in hundredths of a second.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + EPOCH + Duration::from_millis((self.0 >> (NODE_BITS + COUNTER_BITS)) * 10)
    }

    /// The daemon that made it.
    pub fn node(self) -> u8 {
        u8::try_from(self.0 >> COUNTER_BITS & u64::from(MAX_NODE)).unwrap_or_default()
    }

    /// The smallest identifier that can have been made at this time or later.
    pub fn first_at(time: SystemTime) -> DecisionId {
        DecisionId::from_number(hundredths(time) << (NODE_BITS + COUNTER_BITS))
    }

    /// The same, as a mistake of typing may have it: letters of any case, `I` and `L` for 1, `O` for 0.
    fn read(text: &str) -> Option<u64> {
        let mut number = 0;
        let mut characters = 0;
        for byte in text.trim().bytes().filter(|byte| *byte != b'-') {
            let digit = match byte.to_ascii_uppercase() {
                b'I' | b'L' => 1,
                b'O' => 0,
                other => ALPHABET.iter().position(|known| *known == other)?,
            };
            number = number << 5 | u64::try_from(digit).ok()?;
            characters += 1;
            if characters > CHARACTERS {
                return None;
            }
        }
        (characters == CHARACTERS).then_some(number)
    }
}

/// Hundredths of a second since 2026; what is before or after is the first or the last.
fn hundredths(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis() / 10).unwrap_or(u64::MAX).min((1 << TIME_BITS) - 1)
}

impl DecisionId {
    /// As it is written, in ASCII.
    pub fn to_ascii(self) -> [u8; CHARACTERS + 1] {
        let mut text = [b'-'; CHARACTERS + 1];
        let mut rest = self.0;
        for place in (0..=CHARACTERS).rev().filter(|place| *place != CHARACTERS / 2) {
            text[place] = ALPHABET[usize::try_from(rest & 31).unwrap_or_default()];
            rest >>= 5;
        }
        text
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(str::from_utf8(&self.to_ascii()).unwrap_or_default())
    }
}

impl FromStr for DecisionId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<DecisionId, IdError> {
        DecisionId::read(text).map(DecisionId).ok_or_else(|| IdError(text.to_owned()))
    }
}

impl TryFrom<String> for DecisionId {
    type Error = IdError;
    fn try_from(text: String) -> Result<DecisionId, IdError> {
        text.parse()
    }
}

impl From<DecisionId> for String {
    fn from(id: DecisionId) -> String {
        id.to_string()
    }
}

/// Makes the identifiers of one daemon.
#[derive(Debug)]
pub struct Ids {
    node: u64,
    /// Time and counter of the last one.
    last: AtomicU64,
}

impl Ids {
    /// Those of the daemon with this number, from 0 to [`MAX_NODE`].
    pub fn new(node: u8) -> Ids {
        Ids { node: u64::from(node.min(MAX_NODE)), last: AtomicU64::new(0) }
    }

    /// The next one. It is larger than all before, also when the clock was set back; a burst of more than
    /// 1,024 in a hundredth of a second borrows from the next.
    pub fn next(&self, now: SystemTime) -> DecisionId {
        let now = hundredths(now) << COUNTER_BITS;
        let next = |last: u64| now.max(last + 1);
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        let number = next(last.unwrap_or_else(|last| last));
        let (time, counter) = (number >> COUNTER_BITS, number & ((1 << COUNTER_BITS) - 1));
        DecisionId::from_number((time << NODE_BITS | self.node) << COUNTER_BITS | counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + EPOCH + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_identifier_survives_the_telephone() {
        let id = Ids::new(3).next(at(123_456_789_120));
        let text = id.to_string();
        assert_eq!((text.len(), &text[5..6]), (11, "-"));
        for spelling in [text.clone(), text.to_lowercase(), text.replace('-', ""), format!(" {text}\n")] {
            assert_eq!(spelling.parse(), Ok(id), "{spelling}");
        }
        assert_eq!("0000o-oooil".parse(), Ok(DecisionId::from_number(33)));
        for wrong in ["", "9F3KQ", "9F3KQ-2M7TXX", "9F3KQ-2M7TU", "9F3KQ-2M7Tä"] {
            assert_eq!(wrong.parse::<DecisionId>(), Err(IdError(wrong.to_owned())));
        }
    }

    #[test]
    fn it_says_when_and_where_it_was_made() {
        let id = Ids::new(15).next(at(98_765_432_198));
        assert_eq!((id.time(), id.node()), (at(98_765_432_190), 15));
        assert!(
            DecisionId::first_at(at(98_765_432_190)) <= id && id < DecisionId::first_at(at(98_765_432_200))
        );
        assert_eq!(DecisionId::first_at(UNIX_EPOCH).number(), 0);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }

    #[test]
    fn identifiers_rise_whatever_the_clock_does() {
        let ids = Ids::new(1);
        let mut last = ids.next(at(5_000));
        for n in 0..3_000 {
            let next = ids.next(at(if n % 2 == 0 { 4_000 } else { 5_000 }));
            assert!(next > last);
            last = next;
        }
        assert_eq!(last.time(), at(5_020));
        assert_eq!(ids.next(at(6_000)).time(), at(6_000));
    }
}
