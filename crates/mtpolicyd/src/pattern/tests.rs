//! Patterns against Perl's own verdicts, their bounds, and lists of them.
//!
//! Knows: patterns. Must not know: anything else.

use std::time::{Duration, Instant};

use super::perl_rows::{PERL, Verdict};
use super::{CapturingPattern, Pattern, PatternList};

fn verdict(pattern: &str, value: &[u8]) -> Verdict {
    match Pattern::new(pattern) {
        Err(_) => Verdict::Refused,
        Ok(pattern) if pattern.is_match(value).unwrap() => Verdict::Yes,
        Ok(_) => Verdict::No,
    }
}

#[test]
fn patterns_mean_what_they_mean_to_perl() {
    let wrong: Vec<_> = PERL
        .iter()
        .map(|&(pattern, value, expected)| (pattern, value, expected, verdict(pattern, value)))
        .filter(|(_, _, expected, ours)| ours != expected)
        .filter(|row| !DIFFERENT.iter().any(|other| (other.0, other.1, other.2) == (row.0, row.1, row.3)))
        .map(|(pattern, value, expected, ours)| {
            let error = Pattern::new(pattern).err().map(|error| error.to_string()).unwrap_or_default();
            format!("{pattern}   {}   Perl {expected:?}, ours {ours:?} {error}", value.escape_ascii())
        })
        .collect();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where we differ on purpose: pattern, value, our verdict, why.
const DIFFERENT: &[(&str, &[u8], Verdict, &str)] = &[
    ("", b"a", Verdict::Yes, "Perl repeats the last successful pattern"),
    (r"a(*ACCEPT)b", b"a", Verdict::Refused, "control verbs"),
    (r"(?u)^\w$", b"\xe9", Verdict::Refused, "character sets"),
    (r"^\w\pL$", b"\xe9\xe9", Verdict::No, r"in Perl a \p changes what \w means next to it"),
    (r"(?m)^$", b"a\n", Verdict::Yes, "Perl sees no line after the last newline; values have no newlines"),
    (r"(?m)^\z", b"a\n", Verdict::Yes, "the same"),
    (r"(?<=a*)b", b"b", Verdict::Yes, "Perl bounds what it looks behind at"),
];

#[test]
fn differences_are_the_ones_we_know() {
    for &(pattern, value, expected, why) in DIFFERENT {
        assert_eq!(verdict(pattern, value), expected, "{pattern}: {why}");
    }
}

#[test]
fn a_mistake_says_what_and_where() {
    for (pattern, message) in [
        ("foo(bar", "unmatched ( at offset 3"),
        ("a)", "unmatched ) at offset 1"),
        ("*a", "quantifier follows nothing at offset 0"),
        ("a**", "nested quantifiers at offset 2"),
        ("x[abc", "unmatched [ at offset 1"),
        ("[z-a]", "the range \"z-a\" is backwards at offset 1"),
        ("a[[:alfa:]]", "there is no class [:alfa:] at offset 2"),
        (r"(a)\2", "reference to a group that does not exist at offset 3"),
        (r"\k<user>", "reference to a group \"user\" that does not exist at offset 0"),
        ("(?R)", "recursion is not supported at offset 0"),
        ("a(?{1})", "code in a pattern is not supported at offset 1"),
        ("a(?k)", "unknown flag 'k' after (? at offset 3"),
        (r"\x{263a}", "a character above 255 (values are bytes) is not supported at offset 0"),
        ("a\\", "trailing backslash at offset 1"),
    ] {
        let error = Pattern::new(pattern).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.to_string().contains(" at offset "));
    }
}

