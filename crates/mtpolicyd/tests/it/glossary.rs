//! Words that do not occur in the tree: each has an ordinary one.
//!
//! Knows: English. Must not know: what any code does.
//!
//! Read are the comments and the strings of every `.rs` file of every crate, and all of the documents,
//! examples and files in `etc`. The pages that are written from doc comments are left out: their source is
//! read.

use std::fs;
use std::path::{Path, PathBuf};

/// A word, and what to write instead.
struct Entry {
    /// In lower case; it is found as whole words.
    word: &'static str,
    better: &'static str,
    because: &'static str,
    /// Words before which it is right, as in "a mail server".
    except_before: &'static [&'static str],
    /// Words after which it is right, as in "there is no".
    except_after: &'static [&'static str],
}

/// What can follow "mail" as an adjective.
const MAIL_THINGS: &[&str] =
    &["address", "addresses", "client", "exchanger", "exchangers", "host", "server", "servers", "system"];

/// Comparisons and fixed phrases after "no", and the end of a sentence.
const NO_THINGS: &[&str] = &[
    "", "better", "deeper", "host", "larger", "less", "longer", "more", "need", "one", "other", "place",
    "room", "such", "use", "way", "worse",
];

const ENTRIES: &[Entry] = &[
    Entry::new("a mail", "a message", "\"mail\" is what messages are made of; it can't be counted")
        .before(MAIL_THINGS),
    Entry::new("mails", "messages", "\"mail\" has no plural").after(&["cron", "which"]),
    Entry::new("once a mail", "once per message", "\"mail\" can't be counted"),
    Entry::new("for ever", "forever, never expires", "it is one word"),
    Entry::new("who takes", "a client that takes", "a sentence names its subject"),
    Entry::new("who comes", "a client that retries", "a sentence names its subject"),
    Entry::new("whom a", "clients that a", "a sentence names its object").after(&["to", "for", "by", "from"]),
    Entry::new("passes over", "skips, ignores", "that is the verb of the field"),
    Entry::new("passed over", "skipped, ignored", "that is the verb of the field"),
    Entry::new("is away", "is unreachable", "a server does not travel"),
    Entry::new("are away", "are unreachable", "a server does not travel"),
    Entry::new("is silent", "does not answer", "a server has no voice"),
    Entry::new("are silent", "do not answer", "a server has no voice"),
    Entry::new("is dead", "is down", "it may be back in a second"),
    Entry::new("are dead", "are down", "it may be back in a second"),
    Entry::new("known to be dead", "known to be down", "it may be back in a second"),
    Entry::new("said once", "logged once", "a log does not speak"),
    Entry::new("used on", "stays in use", "\"the previous file stays in use\"")
        .before(&["a", "all", "any", "both", "each", "every", "it", "one", "several", "the", "this"]),
    Entry::new("in vain", "without success", "it is solemn"),
    Entry::new("hardly anybody", "rarely", "say how often"),
    Entry::new("costs hardly", "rarely delays", "say how often"),
    Entry::new("so many", "this many, a limit, at most N", "say how many"),
    Entry::new("up to here", "up to N", "a comment has no place to point to"),
    Entry::new("has it not", "does not have it", "the verb is \"have\""),
    Entry::new("is no", "is not a", "\"no\" belongs to \"there is\" and \"has\"")
        .before(NO_THINGS)
        .after(&["there"]),
    Entry::new("are no", "are not", "\"no\" belongs to \"there are\" and \"have\"")
        .before(NO_THINGS)
        .after(&["there"]),
    Entry::new("small letters", "lower case", "that is the term"),
    Entry::new("capital ones", "upper case", "that is the term"),
    Entry::new("turns the outcome round", "inverts the result", "that is the term"),
    Entry::new("surroundings", "PluginEnv", "it hides what it is: what a plugin inherits"),
    Entry::new("keepsake", "CarryOver", "it hides what it is: what a reload carries over"),
];

impl Entry {
    const fn new(word: &'static str, better: &'static str, because: &'static str) -> Entry {
        Entry { word, better, because, except_before: &[], except_after: &[] }
    }

    const fn before(mut self, words: &'static [&'static str]) -> Entry {
        self.except_before = words;
        self
    }

    const fn after(mut self, words: &'static [&'static str]) -> Entry {
        self.except_after = words;
        self
    }

    /// Whether words that begin at `at` are these.
    fn occurs(&self, words: &[String], at: usize) -> bool {
        if !self.word.starts_with(words[at].as_str()) {
            return false;
        }
        let length = self.word.split(' ').count();
        let is_here = words[at..].len() >= length
            && self.word.split(' ').zip(&words[at..]).all(|(own, found)| own == found.as_str());
        let follows = words.get(at + length).is_some_and(|next| self.except_before.contains(&next.as_str()));
        let precedes = at > 0 && self.except_after.contains(&words[at - 1].as_str());
        is_here && !follows && !precedes
    }
}

