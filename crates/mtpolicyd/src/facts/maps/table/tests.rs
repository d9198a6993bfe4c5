//! Tables as people write them. What postmap finds in the same files is compared elsewhere.
//!
//! Knows: tables. Must not know: Postfix.

use super::*;

fn plenty() -> Budget {
    Budget::new(1_000_000, 1_000_000)
}

fn table(kind: TextKind, text: &str) -> (Table, Vec<usize>) {
    let mut passed_over = Vec::new();
    let table = Table::parse(text.as_bytes(), kind, &mut |line, _| passed_over.push(line));
    (table.unwrap(), passed_over)
}

#[track_caller]
fn check(kind: TextKind, text: &str, passed_over: &[usize], cases: &[(&str, Option<&str>)]) {
    let (table, lines) = table(kind, text);
    assert_eq!(lines, passed_over);
    for (key, value) in cases {
        let found = table.get(key.as_bytes(), &mut plenty()).unwrap();
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
    }
}

#[test]
fn keys_are_folded_and_the_first_counts() {
    check(TextKind::Hash, "A@b OK\nalone\na@B\n REJECT\n", &[2, 3], &[("a@b", Some("OK")), ("A@b", None)]);
}

#[test]
fn networks_are_tried_in_their_order() {
    let text = "192.0.2.1 one\n192.0.2.0/24 net\n10.1.2.3/8 hosts\n[2001:db8::]/32 six\n[::1] local\n\
                if !192.0.0.0/8\n!203.0.113.0/24 other\nendif\n300.1.1.1 x\nendif\n1.2.3.4\n";
    let cases = [
        ("192.0.2.1", Some("one")),
        ("192.0.2.2", Some("net")),
        ("192.0.3.2", None),
        ("2001:db8::5", Some("six")),
        ("::1", Some("local")),
        ("203.0.113.9", None),
        ("198.51.100.1", Some("other")),
        ("mail.example.org", None),
    ];
    check(TextKind::Cidr, text, &[3, 9, 10, 11], &cases);
}

#[test]
fn patterns_have_flags_conditions_and_groups() {
    let text = "/^A/i capital\n!/@/ no at\nif /example\\.org$/\n/^(.*)@(.+)$/ $2 ${1}$$\nendif\n\
                #x#x\n|^b / c|x second\n/(d)/ $2\n!/e/ $1\n/^f\n/g/ $\n/./Q x\n";
    let cases = [
        ("Abc@d", Some("capital")),
        ("abc@d", None),
        ("abc", Some("no at")),
        ("bob@example.org", Some("example.org bob$")),
        ("bob@example.com", None),
        ("b/c@x", Some("second")),
    ];
    check(TextKind::Pcre, text, &[8, 9, 10, 11, 12], &cases);
}

#[test]
fn of_a_long_table_only_lines_that_can_match_are_looked_at() {
    let line = |n: usize| match n {
        1_000 => "!/@/ no at\n".to_owned(),
        2_000 => "/^(.)x?@host/ ${1}x\n".to_owned(),
        n => format!("/^(a|.x)@host{n}[.]example$/ line {n}\n"),
    };
    let (table, _) = table(TextKind::Pcre, &(0..5_000).map(line).collect::<String>());
    assert!(table.work(20) < 500, "{}", table.work(20));
    let cases = [
        ("a@host7.example", Some("line 7")),
        ("b@host7.example", Some("bx")),
        ("a@host4000.example", Some("ax")),
        ("cx@host4999.example", Some("cx")),
        ("dx@host1999.example", Some("line 1999")),
        ("host", Some("no at")),
        ("abc@host4999.example", None),
    ];
    for (key, value) in cases {
        let found = table.get(key.as_bytes(), &mut plenty()).unwrap();
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
    }
}

#[test]
fn a_pattern_that_we_lack_fails_the_table() {
    for (kind, text) in
        [(TextKind::Pcre, "/a/ x\n/(?R)/ x"), (TextKind::Pcre, "/a/U x"), (TextKind::Regexp, "/a\\(b/x x")]
    {
        let failed = Table::parse(text.as_bytes(), kind, &mut |_, _| panic!("it fails the table")).err();
        let line = text.lines().count();
        assert!(failed.as_ref().is_some_and(|why| why.starts_with(&format!("line {line}: "))), "{failed:?}");
    }
}

#[test]
fn posix_expressions_are_read_as_such() {
    let text = "/^[\\.]+$/ dots\n/\\<word\\>/ word\n/^[]a]$/ bracket\n/^[[:digit:]]{2}$/ digits\n\
                /^[^[]x$/ no bracket\n";
    let cases = [
        ("\\..", Some("dots")),
        ("a WORD b", Some("word")),
        ("words", None),
        ("]", Some("bracket")),
        ("12", Some("digits")),
        ("[x", None),
        ("yx", Some("no bracket")),
    ];
    check(TextKind::Regexp, text, &[], &cases);
}

#[test]
fn only_lines_in_other_encodings_are_lost() {
    let text = b"# f\xfcr M\xfcller\na@b OK\nm\xfcller@b OK\nc@b OK\n";
    let mut lines = Vec::new();
    let table = Table::parse(text, TextKind::Hash, &mut |line, _| lines.push(line)).unwrap();
    assert_eq!(lines, [3]);
    assert_eq!(table.get(b"c@b", &mut plenty()), Ok(Some(b"OK".to_vec())));
    let pattern = b"# \xfc\n/a/ 1\n/\xfc/ 2\n";
    let failed = Table::parse(pattern, TextKind::Pcre, &mut |_, _| panic!("it fails the table")).err();
    assert_eq!(failed.as_deref(), Some("line 3: this is not UTF-8"));
}

#[test]
fn a_long_table_answers_by_its_first_line_that_fits() {
    let mut text = String::new();
    for n in 0..1_000 {
        text += &format!("/^host{n}\\.(.*)$/ $1 {n}\n/^host{n}/ second {n}\n!/\\./ dotless {n}\n");
    }
    let (table, _) = table(TextKind::Pcre, &text);
    for (key, value) in [
        ("host999.example", Some("second 9")),
        ("HOST7.x.y", Some("x.y 7")),
        ("host12.x", Some("second 1")),
        ("host", Some("dotless 0")),
        ("mail.example", None),
    ] {
        let found = table.get(key.as_bytes(), &mut plenty()).unwrap();
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
    }
}

#[test]
fn networks_within_others_are_found_by_their_first_line() {
    let mut text =
        "192.0.2.128/25 half\n192.0.2.0/24 net\n192.0.2.200 late\nif 0.0.0.0/0\n!10.0.0.0/8 not ten\nendif\n\
                    10.0.0.0/7 seven\n\
                    10.1.0.0/16 never\nif 2001:db8::/32\n2001:db8:1::/48 one\nendif\n::/0 all\n"
            .to_owned();
    text += &(0..5_000).map(|n| format!("10.{}.{}.0/24 late\n", n / 250, n % 250)).collect::<String>();
    let cases = [
        ("192.0.2.200", Some("half")),
        ("192.0.2.1", Some("net")),
        ("192.0.3.1", Some("not ten")),
        ("10.1.2.3", Some("seven")),
        ("2001:db8:1::1", Some("one")),
        ("2001:db8:2::1", Some("all")),
    ];
    check(TextKind::Cidr, &text, &[], &cases);
}
