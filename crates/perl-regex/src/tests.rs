//! Patterns against Perl's own verdicts, their bounds, and lists of them.
//!
//! Knows: patterns. Must not know: anything else.

use super::perl_rows::{PERL, Verdict};
use super::{Budget, CapturingPattern, Pattern, PatternList};

/// Takes work in proportion to the cube of the number, if it is odd.
const HEAVY: &str = r"^(a+)(a+)\1\2!$";

/// More than any of these takes.
const PLENTY: Budget = Budget::new(50_000_000, 20_000_000);

fn is_match(pattern: &Pattern, value: &[u8]) -> bool {
    pattern.is_match(value, &mut PLENTY.clone()).unwrap()
}

fn verdict(pattern: &str, value: &[u8]) -> Verdict {
    match Pattern::new(pattern) {
        Err(_) => Verdict::Refused,
        Ok(pattern) if is_match(&pattern, value) => Verdict::Yes,
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
    (
        r"(a\1|){0,2}+a",
        b"aca",
        Verdict::No,
        "in Perl a turn that matched nothing ends the loop, references or not",
    ),
    (r"^(a\1|){0,2}a$", b"aa", Verdict::Yes, "the same"),
    (r"(?!(a)c){2,}\1", b"aab", Verdict::No, "Perl keeps what a repeated negative look-ahead has captured"),
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
fn monsters_are_refused() {
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
}

#[test]
fn the_deepest_pattern_that_is_accepted_compiles_on_both_engines() {
    for open in ["(", "(?:b|", "(?i:", "(?=", "(?>"] {
        let pattern = format!("{}a{}", open.repeat(30), ")*+".repeat(30));
        assert!(Pattern::new(&pattern).unwrap().is_match(b"a", &mut PLENTY.clone()).is_ok(), "{open}");
    }
}

/// Each in a form that Perl finds, or doesn't, at once, and in which a search that goes every way takes
/// forever.
#[test]
fn what_only_looks_around_takes_few_steps() {
    let a = |count: usize| "a".repeat(count);
    for (pattern, value, expected) in [
        (r"(?:(?!noreply)[a-z0-9]+[._]?)+@evil\.example$", a(20) + "-x@evil.example", true),
        (r"(?:(?!noreply)[a-z0-9]+[._]?)+@evil\.example$", a(2_000) + "-x@evil.exampl", false),
        (r"^(?:(?!ours)[a-z0-9-]+\.?)+@(?:mx\.)?evil\.example$", a(22) + ".b@evil.example", true),
        (r"(a|aa|aaa)*(?<!ours)@evil\.example$", a(300) + "@evil.exampl@evil.example", true),
        (r"(?=(a+)+$)b", a(2_000) + "!", false),
        (r"(?:(?<=a)a|aa?)+$", a(2_000) + "!", false),
        (r"(?:a++|(?>aa|a))*b$", a(300) + "!", false),
        (r"(?:(?=a(?!b)|.*x$)a|aa)+!$", a(2_000) + "!", true),
        (r"(?:a|(?<!b(?<=a.))aa)+$", a(2_000) + "!", false),
        (r"^(?!.*\.\.)(?:[a-z]+\.?)+@", a(2_000) + "!", false),
        (r"(\w+\s?)+(?<!x)$", a(2_000) + "!", false),
    ] {
        let pattern = Pattern::new(pattern).unwrap();
        let mut budget = Budget::new(1_000_000, 1_000_000);
        assert_eq!(pattern.is_match(value.as_bytes(), &mut budget), Ok(expected), "{pattern}");
    }
}

#[test]
fn references_are_found_where_the_work_is_bearable() {
    for (pattern, value, expected) in [
        (
            r"^(\w+)\.?.*\1.*\1.*@evil\.example$",
            format!("x{}.q@x.evil.example@evil.example", "ab".repeat(400)),
            true,
        ),
        (r"(a+)+\1$", "a".repeat(60) + "!", false),
        (r"^(a|aa)+\1b", "a".repeat(300) + "b", true),
        (r"((a*)*)*\2b$", "a".repeat(40) + "!", false),
        (r"^(?:(.)\1?)+@", "ab".repeat(40) + "@", true),
        (r"^(?:(a)|b)*(?(1)c|d)$", "ab".repeat(500) + "c", true),
        (r"(?<!(.)\1)x", "aax".to_owned(), false),
        (r"(?<=(.)\1)x", "aax".to_owned(), true),
        (r"(?=(\w+)@)\1@\1$", "ab@ab".to_owned(), true),
        (r"(?>(a+))b\1", "aabaa".to_owned(), true),
        (r"(?>(a+)|x)b\1c", "aabac".to_owned(), true),
    ] {
        let found =
            Pattern::new(pattern).unwrap().is_match(value.as_bytes(), &mut Budget::new(6_000_000, 6_000_000));
        assert_eq!(found, Ok(expected), "{pattern}");
    }
}

#[test]
fn work_is_bounded() {
    for pattern in [HEAVY, r"^(?=(a+)(a+)\1\2!$)"] {
        let pattern = Pattern::new(pattern).unwrap();
        for len in [2 * 1024 + 1, 200_001] {
            let value = "a".repeat(len) + "!";
            let mut budget = Budget::new(1_000_000, 300_000);
            let error = pattern.is_match(value.as_bytes(), &mut budget).unwrap_err().to_string();
            assert!(error.contains("given up on a value of"), "{error}");
            assert_eq!(budget.left(), 700_000, "one pattern takes no more than it may");
            budget.spend(600_000);
            assert!(pattern.is_match(value.as_bytes(), &mut budget).is_err());
            assert_eq!(budget.left(), 0, "all take no more than they may");
        }
    }
    // Without back-references it is linear, whatever it looks like.
    let value = "a".repeat(1_000_000) + "!";
    let none = &mut Budget::new(0, 0);
    assert_eq!(Pattern::new("(a+)+$").unwrap().is_match(value.as_bytes(), none), Ok(false));
    assert_eq!(Pattern::new("^(?!no)x").unwrap().is_match(value.as_bytes(), none), Ok(false));
}

#[test]
fn a_longer_value_takes_more_steps_only_as_it_is_longer() {
    let pattern = Pattern::new(r"(?:(?!no)[a-z]+[.]?)+(?<!b)@x$").unwrap();
    let steps = |length: usize| {
        let mut budget = PLENTY;
        let value = "ab".repeat(length / 2) + "@x";
        assert_eq!(pattern.is_match(value.as_bytes(), &mut budget), Ok(false));
        PLENTY.left() - budget.left()
    };
    let (short, long) = (steps(1_000), steps(10_000));
    assert!(long < 12 * short, "{short} {long}");
}

fn list(patterns: &[&str]) -> PatternList {
    PatternList::new(patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect())
}

trait First {
    fn first(&self, value: &[u8]) -> Result<Option<usize>, super::MatchError>;
}

impl First for PatternList {
    fn first(&self, value: &[u8]) -> Result<Option<usize>, super::MatchError> {
        self.find(value, &mut Budget::new(20_000_000, 2_000_000))
    }
}

#[test]
fn a_list_finds_the_first_that_matches() {
    let mixed = list(&["^x", r"(.)\1", "b$", "^a", "(?<=a)b", "é"]);
    assert_eq!(mixed.first(b"ab"), Ok(Some(2)));
    assert_eq!(mixed.first(b"aa"), Ok(Some(1)));
    assert_eq!(mixed.first(b"abc"), Ok(Some(3)));
    assert_eq!(mixed.first(b"zabz"), Ok(Some(4)));
    assert_eq!(mixed.first("zé".as_bytes()), Ok(Some(5)));
    assert_eq!(mixed.first(b"z\xff"), Ok(None));
    assert!(mixed.first(b"zaab").unwrap().is_some());
    assert_eq!(mixed.get(3).map(Pattern::as_str), Some("^a"));
    assert_eq!(list(&["^x"]).first(b"x"), Ok(Some(0)));
    assert_eq!(list(&[]).first(b"x"), Ok(None));
    assert!(list(&[]).is_empty() && !mixed.is_empty());
}

#[test]
fn a_pattern_given_up_hides_no_other() {
    let value = "a".repeat(5_001) + "!";
    let both = list(&[HEAVY, "!$", "x"]);
    assert_eq!(both.first(value.as_bytes()), Ok(Some(1)));
    assert!(list(&[HEAVY, "x", "y"]).first(value.as_bytes()).is_err());
}

#[test]
fn a_list_too_large_for_one_set_is_split() {
    let patterns: Vec<String> =
        (0..60).map(|n| format!("^(?:[ace]{{800}}[bdf]{{800}}){{5}}{n}$|^p{n}$")).collect();
    let all = list(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(all.sets.len() > 1);
    for n in [0, 1, 30, 58, 59] {
        assert_eq!(all.first(format!("p{n}").as_bytes()), Ok(Some(n)));
    }
    assert_eq!(all.first(b"p60"), Ok(None));
}

#[test]
fn what_is_surely_small_compiles_when_it_is_asked() {
    for pattern in
        [r"\w{2040}", "a{8000}", "(a?){2700}", "(?:a|b|c){1600}", r"([^a-z]\b){1300}", "(?i:é){2700}"]
    {
        assert!(Pattern::new(pattern).unwrap().is_match(b"a", &mut PLENTY.clone()).is_ok(), "{pattern}");
    }
}

#[test]
fn a_long_list_has_a_bound_of_its_own() {
    let slow = (0..200).map(|n| Pattern::new(&format!("^(a+)(a+)\\1\\2(?:x{{{n}}})?!$")).unwrap()).collect();
    let mut budget = Budget::new(1_000_000, 100_000);
    assert!(PatternList::new(slow).find(("a".repeat(1_001) + "!").as_bytes(), &mut budget).is_err());
    assert_eq!(budget.left(), 0);
}

#[test]
fn a_long_list_finds_what_a_short_one_finds() {
    let mut patterns = Vec::new();
    for n in 0..700 {
        patterns.push(format!(r"^(ppp|dial|pool)[-.]?\d+\.ISP{n}\.net$"));
        patterns.push(format!(r"(?i)^host{n}(?!\.good)\."));
        patterns.push(format!(r"^[0-9]{{{}}}x?$", n % 50 + 1));
        patterns.push(format!(r"\.com{}$", ["", "x", "y"][n % 3]));
    }
    let patterns: Vec<_> = patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect();
    let long = PatternList::new(patterns.clone());
    assert!(long.texts.is_some() && long.sets.len() > 1);
    for value in [
        "ppp-7.ISP699.net",
        "dial3.isp5.net",
        "HOST12.bad.",
        "host12.good.",
        "1234567",
        "a.com",
        "a.comy",
        "",
        "-",
    ] {
        let expected = patterns.iter().position(|pattern| is_match(pattern, value.as_bytes()));
        assert_eq!(long.first(value.as_bytes()), Ok(expected), "{value}");
        let mut budget = PLENTY;
        let candidates = long.candidates(value.as_bytes(), &mut budget);
        for (place, pattern) in patterns.iter().enumerate() {
            let found = candidates.is_match(place, &mut budget).unwrap();
            assert_eq!(found, is_match(pattern, value.as_bytes()), "{value} {pattern}");
        }
    }
}

#[test]
fn of_what_patterns_require_that_counts_which_tells_them_apart() {
    for (pattern, value) in [
        (r"^n{}x-\d+.*\.customers\.dynamic\.provider\.example$", "n{}x-1.customers.dynamic.provider.example"),
        (r"\.a\.long\.name\.of\.one\.provider\.n{}\.example$", "1.a.long.name.of.one.provider.n{}.example"),
        (r"^(\w+|customer)[-.]of[-.]host{}[-.]", "customer.of.host{}.example"),
    ] {
        let number = |text: &str, n: usize| text.replace("{}", &n.to_string());
        let patterns = (0..1_000).map(|n| Pattern::new(&number(pattern, n)).unwrap()).collect();
        let long = PatternList::new(patterns);
        assert!(long.texts.is_some() && long.sets.is_empty(), "{pattern}");
        for n in [0, 7, 77, 999] {
            assert_eq!(long.first(number(value, n).as_bytes()), Ok(Some(n)), "{pattern}");
        }
        assert_eq!(long.first(number(value, 1_000).as_bytes()), Ok(None));
    }
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
        let found = capturing.captures(value.as_bytes(), &mut PLENTY.clone()).unwrap();
        let wanted = groups.map(|groups| groups.iter().map(|group| group.as_bytes().to_vec()).collect());
        assert_eq!(found, wanted, "{pattern}");
    }
    assert!(CapturingPattern::new("(").is_err());
}
