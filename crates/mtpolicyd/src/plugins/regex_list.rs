//! `RegexList`: does a value match one of many regular expressions?

use crate::chain::Chain;
use crate::fields::{FieldRef, read_list};
use crate::log::messages::findings;
use crate::options::{OptionalUserConfig, Repeated, codes, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::Scoring;
use crate::value::{Flag, Value};
use perl_regex::{Pattern, PatternList};
use std::fmt::Write as _;
use std::sync::Arc;

options! {
    /// Adds to the score, answers, or runs the plugins in its block when a value matches one of a list of
    /// Perl regular expressions.
    ///
    /// The score counts once per message, or once per recipient if `key` is the recipient.
    ///
    /// A thousand expressions cost about as much as ten. An expression that can't be read is skipped with a
    /// warning. If there is an `action`, plugins in the block are not run.
    ///
    /// ```conf
    /// <Plugin dialup-names>
    ///   module = "RegexList"
    ///   key = "request:client_name"
    ///   regex = "^(ppp|dial|pool)[-.]?\d+\."
    ///   regex = "\.dynamic\.example\.net$"
    ///   score = 2.5
    /// </Plugin>
    /// ```
    pub struct RegexListOptions {
        + enabled,
        /// The value to look at. A sender or recipient that Postfix will understand otherwise than it is
        /// written (`victim.example!ceo`, `ceo@victim.example.`) is matched in both forms.
        key: FieldRef = FieldRef::Request("client_address".to_owned()),
        /// `1` acts if no expression matches. If the attribute or field does not exist, nothing happens in
        /// either case.
        invert: Flag = Flag(false),
        /// A Perl regular expression; may be given several times.
        regex: Repeated<String>,
        /// A file with more expressions, one per line; empty lines and comments (`#`) are skipped. It is
        /// read at the start and at a reload.
        file: Option<PatternFile>,
        /// Added to the score.
        score: Scoring,
        /// The answer to Postfix.
        action: OptionalUserConfig<String>,
    }
}

pub struct RegexList {
    options: RegexListOptions,
    patterns: Arc<PatternList>,
    nested: Chain,
}

impl Plugin for RegexList {
    const NAME: &'static str = "RegexList";
    type Options = RegexListOptions;

    fn new(mut options: RegexListOptions, setup: &mut Setup<'_, '_>) -> Option<RegexList> {
        setup.check_actions("action", &options.action);
        let mut patterns = Vec::new();
        for text in &options.regex.0 {
            match Pattern::new(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => {
                    let message = format!("regex: {why}; the expression is skipped");
                    setup.warn_as(&codes::SKIPPED_ENTRY, "regex", message);
                }
            }
        }
        if let Some(PatternFile { path, patterns: more, skipped }) = options.file.take() {
            patterns.extend(more);
            for why in skipped {
                let message = format!("file {path}, {why}; the expression is skipped");
                setup.warn_as(&codes::SKIPPED_ENTRY, "file", message);
            }
        }
        let (nested, patterns) = (Chain::nested(setup)?, Arc::new(PatternList::new(patterns)));
        if patterns.is_empty() && !options.invert.0 {
            setup.has_no_effect("usable expression");
        }
        Some(RegexList { options, patterns, nested })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let (key, request, session) = (&self.options.key, cx.request, &*cx.session);
        let Some(value) = key.get(request, session) else { return Ok(Verdict::Next) };
        let mut found = None;
        for form in key.forms(request, session) {
            if found.is_none() {
                found = cx.matching.find(&self.patterns, form, cx.call.deadline()).await?;
            }
        }
        if found.is_some() == self.options.invert.0 {
            return Ok(Verdict::Next);
        }
        let pattern = found.and_then(|place| self.patterns.get(place)).map_or("nothing", Pattern::as_str);
        let value = String::from_utf8_lossy(value).into_owned();
        cx.note(findings::pattern_matched(key, pattern, value));
        self.options.score.add_once(cx.session);
        let action = self.options.action.get(cx.session);
        self.nested.act(action.as_deref(), cx).await
    }
}

/// The expressions of a list file. It is read with the options, so that a missing one is a mistake like any
/// other.
#[derive(Clone, Debug)]
pub struct PatternFile {
    path: String,
    patterns: Vec<Pattern>,
    /// What was wrong with the lines that are not among them.
    skipped: Vec<String>,
}

impl std::fmt::Display for PatternFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}

impl Value for PatternFile {
    const FORM: &'static str = "path of a file";
    fn parse(path: &str) -> Result<Self, String> {
        let bytes = read_list(path).map_err(|why| format!("can't read `{path}`: {why}"))?;
        let (mut patterns, mut skipped) = (Vec::new(), Vec::new());
        // Not `lines()`: a carriage return before the line feed belongs to the expression, as in the
        // original.
        for (n, line) in as_pattern_text(&bytes).split('\n').enumerate() {
            if matches!(line.trim_start().as_bytes(), [] | [b'#', ..]) {
                continue;
            }
            match Pattern::new(line) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => skipped.push(format!("line {}: {why}", n + 1)),
            }
        }
        Ok(PatternFile { path: path.to_owned(), patterns, skipped })
    }
}

