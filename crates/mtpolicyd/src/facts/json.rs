//! JSON that others have written.
//!
//! Knows: JSON (RFC 8259), how Perl shows its values. Must not know: what it is about.

use crate::value::perl_number;
use serde_json::Value;

/// The members of an object.
pub type Object = serde_json::Map<String, Value>;

/// Reads an object of at most `max_bytes`. The error describes what is wrong with the text, but shows nothing
/// of it.
pub fn read_object(text: &[u8], max_bytes: usize) -> Result<Object, String> {
    if text.len() > max_bytes {
        return Err(format!("it is longer than {max_bytes} bytes"));
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("this is not a JSON object".to_owned()),
        Err(error) => Err(format!("this is not JSON: {error}")),
    }
}

/// A value as the text that Perl shows for it; `None` for `null` and what is nested.
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(if *truth { "1" } else { "0" }.to_owned()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        Value::Number(number) => number.as_f64().map(perl_number),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
