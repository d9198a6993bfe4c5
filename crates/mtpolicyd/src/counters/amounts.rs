//! What one request adds to the counters.
//!
//! Knows: attributes of the policy protocol. Must not know: where counters are kept.

use crate::value::{numeric_prefix, words};
use postfix_policy::Request;

words! {
    /// What is counted.
    pub enum Metric {
        /// Messages.
        Count = "count",
        /// Messages times recipients.
        CountRcpt = "count_rcpt",
        /// Bytes.
        Size = "size",
        /// Bytes times recipients.
        SizeRcpt = "size_rcpt",
    }
}

impl Metric {
    /// All of them, in the order of their columns.
    pub const ALL: [Metric; 4] = [Metric::Count, Metric::CountRcpt, Metric::Size, Metric::SizeRcpt];
}

/// What one request adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    recipients: i64,
    size: i64,
}

/// The largest mail that is believed, in bytes (64 GiB), and the most recipients: with both at once a counter
/// of 64 bits still has room for a hundred messages.
const MAX_SIZE: f64 = (1u64 << 36) as f64;
const MAX_RECIPIENTS: f64 = 1e6;

impl Amounts {
    /// What the request says. A size that is missing is 0, a number of recipients that is missing or 0 (as
    /// Postfix sends it before DATA) is 1.
    pub fn of(request: &Request) -> Amounts {
        let number = |name| request.get(name).map_or(0.0, numeric_prefix);
        // The cast takes what is not a number for 0.
        let recipients = number("recipient_count").clamp(1.0, MAX_RECIPIENTS) as i64;
        let size = number("size").clamp(0.0, MAX_SIZE) as i64;
        Amounts { recipients: recipients.max(1), size }
    }

    /// What is added to one of the numbers.
    pub fn of_metric(&self, metric: Metric) -> i64 {
        match metric {
            Metric::Count => 1,
            Metric::CountRcpt => self.recipients,
            Metric::Size => self.size,
            Metric::SizeRcpt => self.size * self.recipients,
        }
    }

    /// What is added to each of the numbers, in the order of their columns.
    pub fn all(&self) -> [i64; 4] {
        Metric::ALL.map(|metric| self.of_metric(metric))
    }
}

/// What a number means less than it seems at the stage of the request, if so: Postfix knows the recipients
/// from DATA on and the true size at the end of the message.
pub fn unknown_yet(metric: Metric, request: &Request) -> Option<&'static str> {
    unknown_at(metric, request.get("protocol_state")?)
}

/// The same at a stage.
pub fn unknown_at(metric: Metric, state: &[u8]) -> Option<&'static str> {
    let recipients_known = matches!(state, b"DATA" | b"END-OF-MESSAGE");
    match metric {
        Metric::CountRcpt | Metric::SizeRcpt if !recipients_known => Some(
            "the number of recipients is known from DATA on; before it each request counts as one recipient",
        ),
        Metric::Size | Metric::SizeRcpt if state != b"END-OF-MESSAGE" => {
            Some("the size is known at END-OF-MESSAGE; before it is what the client announces, or 0")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(size: &str, recipients: &str) -> [i64; 4] {
        let pairs = [("size", size), ("recipient_count", recipients)];
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Amounts::of(&Request::from_pairs(pairs).unwrap()).all()
    }

    #[test]
    fn what_is_missing_counts_as_one_mail_for_one_recipient_without_size() {
        assert_eq!(amounts("100", "3"), [1, 3, 100, 300]);
        assert_eq!(amounts("", ""), [1, 1, 0, 0]);
        assert_eq!(amounts("100", "0"), [1, 1, 100, 100]);
        assert_eq!(amounts("-5", "-5"), [1, 1, 0, 0]);
        assert_eq!(amounts("nan", "nan"), [1, 1, 0, 0]);
        assert_eq!(amounts("1e300", "1e300"), [1, 1_000_000, 1 << 36, 1_000_000 << 36]);
    }

    #[test]
    fn numbers_that_postfix_does_not_know_yet_are_told() {
        let unknown = |metric, state: &str| {
            let request = Request::from_pairs([(&b"protocol_state"[..], state.as_bytes())]).unwrap();
            unknown_yet(metric, &request).is_some()
        };
        assert!(unknown(Metric::CountRcpt, "RCPT") && unknown(Metric::SizeRcpt, "DATA"));
        assert!(unknown(Metric::Size, "RCPT") && !unknown(Metric::Count, "RCPT"));
        assert!(!Metric::ALL.iter().any(|metric| unknown(*metric, "END-OF-MESSAGE")));
    }
}
