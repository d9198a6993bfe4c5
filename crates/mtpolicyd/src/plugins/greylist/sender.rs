//! Senders that differ from one attempt to the next: without what mailers put into them anew each time.
//!
//! Knows: VERP, BATV (draft-levine-smtp-batv), SRS, extensions behind a plus sign. Must not know: tickets.

use std::borrow::Cow;

/// How long a token of letters and digits is at least that nobody is called by.
const MIN_TOKEN: usize = 12;

/// Minimum number of digits of such a token.
const MIN_TOKEN_DIGITS: usize = 2;

/// Returns a sender without tags in its local part: what is left is the same for each attempt.
pub fn without_tags(sender: &[u8]) -> Cow<'_, [u8]> {
    let Some((local, domain)) = str::from_utf8(sender).ok().and_then(|sender| sender.rsplit_once('@')) else {
        return sender.into();
    };
    let plain = without_numbers(without_extension(&forwarded(without_signature(local))));
    if plain.is_empty() || plain == local {
        return sender.into();
    }
    format!("{plain}@{domain}").into_bytes().into()
}

/// BATV signs the address: `prvs=1234abcdef=alice`, and in an early form `prvs=alice=1234abcdef`. Others have
/// words and tags of their own: `btv1==1234abcdef==alice`, `msprvs1=1234abcdef=alice`.
fn without_signature(local: &str) -> &str {
    let Some((word, rest)) = local.split_once('=') else { return local };
    if !["prvs", "btv1", "msprvs1"].iter().any(|known| word.eq_ignore_ascii_case(known)) {
        return local;
    }
    let is_tag = |tag: &str| tag.len() >= 6 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let rest = rest.trim_start_matches('=');
    match rest.split_once('=') {
        Some((tag, user)) if is_tag(tag) && tag.bytes().any(|byte| byte.is_ascii_digit()) => {
            user.trim_start_matches('=')
        }
        _ => match rest.rsplit_once('=') {
            Some((user, tag)) if is_tag(tag) => user.trim_end_matches('='),
            _ => local,
        },
    }
}

/// SRS rewrites the address of a forwarded message, with a hash and the day:
/// `SRS0=AbCd=5X=example.com=alice`; a second forwarder makes
/// `SRS1=EfGh=fwd.example==AbCd=5X=example.com=alice` of it.
fn forwarded(local: &str) -> Cow<'_, str> {
    let word = local.get(..4).unwrap_or_default();
    let rest = local.get(5..).unwrap_or_default();
    if !matches!(local.as_bytes().get(4), Some(b'=' | b'+' | b'-')) {
        return local.into();
    }
    let parts: Vec<_> = rest.split('=').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [_hash, _day, domain, user @ ..] if word.eq_ignore_ascii_case("SRS0") && !user.is_empty() => {
            format!("srs0={domain}={}", user.join("=")).into()
        }
        [_hash, forwarder, _inner, _day, domain, user @ ..]
            if word.eq_ignore_ascii_case("SRS1") && !user.is_empty() =>
        {
            format!("srs1={forwarder}={domain}={}", user.join("=")).into()
        }
        _ => local.into(),
    }
}

/// `news+today` is `news`.
fn without_extension(local: &str) -> &str {
    match local.split_once('+') {
        Some((user, _)) if !user.is_empty() => user,
        _ => local,
    }
}

/// VERP numbers messages and recipients: `bounces-1234-1` is `bounces-#-#`. A number is one that stands
/// alone, or a long token with digits in it. A local part that is nothing but a number is somebody's name.
fn without_numbers(local: &str) -> String {
    let mut plain = String::with_capacity(local.len());
    let mut rest = local;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        let (token, behind) = rest.split_at(end);
        let is_whole = token.len() == local.len();
        plain.push_str(if !is_whole && is_number(token) { "#" } else { token });
        let next = behind.find(char::is_alphanumeric).unwrap_or(behind.len());
        plain.push_str(&behind[..next]);
        rest = &behind[next..];
    }
    plain
}

fn is_number(token: &str) -> bool {
    let digits = token.bytes().filter(u8::is_ascii_digit).count();
    let is_token = token.is_ascii() && token.len() >= MIN_TOKEN && digits >= MIN_TOKEN_DIGITS;
    digits > 0 && (digits == token.len() || is_token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(sender: &str) -> String {
        String::from_utf8(without_tags(sender.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn tags_are_no_part_of_a_sender() {
        for (sender, expected) in [
            ("alice@x.test", "alice@x.test"),
            ("bob1985@x.test", "bob1985@x.test"),
            ("12345678@x.test", "12345678@x.test"),
            ("bounces-1234-1@x.test", "bounces-#-#@x.test"),
            ("bounce-12_345.678-bob=y.test@x.test", "bounce-#_#.#-bob=y.test@x.test"),
            ("msg-0a1b2c3d4e5f6071@x.test", "msg-#@x.test"),
            ("0100018f2d7a9b3c-1a2b3c4d-000000@x.test", "#-1a2b3c4d-#@x.test"),
            ("list-bounces+bob=y.test@x.test", "list-bounces@x.test"),
            ("news+try1@x.test", "news@x.test"),
            ("+x@x.test", "+x@x.test"),
            ("prvs=1234abcdef=alice@x.test", "alice@x.test"),
            ("PRVS=1234ABCDEF=alice+x@x.test", "alice@x.test"),
            ("prvs=alice=1234abcdef@x.test", "alice@x.test"),
            ("btv1==1234abcdef==alice@x.test", "alice@x.test"),
            ("prvs=a@x.test", "prvs=a@x.test"),
            ("SRS0=AbCd=5X=example.com=alice@fwd.test", "srs0=example.com=alice@fwd.test"),
            ("srs0+AbCd=5Y=example.com=a=b@fwd.test", "srs0=example.com=a=b@fwd.test"),
            (
                "SRS1=EfGh=fwd.example==AbCd=5X=example.com=alice@two.test",
                "srs1=fwd.example=example.com=alice@two.test",
            ),
            ("SRS0=x@fwd.test", "SRS0=x@fwd.test"),
            ("m\u{fc}ller-7@x.test", "m\u{fc}ller-#@x.test"),
            ("", ""),
            ("12-3", "12-3"),
            ("@x.test", "@x.test"),
        ] {
            assert_eq!(plain(sender), expected, "{sender}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_keeps_its_domain(
            local in "(prvs|SRS0|SRS1|btv1|[=+@-]|[0-9]{1,12}|[a-z\u{fc}]{0,3}){0,9}",
        ) {
            let sender = format!("{local}@x.test");
            let once = plain(&sender);
            prop_assert!(once.ends_with("@x.test") && once.len() > "@x.test".len() || sender == once);
        }
    }
}