#[test]
fn monsters_are_refused_in_no_time() {
    let started = Instant::now();
    for pattern in [
        "(".repeat(60_000),
        "a".repeat(70_000),
        format!("{}a{}", "(?:".repeat(9_000), ")*".repeat(9_000)),
        format!("{}a{}", "(?=".repeat(9_000), ")".repeat(9_000)),
        r"(((\w{1000}){1000}){1000}){1000}".to_owned(),
        r"(?=((\w{1000}){1000}){1000})x".to_owned(),
        r"((a{1000}){1000}){1000}\1".to_owned(),
        r"(?<=(\w{1,200}x){1,200})y".to_owned(),
        "[".repeat(60_000),
        "[[:".repeat(20_000),
        r"\x{".repeat(20_000),
        "a{1,".repeat(16_000) + "(",
        r"(?<n".repeat(16_000),
    ] {
        let short = &pattern[..pattern.len().min(40)];
        assert!(Pattern::new(&pattern).is_err(), "{short}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn the_deepest_pattern_that_is_accepted_compiles_on_both_engines() {
    for open in ["(", "(?:b|", "(?i:", "(?=", "(?>"] {
        let pattern = format!("{}a{}", open.repeat(30), ")*+".repeat(30));
        assert!(Pattern::new(&pattern).unwrap().is_match(b"a").is_ok(), "{open}");
    }
}

#[test]
fn work_is_bounded() {
    for pattern in [r"(a+)+\1$", r"(?=(a+)+$)b", r"(a|aa)+\1b", r"((a*)*)*\2b", r"(.*)(.*)(.*)\1x"] {
        let pattern = Pattern::new(pattern).unwrap();
        for len in [2 * 1024, 200_000] {
            let value = "a".repeat(len) + "!";
            let started = Instant::now();
            let error = pattern.is_match(value.as_bytes()).unwrap_err().to_string();
            // Far above what it takes (tens of milliseconds), for slow machines and unoptimized builds.
            assert!(started.elapsed() < Duration::from_secs(2), "{pattern:?} {:?}", started.elapsed());
            assert!(error.contains("given up on a value of"), "{error}");
        }
    }
    // Without back-references it is linear, whatever it looks like; anchored patterns turn back rarely.
    let value = "a".repeat(1_000_000) + "!";
    assert_eq!(Pattern::new("(a+)+$").unwrap().is_match(value.as_bytes()), Ok(false));
    assert_eq!(Pattern::new("^(?!no)x").unwrap().is_match(value.as_bytes()), Ok(false));
}

fn list(patterns: &[&str]) -> PatternList {
    PatternList::new(patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect())
}

#[test]
fn a_list_finds_the_first_that_matches() {
    let mixed = list(&["^x", r"(.)\1", "b$", "^a", "(?<=a)b", "é"]);
    assert_eq!(mixed.find(b"ab"), Ok(Some(2)));
    assert_eq!(mixed.find(b"aa"), Ok(Some(1)));
    assert_eq!(mixed.find(b"abc"), Ok(Some(3)));
    assert_eq!(mixed.find(b"zabz"), Ok(Some(4)));
    assert_eq!(mixed.find("zé".as_bytes()), Ok(Some(5)));
    assert_eq!(mixed.find(b"z\xff"), Ok(None));
    assert!(mixed.find(b"zaab").unwrap().is_some());
    assert_eq!(mixed.get(3).map(Pattern::as_str), Some("^a"));
    assert_eq!(list(&["^x"]).find(b"x"), Ok(Some(0)));
    assert_eq!(list(&[]).find(b"x"), Ok(None));
    assert!(list(&[]).is_empty() && !mixed.is_empty());
}

#[test]
fn a_pattern_given_up_hides_no_other() {
    let value = "a".repeat(5_000) + "!";
    let both = list(&[r"(a+)+\1$", "!$", "x"]);
    assert_eq!(both.find(value.as_bytes()), Ok(Some(1)));
    assert!(list(&[r"(a+)+\1$", "x", "y"]).find(value.as_bytes()).is_err());
}

#[test]
fn a_list_too_large_for_one_set_is_split() {
    let patterns: Vec<String> =
        (0..60).map(|n| format!("^(?:[ace]{{800}}[bdf]{{800}}){{5}}{n}$|^p{n}$")).collect();
    let all = list(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(all.sets.len() > 1);
    for n in [0, 1, 30, 58, 59] {
        assert_eq!(all.find(format!("p{n}").as_bytes()), Ok(Some(n)));
    }
    assert_eq!(all.find(b"p60"), Ok(None));
}

#[test]
fn what_is_surely_small_compiles_when_it_is_asked() {
    for pattern in
        [r"\w{2040}", "a{8000}", "(a?){2700}", "(?:a|b|c){1600}", r"([^a-z]\b){1300}", "(?i:é){2700}"]
    {
        assert!(Pattern::new(pattern).unwrap().is_match(b"a").is_ok(), "{pattern}");
    }
}

#[test]
fn a_long_list_has_a_bound_of_its_own() {
    let slow = (0..2_000).map(|n| Pattern::new(&format!("(?<=a)(?=.*b{n}x)")).unwrap()).collect();
    let start = Instant::now();
    assert!(PatternList::new(slow).find(&b"ab".repeat(1_000)).is_err());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn groups_say_what_they_have_matched() {
    for (pattern, value, groups) in [
        (r"^(\w+)@(?:mail\.)?(.*)$", "bob@mail.example.org", Some(vec!["bob", "example.org"])),
        ("(a)|(b)", "xb", Some(vec!["", "b"])),
        ("(?|a(.)|b(.))", "bz", Some(vec!["z"])),
        (r"(.)\1(?=c)(c)", "aabbc", Some(vec!["b", "c"])),
        ("(?i)(?<name>X)", "xx", Some(vec!["x"])),
        ("a", "a", Some(vec![])),
        ("(a)", "b", None),
    ] {
        let capturing = CapturingPattern::new(pattern).unwrap();
        let found = capturing.captures(value.as_bytes()).unwrap();
        let wanted = groups.map(|groups| groups.iter().map(|group| group.as_bytes().to_vec()).collect());
        assert_eq!(found, wanted, "{pattern}");
    }
    assert!(CapturingPattern::new("(").is_err());
}
