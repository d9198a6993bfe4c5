//! What is remembered of one mail between its requests.
//!
//! Knows: text fields, values. Must not know: plugins, where sessions are stored.

pub mod cache;

use crate::value::{Score, numeric_prefix, perl_number};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The fields of one `instance=`: what SetField set, scores, cached results and once-a-mail marks.
///
/// They share one flat name space with the names of the original, so that ClearFields, Condition and the
/// `uc_` options of an existing configuration find what they name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    fields: BTreeMap<Box<str>, String>,
    /// The exact sums behind the score fields: what is printed has fifteen digits, and thresholds look at
    /// all.
    sums: BTreeMap<Box<str>, f64>,
}

impl Session {
    /// A field, or `None` where nothing set it.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// Sets a field, whatever it held.
    pub fn set(&mut self, field: &str, text: &str) {
        self.sums.remove(field);
        self.fields.insert(field.into(), text.into());
    }

    /// Forgets a field.
    pub fn clear(&mut self, field: &str) {
        self.sums.remove(field);
        self.fields.remove(field);
    }

    /// Forgets every field whose name begins with the prefix.
    pub fn clear_prefix(&mut self, prefix: &str) {
        self.sums.retain(|field, _| !field.starts_with(prefix));
        self.fields.retain(|field, _| !field.starts_with(prefix));
    }

    /// True the first time it is asked about a mark, false ever after in this mail.
    pub fn first_time(&mut self, mark: &str) -> bool {
        self.fields.insert(mark.into(), "1".into()).is_none()
    }

    /// A field as a number, such as the sum of a score; what is no number counts as Perl counts it.
    pub fn number(&self, field: &str) -> f64 {
        let as_text = || self.text(field).map_or(0.0, |text| numeric_prefix(text.as_bytes()));
        self.sums.get(field).copied().unwrap_or_else(as_text)
    }

    /// Who added what to a score field: `rbl=5, spf=-2`.
    pub fn score_detail(&self, field: &str) -> Option<&str> {
        self.text(&detail_field(field))
    }

    /// Adds to a score field and notes who added it.
    pub fn add_score(&mut self, field: &str, who: &str, score: &Score) {
        let sum = self.number(field) + score.points();
        self.set(field, &perl_number(sum));
        self.sums.insert(field.into(), sum);
        let notes = self.fields.entry(detail_field(field).into()).or_default();
        let comma = if notes.is_empty() { "" } else { ", " };
        let _ = write!(notes, "{comma}{who}={score}");
    }
}

fn detail_field(field: &str) -> String {
    format!("{field}_detail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn scores_add_up_and_say_who_added_them() {
        let mut session = Session::default();
        for (who, points) in [("rbl", "7.50"), ("spf", "-2")] {
            session.add_score("score", who, &Score::parse(points).unwrap());
        }
        assert_eq!(session.text("score"), Some("5.5"));
        assert_eq!(session.score_detail("score"), Some("rbl=7.50, spf=-2"));
    }

    #[test]
    fn a_score_can_be_set_and_cleared_like_any_field() {
        let mut session = Session::default();
        session.set("score", "6");
        session.add_score("score", "c", &Score::from(1.0));
        assert_eq!(session.number("score"), 7.0);
        session.clear("score");
        assert_eq!(session.number("score"), 0.0);
        assert_eq!(session.score_detail("score"), Some("c=1"));
        session.clear_prefix("score");
        assert_eq!(session.score_detail("score"), None);
    }

    #[test]
    fn a_sum_is_exact_though_fifteen_digits_are_shown() {
        let mut session = Session::default();
        for points in [0.7, 0.1] {
            session.add_score("score", "c", &Score::from(points));
        }
        assert_eq!(session.text("score"), Some("0.8"));
        assert!(session.number("score") < 0.8);
        session.add_score("score", "c", &Score::from(-0.8));
        assert_eq!(session.text("score"), Some("-1.11022302462516e-16"));
        session.set("score", "0.8");
        assert_eq!(session.number("score"), 0.8);
    }

    #[test]
    fn a_mark_is_new_once() {
        let mut session = Session::default();
        assert!(session.first_time("header"));
        assert!(!session.first_time("header"));
    }
}
