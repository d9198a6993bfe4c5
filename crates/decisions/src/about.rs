//! Whether a decision names somebody, anywhere in it: by an address of a mailbox, or by a login.
//!
//! Knows: where one name ends and another begins. Must not know: who asks, the file.

use crate::Decision;
use memchr::memmem;

/// Whether a decision has one of these names, which are of lower case, anywhere.
pub(crate) fn is_about(decision: &Decision, names: &[String]) -> bool {
    let walk = &decision.walk;
    let texts = [&decision.answer, &decision.failure].into_iter().map(|text| text.as_bytes());
    let session = decision.session.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let lookups = walk.lookups.iter().flat_map(|it| [it.server, it.question, it.answer].map(str::as_bytes));
    let notes = walk.notes().map(|(_, note)| note.as_bytes());
    let shadow = decision.shadow.iter().flat_map(|it| [&it.answer, &it.failure]).map(|text| text.as_bytes());
    let texts = texts.chain(shadow);
    let mut all = std::iter::once(&*decision.request).chain(texts).chain(session).chain(lookups).chain(notes);
    all.any(|text| is_named_in(text, names))
}

/// Whether one of these names, which are of lower case, is in a text, and not as a part of another name.
pub(crate) fn is_named_in(text: &[u8], names: &[String]) -> bool {
    // Few names have letters beyond ASCII, and to convert those of a text takes longer.
    let lower = if names.iter().all(|name| name.is_ascii()) {
        text.to_ascii_lowercase()
    } else {
        String::from_utf8_lossy(text).to_lowercase().into_bytes()
    };
    let is_whole = |start: usize, end: usize| {
        let before = start.checked_sub(1).and_then(|before| lower.get(before));
        let after = match lower.get(end..) {
            Some([b'.', after, ..]) => Some(after),
            rest => rest.and_then(<[u8]>::first),
        };
        !before.is_some_and(is_local)
            && !after.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    names.iter().filter(|name| !name.is_empty()).any(|name| {
        memmem::find_iter(&lower, name.as_bytes()).any(|start| is_whole(start, start + name.len()))
    })
}

/// Whether a byte may belong to what stands before the `@`.
fn is_local(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte >= 0x80 || b"._+-".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_found_in_another_one() {
        let is_in = |text: &str, name: &str| is_named_in(text.as_bytes(), &[name.to_owned()]);
        for text in ["<Bob@example.org>", "bob@EXAMPLE.org.", "to=bob@example.org\n", "bob@example.org, x"] {
            assert!(is_in(text, "bob@example.org"), "{text}");
        }
        for text in ["jim.bob@example.org", "bob@example.org.au", "bob@example.organic", "bob"] {
            assert!(!is_in(text, "bob@example.org"), "{text}");
        }
        assert!(is_in("an ÄRGER@example.org", "ärger@example.org"));
        assert!(!is_in("anything", ""));
    }
}
