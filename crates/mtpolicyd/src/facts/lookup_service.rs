//! The answer of a service that is asked about a message: what to do with it, points, settings of a user.
//!
//! Knows: its members. Must not know: how the service is asked, plugins.

use super::json::{Object, read_object, scalar_text};
use serde_json::Value;

/// The longest answer that is read, in bytes. The session takes the settings in it along to a shared cache at
/// every request.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The longest action, in bytes: Postfix breaks longer lines (`line_length_limit`).
const MAX_ACTION_BYTES: usize = 2048;

/// Maximum number of unknown members to name.
const MAX_UNKNOWN: usize = 10;

/// The longest name of such a member, in characters.
const MAX_UNKNOWN_CHARS: usize = 60;

/// What a service says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookupAnswer {
    /// What to tell Postfix.
    pub action: Option<String>,
    /// Points for or against the message.
    pub score: Option<f64>,
    /// Settings of a user, each with its text.
    pub user: Vec<(String, String)>,
    /// The members that mean nothing here.
    pub unknown: Vec<String>,
}

impl LookupAnswer {
    /// Reads an answer whole, or says what is wrong with it: nothing of it holds then.
    pub fn read(body: &[u8]) -> Result<LookupAnswer, String> {
        let mut answer = LookupAnswer::default();
        for (name, value) in read_object(body, MAX_ANSWER_BYTES)? {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("action", Value::String(action)) if action.len() > MAX_ACTION_BYTES => {
                    return Err(format!("`action` is longer than {MAX_ACTION_BYTES} bytes"));
                }
                ("action", Value::String(action)) => {
                    // For Postfix an empty action is a permission, which nobody means by it.
                    answer.action = Some(action).filter(|action| !action.trim().is_empty());
                }
                ("score", Value::Number(score)) => answer.score = score.as_f64(),
                ("user", Value::Object(settings)) => answer.user = texts(settings)?,
                ("action", _) => return Err("`action` is not a string".to_owned()),
                ("score", _) => return Err("`score` is not a number".to_owned()),
                ("user", _) => return Err("`user` is not an object".to_owned()),
                _ if answer.unknown.len() < MAX_UNKNOWN => {
                    answer.unknown.push(name.chars().take(MAX_UNKNOWN_CHARS).collect());
                }
                _ => {}
            }
        }
        Ok(answer)
    }

    /// How much memory it takes, about.
    pub fn size(&self) -> usize {
        let texts = self.user.iter().map(|(name, text)| name.len() + text.len() + 2 * size_of::<String>());
        let action = self.action.as_ref().map_or(0, String::len);
        let unknown = self.unknown.iter().map(|name| name.len() + size_of::<String>());
        size_of::<LookupAnswer>() + action + texts.sum::<usize>() + unknown.sum::<usize>()
    }
}

fn texts(settings: Object) -> Result<Vec<(String, String)>, String> {
    let set = settings.into_iter().filter(|(_, value)| !value.is_null());
    let text = |(name, value)| match scalar_text(&value) {
        Some(text) => Ok((name, text)),
        None => Err("a setting in `user` is nested".to_owned()),
    };
    set.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<LookupAnswer, String> {
        LookupAnswer::read(body.as_bytes())
    }

    #[test]
    fn an_answer_has_what_it_has() {
        let answer = read(
            r#"{"action": "reject no", "score": -2.5, "user": {"mode": "passive", "limit": 5, "on": true,
                "none": null}}"#,
        )
        .unwrap();
        assert_eq!((answer.action.as_deref(), answer.score), (Some("reject no"), Some(-2.5)));
        let user: Vec<_> = answer.user.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(user, [("limit", "5"), ("mode", "passive"), ("on", "1")]);
        for nothing in ["{}", r#"{"action": null, "score": null, "user": null}"#, r#"{"action": " "}"#] {
            assert_eq!(read(nothing).unwrap(), LookupAnswer::default(), "{nothing}");
        }
    }

    #[test]
    fn a_wrong_type_anywhere_leaves_nothing() {
        for (body, why) in [
            (r#"{"score": 1, "action": 5}"#, "`action` is not a string"),
            (r#"{"action": "ok", "score": "2"}"#, "`score` is not a number"),
            (r#"{"score": true}"#, "`score` is not a number"),
            (r#"{"user": []}"#, "`user` is not an object"),
            (r#"{"user": {"a": 1, "b": {}}}"#, "a setting in `user` is nested"),
            (r#"[{"action": "ok"}]"#, "this is not a JSON object"),
            (r#"{"action": "ok"} x"#, "this is not JSON"),
            (r#"{"score": 1e999}"#, "this is not JSON"),
            ("", "this is not JSON"),
            ("<html>", "this is not JSON"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.starts_with(why), "{body}: {error}");
        }
        assert!(read(&format!("{{\"action\": \"{}\"}}", "x".repeat(MAX_ACTION_BYTES))).is_ok());
        assert!(read(&format!("{{\"action\": \"{}\"}}", "x".repeat(MAX_ACTION_BYTES + 1))).is_err());
        assert!(LookupAnswer::read(b"{\"action\": \"\xff\"}").is_err());
        assert!(read(&"[".repeat(MAX_ANSWER_BYTES)).is_err());
        assert!(read(&format!("{{\"action\": \"{}\"}}", "x".repeat(MAX_ANSWER_BYTES))).is_err());
    }

    #[test]
    fn members_that_mean_nothing_are_named_but_not_all_of_them() {
        let answer = read(r#"{"acton": "reject", "score": 1}"#).unwrap();
        assert_eq!((answer.unknown, answer.score), (vec!["acton".to_owned()], Some(1.0)));
        let many: Vec<_> = (0..1000).map(|n| format!("\"{n}{}\": 1", "x".repeat(20))).collect();
        let answer = read(&format!("{{{}}}", many.join(","))).unwrap();
        assert_eq!(answer.unknown.len(), MAX_UNKNOWN);
    }
}