/// Text in which a byte that is not UTF-8 stands as the escape for it, so that it matches that byte.
fn as_pattern_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_looked_at_in_both_forms() {
        let text = "<Plugin r>\n module = RegexList\n key = sender\n regex = \"@victim\\.example$\"\n \
                    regex = \"^raw!\"\n action = yes\n</Plugin>";
        let mut bench = Bench::new(text);
        for sender in
            ["ceo@victim.example", "victim.example!ceo", "ceo%VICTIM.example", "ceo@victim.example.", "raw!x"]
        {
            assert_eq!(bench.attribute_again("sender", sender).run().as_deref(), Some("yes"), "{sender}");
        }
        assert_eq!(bench.attribute_again("sender", "victim.example!x@victim.example.other").run(), None);
    }

    use crate::testing::Bench;
    use std::io::Write;

    fn listed(options: &str, sender: &str) -> Option<String> {
        let text =
            format!("<Plugin r>\n module = RegexList\n key = sender\n {options}\n action = hit\n</Plugin>");
        Bench::new(&text).attribute("sender", sender).run()
    }

    #[test]
    fn one_of_several_is_enough() {
        let two = "regex = ^a\n regex = z$";
        assert_eq!(listed(two, "ab"), Some("hit".into()));
        assert_eq!(listed(two, "yz"), Some("hit".into()));
        assert_eq!(listed(two, "b"), None);
        assert_eq!(listed("regex = ^a\n invert = 1", "b"), Some("hit".into()));
        assert_eq!(listed("regex = ^a\n enabled = off", "ab"), None);
    }

    #[test]
    fn nobody_makes_an_expression_give_up_by_what_looks_like_much_work() {
        let many = |part: &str, count: usize| part.repeat(count);
        for (pattern, sender) in [
            (r"(?:(?!noreply)[a-z0-9]+[._]?)+@evil\.example\$", many("a", 20) + "-x@evil.example"),
            (r"^(?:(?!ours)[a-z0-9-]+\.?)+@(?:mx\.)?evil\.example\$", many("a", 22) + ".b@evil.example"),
            (
                r"^(\w+)\.?.*\1.*\1.*@evil\.example\$",
                format!("x{}.q@x.evil.example@evil.example", many("ab", 400)),
            ),
            (r"(a|aa|aaa)*(?<!ours)@evil\.example\$", many("a", 300) + "@evil.exampl@evil.example"),
        ] {
            assert_eq!(listed(&format!("regex = \"{pattern}\""), &sender), Some("hit".into()), "{pattern}");
        }
    }

    #[test]
    fn an_expression_that_takes_too_much_leaves_the_message_undecided() {
        let sender = "a".repeat(3_001) + "!";
        assert_eq!(
            listed(r"regex = ^(a+)(a+)\1\2!", &sender).map(|action| action[..6].to_owned()),
            Some("defer ".to_owned())
        );
        let then = format!(r"regex = ^(a+)(a+)\1\2!{}", "\n regex = !");
        assert_eq!(listed(&then, &sender), Some("hit".into()), "another one decides");
    }

    #[test]
    fn a_value_that_is_not_there_never_counts() {
        let text = "<Plugin r>\n module = RegexList\n key = sender\n regex = x\n invert = 1\n action = hit\n\
                    </Plugin>";
        assert_eq!(Bench::new(text).run(), None);
    }

    #[test]
    fn the_score_is_added_once_a_mail() {
        let text = "<Plugin r>\n module = RegexList\n key = sender\n regex = .\n score = 2\n</Plugin>";
        let mut bench = Bench::new(text).attribute("sender", "x");
        bench.run();
        bench.run();
        assert_eq!(bench.session.text("score"), Some("2"));
    }

    #[test]
    fn a_file_adds_expressions_and_bad_lines_are_skipped() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# comment\n\n(broken\n^two\\.\n\xe9$\n").unwrap();
        let option = format!("file = {}", file.path().display());
        assert_eq!(listed(&option, "two.example"), Some("hit".into()));
        assert_eq!(listed(&option, "# comment"), None);
        assert_eq!(listed(&option, "\u{e9}"), None, "one byte is not two");
        let text = format!("<Plugin r>\n module = RegexList\n {option}\n action = hit\n</Plugin>");
        let warnings = Bench::warnings(&text);
        assert!(warnings.len() == 1 && warnings[0].contains("line 3"), "{warnings:?}");
    }

    #[test]
    fn a_missing_file_is_a_mistake() {
        let text = "<Plugin r>\n module = RegexList\n file = /nothere.txt\n action = hit\n</Plugin>";
        assert!(Bench::mistakes(text)[0].starts_with("3:9 file: can't read `/nothere.txt`: "));
    }
}
