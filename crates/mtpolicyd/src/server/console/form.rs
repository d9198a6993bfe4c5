//! What a browser sends of a form: `name=value&name=value` (URL Standard, 5.1).
//!
//! Knows: percent signs, plus signs. Must not know: which forms there are.

use crate::server::control::{Problem, path_segment};
use percent_encoding::percent_decode_str;

/// Fields that one form may have.
const MAX_FIELDS: usize = 64;

/// The fields of a form, or of what stands behind a question mark.
#[derive(Clone, Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads them; those without a value are left out, as browsers send every field of a form.
    pub fn parse(text: &str) -> Result<Form, Problem> {
        let mut fields = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            let value = value.trim();
            if !value.is_empty() {
                fields.push((decode(name)?, value.to_owned()));
            }
            if fields.len() > MAX_FIELDS {
                return Err(Problem::bad(format!("a form has at most {MAX_FIELDS} fields")));
            }
        }
        Ok(Form(fields))
    }

    /// The first value of a field; empty if it has none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Whether a field has a value.
    pub fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// The same with another value for one field, or without it if that is empty.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Form {
        let mut fields = self.0.clone();
        fields.retain(|(known, _)| known != name);
        if !value.is_empty() {
            fields.push((name.to_owned(), value.to_owned()));
        }
        Form(fields)
    }

    /// As a query.
    pub fn query(&self) -> String {
        let pairs =
            self.0.iter().map(|(name, value)| format!("{}={}", path_segment(name), path_segment(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned);
    decoded.map_err(|_| Problem::bad("a field is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_written() {
        let form = Form::parse("from=a%2Bb%40x.test&to=&text=two+words&&failed").unwrap();
        assert_eq!((form.get("from"), form.get("text"), form.has("to")), ("a+b@x.test", "two words", false));
        assert_eq!(form.query(), "from=a%2Bb%40x.test&text=two%20words");
        assert_eq!(form.with("from", "").with("text", "c d").query(), "text=c%20d");
        assert!(Form::parse("a=%ff").is_err());
        assert!(Form::parse(&"a=b&".repeat(MAX_FIELDS + 1)).is_err());
    }
}
