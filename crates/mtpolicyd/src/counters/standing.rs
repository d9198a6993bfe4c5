//! How full a counter is, told as an event.
//!
//! Knows: counters, thresholds, events. Must not know: where counters are kept, plugins.

use super::sql::Numbers;
use super::{Counter, Metric, TimePattern};
use crate::events::{Events, Fill, LimitKind, LimitUse, Until};
use std::sync::Arc;

/// Whom to tell of a counter, and by which threshold.
pub struct Standing {
    /// Where it is told.
    pub events: Arc<Events>,
    /// The plugin whose threshold it is.
    pub plugin: Arc<str>,
    /// What is compared.
    pub metric: Metric,
    /// With what.
    pub threshold: i64,
    /// How the period of the counter is written.
    pub pattern: TimePattern,
}

impl Standing {
    /// The counter has reached the threshold, as far as it matters to a request.
    pub fn tell_reached(&self, counter: &Counter) {
        let limit = self.limit(counter);
        self.events.limit_filled(Fill::Reached, &self.used(counter, &limit, ""), || self.until(counter));
    }

    /// The request was counted: what the counter stands at.
    pub(super) fn tell_counted(&self, counter: &Counter, numbers: &Numbers) {
        self.tell(counter, numbers[self.metric as usize]);
    }

    /// The counter stands at this.
    pub fn tell(&self, counter: &Counter, number: i64) {
        let percent = i128::from(number) * 100 / i128::from(self.threshold.max(1));
        if percent < 80 && !self.events.is_any_limit_filled() {
            return;
        }
        let (limit, count) = (self.limit(counter), number.to_string());
        let used = self.used(counter, &limit, &count);
        let until = || self.until(counter);
        match percent {
            ..80 => {
                let percent = u64::try_from(percent).unwrap_or_default();
                self.events.limit_stands(percent, &used, until);
            }
            80..100 => self.events.limit_filled(Fill::Near, &used, until),
            _ => self.events.limit_filled(Fill::Reached, &used, until),
        }
    }

    fn used<'a>(&'a self, counter: &'a Counter, limit: &'a str, count: &'a str) -> LimitUse<'a> {
        LimitUse { kind: LimitKind::Quota, plugin: &self.plugin, key: &counter.key, limit, count }
    }

    /// The threshold in words: `1000 messages in 2026-12`.
    fn limit(&self, counter: &Counter) -> String {
        let what = match self.metric {
            Metric::Count => "messages",
            Metric::CountRcpt => "recipients",
            Metric::Size => "bytes",
            Metric::SizeRcpt => "bytes times recipients",
        };
        format!("{} {what} in {}", self.threshold, counter.time)
    }

    fn until(&self, counter: &Counter) -> Until {
        Until::Period { pattern: self.pattern.to_string(), text: counter.time.clone() }
    }
}
