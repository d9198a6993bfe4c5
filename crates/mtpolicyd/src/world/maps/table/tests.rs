//! Tables as people write them. What postmap finds in the same files is compared elsewhere.
//!
//! Knows: tables. Must not know: Postfix.

use super::*;

fn later() -> Instant {
    Instant::now() + std::time::Duration::from_secs(60)
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
        let found = table.get(key.as_bytes(), later()).unwrap();
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
    let keys = ["x", "c@b"].map(|key| key.as_bytes().to_vec()).to_vec();
    let found = table.find(keys, |_| true, later()).unwrap().unwrap();
    assert_eq!((&*found.key, &*found.value), (b"c@b".as_slice(), b"OK".as_slice()));
    let pattern = b"# \xfc\n/a/ 1\n/\xfc/ 2\n";
    let failed = Table::parse(pattern, TextKind::Pcre, &mut |_, _| panic!("it fails the table")).err();
    assert_eq!(failed.as_deref(), Some("line 3: this is no text in UTF-8"));
}

#[test]
fn lines_are_not_tried_after_the_deadline() {
    let (table, _) = table(TextKind::Pcre, "/a/ x");
    let past = Instant::now().checked_sub(std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(table.get(b"a", past), Err("the lines take too long for this key".to_owned()));
}
