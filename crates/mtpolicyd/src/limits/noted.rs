//! How it is noted what came of a request, so that it can be replayed.
//!
//! Knows: demands, what comes of them. Must not know: where counts are kept.

use super::{Demand, Taken, Usage};
use backends::BackendError;
use backends::replay::{self, DETAIL};
use std::fmt::Write;
use std::time::Duration;

/// What a request wants: the limits that hold for it, as far as they make a difference, and how much.
pub(super) fn question(key: &str, demand: Demand<'_>) -> String {
    let mut text = format!("count {key}{DETAIL}{}", demand.amount);
    for rule in demand.rules {
        // Writing to a string does not fail.
        let _ = write!(text, " {}/{}", rule.capacity / rule.scale.max(1), rule.name);
    }
    if demand.passes_anyway {
        text.push_str(" anyway");
    }
    text
}

/// Whether it passes, and how each limit stands: its count, and for how long there is no room.
pub(super) fn answer(taken: &Taken) -> String {
    let mut text = if taken.passed { "passed" } else { "exceeded" }.to_owned();
    for usage in &taken.usage {
        let _ = write!(text, ", {} {}ms", usage.count, usage.retry_after.as_millis());
    }
    text
}

/// Reads it back; `None` if it is not one.
pub(super) fn read(store: &str, answer: &str) -> Option<Result<Taken, BackendError>> {
    if let Some(error) = replay::failure(store, answer) {
        return Some(Err(error));
    }
    let mut parts = answer.split(", ");
    let passed = match parts.next()? {
        "passed" => true,
        "exceeded" => false,
        _ => return None,
    };
    let usage = parts.map(|part| {
        let (count, wait) = part.strip_suffix("ms")?.split_once(' ')?;
        let retry_after = Duration::from_millis(wait.parse().ok()?);
        Some(Usage { count: count.parse().ok()?, retry_after })
    });
    Some(Ok(Taken { passed, usage: usage.collect::<Option<_>>()?, notices: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_request_is_read_back() {
        let usage = vec![
            Usage { count: 3, retry_after: Duration::ZERO },
            Usage { count: 9, retry_after: Duration::from_millis(61_500) },
        ];
        for passed in [true, false] {
            let taken = Taken { passed, usage: usage.clone(), notices: Vec::new() };
            assert_eq!(read("memory", &answer(&taken)).unwrap().unwrap(), taken);
        }
        assert!(read("memory", "failed: connection memory: no").unwrap().is_err());
        assert!(read("memory", "other").is_none());
    }
}
