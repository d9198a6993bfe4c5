//! Names of hosts and domains.
//!
//! Knows: the DNS' rules for names. Must not know: records.

/// What a name may have at most, without the final dot (RFC 1035, 2.3.4).
pub(crate) const MAX_NAME_BYTES: usize = 253;

/// What a label may have at most.
const MAX_LABEL_BYTES: usize = 63;

/// Whether a name can be asked for. A label may hold anything in printable ASCII, blanks too.
pub(crate) fn is_name(name: &str) -> bool {
    let is_label = |label: &str| (1..=MAX_LABEL_BYTES).contains(&label.len());
    name.len() <= MAX_NAME_BYTES
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && name.split('.').all(is_label)
}

/// Whether a name can be that of a domain with a policy: several labels, and no address.
pub(crate) fn is_domain(name: &str) -> bool {
    let top = name.rsplit_once('.').map(|(_, top)| top);
    let is_word = |top: &str| !top.bytes().all(|byte| byte.is_ascii_digit());
    is_name(name) && !name.starts_with('[') && top.is_some_and(is_word)
}

/// A name as it is asked for: without the final dot, and so long as one may be, for which labels in front are
/// left out (RFC 7208, 7.3).
pub(crate) fn shortened(name: &str) -> &str {
    let mut name = name.strip_suffix('.').unwrap_or(name);
    while name.len() > MAX_NAME_BYTES {
        let Some((_, rest)) = name.split_once('.') else { break };
        name = rest;
    }
    name
}

/// Whether a name is the domain, or one below it.
pub(crate) fn is_below(name: &str, domain: &str) -> bool {
    let Some(at) = name.len().checked_sub(domain.len()) else { return false };
    let (front, end) = name.as_bytes().split_at(at);
    end.eq_ignore_ascii_case(domain.as_bytes()) && (front.is_empty() || front.ends_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_several_labels() {
        for good in ["example.org", "foo:bar/baz.example.org", "_spf.example.org", "a.b-1"] {
            assert!(is_domain(good), "{good}");
        }
        let long = format!("{}.example.org", "a".repeat(64));
        for bad in
            ["", "localhost", "a..example.org", ".example.org", "[192.0.2.1]", "192.0.2.1", &long, "ü.org"]
        {
            assert!(!is_domain(bad), "{bad}");
        }
    }

    #[test]
    fn a_long_name_loses_labels_in_front() {
        let name = format!("{}example.org.", "label.".repeat(60));
        let short = shortened(&name);
        assert!(short.len() <= MAX_NAME_BYTES && short.starts_with("label.") && short.ends_with(".org"));
        let label = "a".repeat(300);
        assert_eq!(shortened(&label), label, "there is nothing to leave out");
    }

    #[test]
    fn what_is_below_a_domain() {
        assert!(is_below("Example.ORG", "example.org") && is_below("mail.example.org", "example.org"));
        assert!(!is_below("notexample.org", "example.org") && !is_below("org", "example.org"));
    }
}
