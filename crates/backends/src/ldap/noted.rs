//! How entries of a directory are noted, and read back for a replay.
//!
//! Knows: entries. Must not know: what they are for.

#![cfg_attr(not(feature = "ldap"), allow(dead_code, reason = "there is no directory to ask"))]

use super::Entry;
use crate::BackendError;
use crate::replay::{self, MAX_SHOWN_BYTES, Part, Replay, parts, push_part};
use lookups::LookupKind;

/// What stands before the entries.
const ENTRIES: &str = "entries: ";

/// The entries, if they are short: the name and the attributes of each, with their values.
pub(super) fn entries(found: &[Entry]) -> String {
    let mut text = format!("{ENTRIES}{}", found.len());
    let size = |entry: &Entry| {
        let values = entry
            .attributes
            .iter()
            .map(|(name, values)| name.len() + values.iter().map(String::len).sum::<usize>());
        entry.dn.len() + values.sum::<usize>()
    };
    if found.is_empty() || found.iter().map(size).sum::<usize>() > MAX_SHOWN_BYTES {
        return text;
    }
    text.push(':');
    let value = |value: &str| Part::Value(value.as_bytes().to_vec());
    for (number, entry) in found.iter().enumerate() {
        if number > 0 {
            push_part(&mut text, &Part::Divider(b'|'));
        }
        push_part(&mut text, &value(&entry.dn));
        for (name, values) in &entry.attributes {
            push_part(&mut text, &Part::Divider(b';'));
            push_part(&mut text, &value(name));
            values.iter().for_each(|one| push_part(&mut text, &value(one)));
        }
    }
    text
}

/// What was recorded of a search.
pub(super) fn replayed(replay: &Replay, name: &str, question: &str) -> Result<Vec<Entry>, BackendError> {
    let Some(answer) = replay.answer(LookupKind::Ldap, name, question) else {
        replay.miss(format!("directory {name}"));
        return Ok(Vec::new());
    };
    if let Some(error) = replay::failure(name, &answer) {
        return Err(error);
    }
    read(&answer).ok_or_else(|| {
        replay.miss(format!("the entries of directory {name}"));
        replay::not_asked(name)
    })
}

fn read(answer: &str) -> Option<Vec<Entry>> {
    let text = answer.strip_prefix(ENTRIES)?;
    let Some((_, text)) = text.split_once(':') else { return (text == "0").then(Vec::new) };
    let all = parts(text)?;
    all.split(|part| *part == Part::Divider(b'|')).map(entry).collect()
}

fn entry(parts: &[Part]) -> Option<Entry> {
    let mut lists = parts.split(|part| *part == Part::Divider(b';')).map(|list| {
        let texts = list.iter().map(|part| match part {
            Part::Value(value) => String::from_utf8(value.clone()).ok(),
            Part::Null | Part::Divider(_) => None,
        });
        texts.collect::<Option<Vec<_>>>()
    });
    let dn = lists.next()??.pop()?;
    let attribute = |list: Option<Vec<String>>| {
        let mut list = list?.into_iter();
        Some((list.next()?, list.collect()))
    };
    Some(Entry { dn, attributes: lists.map(attribute).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back() {
        let attributes = [("mailMode".to_owned(), vec!["a b".to_owned(), "\"".to_owned()])].into();
        let all =
            vec![Entry { dn: "cn=a".into(), attributes }, Entry { dn: "cn=b".into(), ..Entry::default() }];
        assert_eq!(entries(&all), r#"entries: 2: "cn=a" ; "mailMode" "a b" "\"" | "cn=b""#);
        assert_eq!(read(&entries(&all)), Some(all));
        assert_eq!(read(&entries(&[])), Some(Vec::new()));
        assert_eq!(read("entries: 1"), None);
    }
}
