//! Addresses beside what Postfix 3.7 makes of them.

use super::*;
use proptest::prelude::*;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What Postfix 3.7 was seen to make of senders: the final address in its log.
const SENDERS: &[(&str, &str)] = &[
    ("", ""),
    ("ceo@victim.example", "ceo@victim.example"),
    ("victim.example!ceo", "ceo@victim.example"),
    ("victim.example.!ceo", "ceo@victim.example"),
    ("ceo%victim.example", "ceo@victim.example"),
    ("ceo%%victim.example", "ceo%@victim.example"),
    ("ceo@victim.example.", "ceo@victim.example"),
    ("a@b@c.example", "a@b@c.example"),
    ("a%b@c.example", "a%b@c.example"),
    ("b!a@c.example", "b!a@c.example"),
    ("@a,@b:u@c.example", "u@c.example"),
    ("a!b!c", "b!c@a"),
    ("a!b%c", "b%c@a"),
    ("a%b%c", "a%b@c"),
    ("a!", "@a"),
    ("%a", "@a"),
    ("@c.example", "@c.example"),
    ("u@[192.0.2.1]", "u@[192.0.2.1]"),
    ("bob", "bob"),
    ("bob.", "bob."),
    (".bob@c.example", ".bob@c.example"),
    ("a b@c.example", "a b@c.example"),
    // The resolver of Postfix sees these, though they are rewritten to nothing better.
    ("x%bad.example@", "x@bad.example"),
    ("victim.example!ceo@", "ceo@victim.example"),
    ("a@victim.example.@", "a@victim.example"),
    ("ceo%victim.example.", "ceo@victim.example"),
    ("a b%c.example", "a b@c.example"),
    ("bob@ours.test@ours.test", "bob@ours.test"),
    ("bob%ours.test@OURS.test.", "bob@ours.test"),
    ("ours.test!bob@ours.test", "bob@ours.test"),
    // What Postfix refuses gets an address without a panic.
    ("a@b..", "a@b"),
    ("@", ""),
    ("@.", ""),
    ("a@", "a"),
    ("a%", "a"),
    ("!a", "a"),
    ("!", ""),
    ("a%b!c", "c@a%b"),
    // Quotes that arrive are part of the local part.
    ("\"x@y\"@listed.example", "\"x@y\"@listed.example"),
    ("\"ceo%victim.example\"", "\"ceo%victim.example\""),
    ("\"a@b\"", "\"a@b\""),
    // Domains as the DNS has them.
    ("CEO@Victim.EXAMPLE", "CEO@victim.example"),
    ("u@b\u{fc}cher.example", "u@xn--bcher-kva.example"),
    ("u%B\u{dc}CHER.Example\u{3002}", "u@xn--bcher-kva.example"),
    ("u@XN--Bcher-KVA.example", "u@xn--bcher-kva.example"),
    ("u@under_score.example", "u@under_score.example"),
    ("u@xn--\u{fc}", "u@xn--\u{fc}"),
    ("u@\u{ad}", "u@\u{ad}"),
    ("u@A b", "u@a b"),
    ("u@[IPv6:2001:DB8::1]", "u@[ipv6:2001:db8::1]"),
    ("u@127.0.0.1.", "u@127.0.0.1"),
];

/// The same for recipients: where the message was delivered to.
const RECIPIENTS: &[(&str, &str)] = &[
    ("BOB@ours.test", "BOB@ours.test"),
    ("bob+x@OURS.TEST.", "bob+x@ours.test"),
    ("ours.test.!bob", "bob@ours.test"),
    ("bob@ours.test@ours.test", "bob@ours.test"),
    ("bob%ours.test@ours.test", "bob@ours.test"),
    ("bob%virt.test@ours.test", "bob@virt.test"),
    ("bob@virt.test@ours.test", "bob@virt.test"),
    ("virt.test!bob@ours.test", "bob@virt.test"),
    ("ours.test!virt.test!bob", "bob@virt.test"),
    ("bob%virt.test%ours.test", "bob@virt.test"),
    ("bob%ours.test@[127.0.0.1]", "bob@ours.test"),
    ("bob@ours.test@", "bob@ours.test"),
    ("b ob%virt.test@ours.test", "b ob@virt.test"),
    ("bob+\"%virt.test@ours.test", "bob+\"@virt.test"),
    ("", ""),
    ("bob", "bob"),
];

#[test]
fn an_address_is_what_postfix_makes_of_it() {
    for (raw, address) in SENDERS {
        assert_eq!(text(Mailbox::sender(*raw).address()), *address, "{raw}");
    }
    for (raw, address) in RECIPIENTS {
        assert_eq!(text(Mailbox::recipient(*raw).address()), *address, "{raw}");
    }
}