/// Names that are an interface, such as options and texts of the original, in which a word above may stand.
const INTERFACE: &[&str] = &["/var/mail", "%MAIL%"];

#[test]
fn no_word_is_foreign() {
    let files = files();
    assert!(files.len() > 200, "the tree is not there");
    let mut complaints = Vec::new();
    for path in files {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        complaints.extend(foreign_words(&path, &text));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn each_word_is_found() {
    for entry in ENTRIES {
        let found = |path: &str, text: &str| !foreign_words(path, text).is_empty();
        let word = entry.word;
        assert!(found("a.md", &format!("Before {word} after.")), "{word}");
        assert!(found("a.rs", &format!("    /// Before {word} after.\n")), "{word}");
        assert!(found("a.rs", &format!("f(\"before {word} after\");\n")), "{word}");
        // A sentence may go on in the next line.
        let broken = word.replace(' ', "\n/// ");
        assert!(found("a.rs", &format!("/// Before\n/// {broken}\n/// after.\n")), "{word}");
    }
    let right = [
        ("a.rs", "let is_no = mails(used, on);\n"),
        ("a.rs", "// There is no mail for a mail server, and nothing is no more.\n"),
        ("a.rs", "f(\"This is\", \"no word\"); // 101 is no.\n"),
        ("a.md", "A mail server. A socket is used on each side."),
    ];
    for (path, text) in right {
        assert_eq!(foreign_words(path, text), Vec::<String>::new());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files to read, from the root of the repository.
fn files() -> Vec<String> {
    let mut files = Vec::new();
    collect("", &mut files);
    files
}

fn collect(folder: &str, files: &mut Vec<String>) {
    /// The pages written from doc comments, and what others have written.
    const LEFT_OUT: &[&str] = &[
        "target",
        ".git",
        "docs/plugins",
        "docs/man",
        "docs/mtpolicyd.conf.md",
        "docs/check.md",
        "docs/log.md",
        "crates/spf/tests/openspf",
        "fuzz/target",
        "crates/mtpolicyd/tests/it/glossary.rs",
    ];
    for entry in fs::read_dir(root().join(folder)).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if LEFT_OUT.contains(&path.as_str()) {
            continue;
        }
        if entry.path().is_dir() {
            collect(&path, files);
        } else if is_text(&path) {
            files.push(path);
        }
    }
}

fn is_text(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    matches!(
        extension,
        Some("rs" | "md" | "txt" | "conf" | "service" | "lua" | "sql" | "ldif" | "py" | "cnf")
    ) || path == "test"
        || path.starts_with(".ci/")
}

/// The words of a file that are in the glossary, each as `path:line: what to write`.
fn foreign_words(path: &str, text: &str) -> Vec<String> {
    let prose = if path.ends_with(".rs") { prose(text) } else { text.to_owned() };
    let mut complaints = Vec::new();
    let (mut words, mut lines) = (Vec::new(), Vec::new());
    let lower = INTERFACE.iter().fold(prose, |text, name| text.replace(name, " ")).to_lowercase();
    for (index, line) in lower.lines().enumerate() {
        // Words do not belong together across a full stop or a comma: an empty one stands there.
        let line = line.replace(['.', ',', ';', ':', '(', ')'], " \u{0} ");
        let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '\'' | '@' | '\u{0}');
        for word in line.split(|c: char| !is_letter(c)) {
            if !word.is_empty() {
                words.push(word.trim_matches(['\u{0}', '-', '\'']).to_owned());
                lines.push(index + 1);
            }
        }
    }
    for (at, line) in lines.iter().enumerate() {
        for entry in ENTRIES.iter().filter(|entry| entry.occurs(&words, at)) {
            let Entry { word, better, because, .. } = entry;
            complaints.push(format!("{path}:{line}: \"{word}\": write \"{better}\", {because}"));
        }
    }
    complaints
}

/// The comments and strings of Rust, each where it was; code becomes blank.
fn prose(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for line in text.split_inclusive('\n') {
        let mut rest = line.char_indices().peekable();
        while let Some((at, c)) = rest.next() {
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
                prose.push(match c {
                    '\\' => ' ',
                    '"' => ';',
                    c => c,
                });
            } else if line[at..].starts_with("//") {
                prose.push_str(&line[at..]);
                break;
            } else if line[at..].starts_with("'\"'") {
                rest.nth(1);
            } else {
                in_string = c == '"';
                prose.push(if c == '\n' { '\n' } else { ' ' });
            }
        }
    }
    prose
}
