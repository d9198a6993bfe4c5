//! How a session is written into a store: a JSON object of our own.
//!
//! The original writes Perl's Storable there; what can't be read counts as absent.
//!
//! Knows: what a session holds. Must not know: stores.

use super::Session;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The form that is written below; another one can't be read.
const VERSION: u64 = 1;

impl Session {
    /// The session as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let texts = |map: &BTreeMap<Box<str>, String>| -> Map<String, Value> {
            map.iter().map(|(name, text)| (name.to_string(), Value::from(text.as_str()))).collect()
        };
        // As text, since a JSON number may lose the last bit.
        let sums = self.sums.iter().map(|(name, sum)| (name.to_string(), Value::from(sum.to_string())));
        let configured: Vec<_> = self.configured.iter().map(|name| Value::from(name.as_ref())).collect();
        let all = json!({
            "version": VERSION,
            "fields": texts(&self.fields),
            "sums": sums.collect::<Map<_, _>>(),
            "settings": texts(&self.settings),
            "configured": configured,
        });
        all.to_string().into_bytes()
    }

    /// The session that was written so, or `None` if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Session> {
        let all: Value = serde_json::from_slice(bytes).ok()?;
        if all.get("version")?.as_u64()? != VERSION {
            return None;
        }
        let texts = |name: &str| -> Option<BTreeMap<Box<str>, String>> {
            let map = all.get(name)?.as_object()?;
            map.iter().map(|(name, text)| Some((name.as_str().into(), text.as_str()?.to_owned()))).collect()
        };
        let sums = texts("sums")?;
        let sums = sums.into_iter().map(|(name, sum)| Some((name, sum.parse().ok()?)));
        let configured = all.get("configured")?.as_array()?.iter();
        let configured = configured.map(|name| name.as_str().map(Into::into));
        Some(Session {
            fields: texts("fields")?,
            sums: sums.collect::<Option<BTreeMap<_, _>>>()?,
            settings: texts("settings")?,
            configured: configured.collect::<Option<BTreeSet<_>>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Score;

    #[test]
    fn what_is_written_is_read_again() {
        let mut session = Session::default();
        session.configure("limit", "ä \" \u{1} 1");
        session.set_user("limit", "7");
        session.first_time("mark");
        for points in [0.7, 0.1, 1e300, -3.0] {
            session.add_score("score", "c", &Score::from(points));
        }
        assert_eq!(Session::from_bytes(&session.to_bytes()), Some(session));
        assert_eq!(Session::from_bytes(&Session::default().to_bytes()), Some(Session::default()));
    }

    #[test]
    fn what_is_none_of_ours_counts_as_absent() {
        for foreign in [&b""[..], b"pst0\x04\x0b\x08", b"{}", b"{\"version\":2}", b"[1]", b"{\"version\":1}"]
        {
            assert_eq!(Session::from_bytes(foreign), None);
        }
    }
}
