//! What is remembered of one mail between its requests.
//!
//! Knows: text fields, values. Must not know: plugins, where sessions are stored.

pub mod cache;
mod stored;

use crate::value::{Score, numeric_prefix, perl_number};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};

/// The fields of one `instance=`: what SetField set, scores, cached results and once-a-mail marks.
///
/// They share one flat name space with the names of the original, so that ClearFields, Condition and the
/// `uc_` options of an existing configuration find what they name. What a user has chosen is a map of its
/// own: it is found like a field, but no setting can take the place of a score, a result or a mark (D-21 in
/// `docs/differences.md`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    fields: BTreeMap<Box<str>, String>,
    /// The exact sums behind the score fields: what is printed has fifteen digits, and thresholds look at
    /// all.
    sums: BTreeMap<Box<str>, f64>,
    /// What the user's entry in a database or directory says.
    settings: BTreeMap<Box<str>, String>,
    /// The fields that the configuration set, which a later setting of the user goes before.
    configured: BTreeSet<Box<str>>,
}

impl Session {
    /// A field or a setting of the user, or `None` where nothing set it.
    pub fn text(&self, name: &str) -> Option<&str> {
        let field = self.fields.get(name);
        // A setting stands where no field does; set after SetField it goes before what that has set.
        let setting =
            || self.settings.get(name).filter(|_| field.is_none() || self.configured.contains(name));
        setting().or(field).map(String::as_str)
    }

    /// What a plugin found; no setting of the user can change it.
    pub fn result(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// Notes what a plugin found.
    pub fn set(&mut self, field: &str, text: &str) {
        self.sums.remove(field);
        self.configured.remove(field);
        self.fields.insert(field.into(), text.into());
    }

    /// Sets a field as the configuration wants it, whatever the user has chosen before.
    pub fn configure(&mut self, field: &str, text: &str) {
        self.set(field, text);
        self.settings.remove(field);
        self.configured.insert(field.into());
    }

    /// Notes a setting of the user.
    pub fn set_user(&mut self, name: &str, text: &str) {
        self.settings.insert(name.into(), text.into());
    }

    /// Forgets a field.
    pub fn clear(&mut self, field: &str) {
        self.sums.remove(field);
        self.fields.remove(field);
        self.settings.remove(field);
        self.configured.remove(field);
    }

    /// Forgets every field whose name begins with the prefix.
    pub fn clear_prefix(&mut self, prefix: &str) {
        self.sums.retain(|field, _| !field.starts_with(prefix));
        self.fields.retain(|field, _| !field.starts_with(prefix));
        self.settings.retain(|name, _| !name.starts_with(prefix));
        self.configured.retain(|field| !field.starts_with(prefix));
    }

    /// True the first time it is asked about a mark, false ever after in this mail.
    pub fn first_time(&mut self, mark: &str) -> bool {
        self.configured.remove(mark);
        self.fields.insert(mark.into(), "1".into()).is_none()
    }

    /// A score; what is no number counts as Perl counts it.
    pub fn number(&self, field: &str) -> f64 {
        let as_text = || self.result(field).map_or(0.0, |text| numeric_prefix(text.as_bytes()));
        self.sums.get(field).copied().unwrap_or_else(as_text)
    }

    /// A field or a setting of the user as a number; a score is exact.
    pub fn shown_number(&self, name: &str) -> f64 {
        let as_text = || self.text(name).map_or(0.0, |text| numeric_prefix(text.as_bytes()));
        self.sums.get(name).copied().unwrap_or_else(as_text)
    }

    /// Who added what to a score field: `rbl=5, spf=-2`.
    pub fn score_detail(&self, field: &str) -> Option<&str> {
        self.result(&detail_field(field))
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

/// What divides the details of a score for those that read them, in a header or a reply too; and `%`, which
/// stands for it where others wrote it.
const DIVIDERS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'%')
    .add(b'"')
    .add(b'\\')
    .add(b',')
    .add(b';')
    .add(b':')
    .add(b'=')
    .add(b'(')
    .add(b')')
    .add(b'[')
    .add(b']')
    .add(b'<')
    .add(b'>');

/// A text of strangers as part of a name in the details of a score: `%3D` for `=`, so that it can't be taken
/// for more than one name.
pub fn part_of_name(text: &str) -> impl Display {
    utf8_percent_encode(text, DIVIDERS)
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
    fn strangers_write_no_details() {
        let of = |text: &str| part_of_name(text).to_string();
        assert_eq!(of("a.b+c_d@x-y.test"), "a.b+c_d@x-y.test");
        assert_eq!(
            of("a, spf=-99]\r\nX: y (b)\u{fc}%2C@x"),
            "a%2C%20spf%3D-99%5D%0D%0AX%3A%20y%20%28b%29%C3%BC%252C@x"
        );
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
    fn a_users_setting_is_found_but_takes_no_place_of_a_score() {
        let mut session = Session::default();
        session.set_user("score", "7");
        session.set_user("limit", "5");
        assert_eq!((session.text("score"), session.number("score")), (Some("7"), 0.0));
        session.add_score("score", "rbl", &Score::from(2.0));
        assert_eq!((session.text("score"), session.number("score")), (Some("2"), 2.0));
        assert_eq!((session.text("limit"), session.result("limit")), (Some("5"), None));
    }

    #[test]
    fn what_was_set_last_holds_among_settings_of_user_and_configuration() {
        let mut session = Session::default();
        session.set_user("limit", "5");
        session.configure("limit", "6");
        assert_eq!(session.text("limit"), Some("6"));
        session.set_user("limit", "7");
        assert_eq!(session.text("limit"), Some("7"));
        session.clear("limit");
        assert_eq!(session.text("limit"), None);
    }

    #[test]
    fn a_mark_is_new_once() {
        let mut session = Session::default();
        assert!(session.first_time("header"));
        assert!(!session.first_time("header"));
    }
}