#[test]
fn an_address_has_parts() {
    let mailbox = Mailbox::sender("Bob+Any@Example.ORG.");
    assert_eq!(mailbox.raw(), b"Bob+Any@Example.ORG.");
    assert_eq!((text(mailbox.local_part()), mailbox.domain()), ("Bob+Any", Some(&b"example.org"[..])));
    assert_eq!(text(&mailbox.key()), "bob+any@example.org");
    assert_eq!(mailbox.without_extension("-+").as_deref(), Some(&b"Bob@example.org"[..]));
    assert_eq!(mailbox.without_extension(""), None);
    assert_eq!(
        mailbox.forms().map(text).collect::<Vec<_>>(),
        ["Bob+Any@Example.ORG.", "Bob+Any@example.org"]
    );
    let null = Mailbox::sender("");
    assert!(null.is_null() && !null.is_rewritten());
    assert_eq!((null.local_part(), null.domain(), null.forms().count()), (&b""[..], None, 1));
    let bare = Mailbox::sender("root");
    assert_eq!((text(bare.local_part()), bare.domain()), ("root", None));
}

#[test]
fn a_key_is_the_same_for_all_spellings() {
    for raw in ["bob@example.org", "BOB@example.org.", "Example.ORG!Bob", "bob%example.org"] {
        assert_eq!(text(&Mailbox::sender(raw).key()), "bob@example.org", "{raw}");
    }
    assert_eq!(text(&Mailbox::sender("\u{c4}@\u{c4}.example").key()), "\u{e4}@xn--4ca.example");
    assert_eq!(&*Mailbox::sender(&b"A\xff@B\xff"[..]).key(), b"a\xff@b\xff");
}

#[test]
fn tables_have_quoted_local_parts() {
    for (raw, quoted) in [
        ("c d@example.org", "\"c d\"@example.org"),
        ("a\"b\\@x", "\"a\\\"b\\\\\"@x"),
        ("a..b@x", "\"a..b\"@x"),
        ("@x", "\"\"@x"),
        ("a.b+c@x", "a.b+c@x"),
        ("\u{fc}@x", "\u{fc}@x"),
        ("bob.", "\"bob.\""),
        ("", ""),
    ] {
        assert_eq!(text(&Mailbox::sender(raw).quoted()), quoted, "{raw}");
    }
}

#[test]
fn names_of_postfix_and_of_lists_have_no_extension() {
    let bare = |local: &'static str| without_extension(local.as_bytes(), "+-").map(text);
    assert_eq!(bare("a+b-c"), Some("a"));
    for whole in ["owner-list", "List-Request", "double-bounce", "MAILER-DAEMON", "+x", "a", ""] {
        assert_eq!(bare(whole), None, "{whole}");
    }
    assert_eq!(without_extension(b"owner-x+y", "+"), Some(&b"owner-x"[..]));
}

/// A search that is quadratic in it would take minutes.
#[test]
fn a_long_address_costs_little() {
    for unit in ["a!", "a@", "a%", "@a:", ".", "a@b@", "!", "\u{fc}."] {
        let long = unit.repeat((256 << 10) / unit.len());
        let short = &long[..long.floor_char_boundary(MAX_ROUTED_BYTES)];
        for text in [&*long, short] {
            std::hint::black_box(Mailbox::recipient(text.to_owned()));
        }
    }
}

proptest! {
    #[test]
    fn an_address_that_was_rewritten_stays_as_it_is(
        raw in prop_oneof!["[ab@%!.:,\"\\[\\]A +\u{fc}\u{3002}\u{ff20}\u{ad}-]{0,12}", "\\PC{0,20}"],
    ) {
        for role in [Role::Sender, Role::Recipient] {
            let once = Mailbox::new(raw.clone().into(), role);
            let again = Mailbox::new(once.address().to_vec().into(), role);
            prop_assert_eq!(once.address(), again.address());
            prop_assert_eq!(once.domain(), again.domain());
            prop_assert!(once.domain() != Some(b""));
            let key = once.key();
            prop_assert_eq!(&folded(&key), &key);
        }
    }

    #[test]
    fn any_bytes_are_an_address(raw in prop::collection::vec(any::<u8>(), 0..40)) {
        for mailbox in [Mailbox::sender(raw.clone()), Mailbox::recipient(raw.clone())] {
            let parts = match mailbox.domain() {
                Some(domain) => [mailbox.local_part(), b"@", domain].concat(),
                None => mailbox.local_part().to_vec(),
            };
            prop_assert_eq!(parts, mailbox.address());
            let _ = (mailbox.key(), mailbox.quoted(), mailbox.without_extension("+-"));
        }
    }
}
