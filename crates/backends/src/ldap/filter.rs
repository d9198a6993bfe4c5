//! Filters as people write them (RFC 4515).
//!
//! Knows: the form of a filter. Must not know: what is searched for.

use std::fmt::Write;

/// Returns a value as a part of a filter (RFC 4515, section 3): it can't change the filter, and arrives byte
/// for byte.
pub fn escape(value: &[u8]) -> String {
    let mut escaped = String::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_graphic() && !matches!(byte, b'*' | b'(' | b')' | b'\\') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "\\{byte:02x}");
        }
    }
    escaped
}

/// Returns a filter without the blanks between its parts and around its attributes, which the RFC does not
/// have, but Net::LDAP, ldapsearch and slapd accept. Blanks inside values stay. The escapes of LDAPv2 that
/// Net::LDAP accepts (`\(`, `\)`, `\*`, `\\`) become those of the RFC.
pub fn without_blanks(text: &str) -> String {
    let text = with_codes(text);
    let mut filter = String::with_capacity(text.len());
    let mut rest = text.trim();
    while let Some(next) = rest.chars().next() {
        match next {
            '(' | ')' | '&' | '|' | '!' => {
                filter.push(next);
                rest = rest[1..].trim_start();
            }
            _ => {
                let end = rest.find([')', '(']).unwrap_or(rest.len());
                let (item, behind) = rest.split_at(end);
                // The attribute and its operator, such as `=`, `>=` or `:dn:=`.
                let (attribute, value) = item.split_once('=').map_or((item, None), |(a, v)| (a, Some(v)));
                filter.extend(attribute.split_whitespace());
                if let Some(value) = value {
                    filter.push('=');
                    filter.push_str(value.trim_start());
                }
                rest = behind;
            }
        }
    }
    filter
}

/// Replaces a backslash before a special character by the code of that character.
fn with_codes(text: &str) -> String {
    let mut filter = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match characters.next_if(|next| character == '\\' && matches!(next, '(' | ')' | '*' | '\\')) {
            Some(special) => {
                let _ = write!(filter, "\\{:02x}", u32::from(special));
            }
            None => filter.push(character),
        }
    }
    filter
}

#[cfg(all(test, feature = "ldap"))]
mod tests {
    use super::super::is_filter;
    use super::*;

    #[test]
    fn a_value_cannot_change_the_filter() {
        assert_eq!(escape(b"a*)(uid=*\\\0"), "a\\2a\\29\\28uid=\\2a\\5c\\00");
        assert_eq!(escape("\u{fc} ".as_bytes()), "\\c3\\bc\\20");
        for value in [&b"*"[..], b"x)(!(uid=y", b"\xff\xfe", b"\\", b"(", b""] {
            assert!(is_filter(&format!("(uid={})", escape(value))), "{value:?}");
        }
        assert!(!is_filter("(uid=*"));
    }

    #[test]
    fn blanks_between_the_parts_do_not_count() {
        for (text, expected) in [
            ("(mail=%s)", "(mail=%s)"),
            (" ( & (objectClass=mailUser) (mail=%s) ) ", "(&(objectClass=mailUser)(mail=%s))"),
            ("(&(a=b)\t(!\n( c = d e ))  )", "(&(a=b)(!(c=d e )))"),
            ("( | (cn=a b*c) (cn >= 1)(cn:dn:=x) )", "(|(cn=a b*c)(cn>=1)(cn:dn:=x))"),
            ("(cn=a\\28b \\29)", "(cn=a\\28b \\29)"),
            (r"(cn=Max \(x\) \* \\ )", r"(cn=Max \28x\29 \2a \5c )"),
            (r"(&(cn=a\2ab)(mail=%s))", r"(&(cn=a\2ab)(mail=%s))"),
            ("(cn=a & b | !c)", "(cn=a & b | !c)"),
        ] {
            assert_eq!(without_blanks(text), expected);
            assert!(is_filter(&expected.replace("%s", "x")), "{expected}");
        }
        assert!(!is_filter(&without_blanks("(&(a=b)(c=d)")));
    }
}
