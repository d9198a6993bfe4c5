//! The dialogues in `tests/dialogues`: a configuration, questions, answers, replayed against the real daemon.
//!
//! Knows: how a dialogue is written. Must not know: what is said in one.
//!
//! A dialogue is a text file. What stands before its first heading tells what it shows; the rest are
//! sections, done in their order:
//!
//! - `### dns`: what the name server says: `NAME A ADDRESS`, `NAME TXT TEXT` (with the escapes of Rust),
//!   `NAME SERVFAIL`. Other names do not exist.
//! - `### config`: the configuration; `### config latin-1` writes its characters as single bytes.
//! - `### ask`: the attributes of one request, sent on the connection that is open or on a new one.
//! - `### answer`: the action that comes back.
//! - `### closed`: the connection is closed instead.
//! - `### send`: bytes to send as they are, one line with the escapes of Rust.
//! - `### connect $OTHER`: a new connection, to the other port.
//! - `### asked`: all questions that the name server got since the last such section, in any order.
//! - `### log`: words, each of which some line of the log has. Behind `not ` are words that none has.
//!
//! A configuration may say `$PORT`, `$OTHER` (another port), `$CLOSED` (a port where nobody listens), `$DIR`
//! (the folder of the daemon) and `$DNS` (the name server).

use crate::fake_dns::{FakeDns, Query, Reply};
use crate::support::client::{Answer, Client};
use crate::support::daemon::{Daemon, Site, loopback};
use crate::support::{PATIENCE, free_port};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A test for each dialogue, by its name.
macro_rules! dialogues {
    ($($name:ident: $file:literal,)*) => {
        const FILES: &[&str] = &[$($file),*];

        $(
            #[test]
            fn $name() {
                play($file);
            }
        )*
    };
}

dialogues! {
    action: "01-action.txt",
    conditions: "02-conditions.txt",
    score_and_header: "03-score-and-header.txt",
    once_a_mail: "04-once-a-mail.txt",
    private_sessions: "05-private-sessions.txt",
    dns_lists: "06-dns-lists.txt",
    lookahead_off: "07-lookahead-off.txt",
    domain_lists: "08-domain-lists.txt",
    lists_that_do_not_answer: "09-lists-that-do-not-answer.txt",
    hostile_text: "10-hostile-text.txt",
    on_error: "11-on-error.txt",
    stress: "12-stress.txt",
    eval_and_overrides: "13-eval-and-overrides.txt",
    policy_context: "14-policy-context.txt",
    what_postfix_would_misread: "15-what-postfix-would-misread.txt",
    regular_expressions: "16-regular-expressions.txt",
    latin_1: "17-latin-1.txt",
    on_the_wire: "18-on-the-wire.txt",
    forged_lines: "19-forged-lines.txt",
    forgetting: "20-forgetting.txt",
    on_error_inside: "21-on-error-inside.txt",
}

#[test]
fn every_dialogue_is_played() {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, FILES);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues")
}

fn play(file: &str) {
    let text = fs::read_to_string(folder().join(file)).expect("a dialogue");
    if let Err(failure) = replay(&text, PATIENCE) {
        panic!("{file}:{failure}");
    }
}

#[test]
fn a_dialogue_that_is_not_so_is_noticed() {
    let config = "### config\nport = $PORT\n<VirtualHost $PORT>\n name = v\n <Plugin a>\n  module = Action\n\
                  action = defer\n </Plugin>\n</VirtualHost>\n";
    for (steps, complaint) in [
        ("### ask\na=b\n### answer\nreject\n", "13: expected `reject`, got `defer`"),
        ("### ask\na=b\n### closed\n", "12: expected the end of the connection, got `defer`"),
        ("### ask\na=b\n### answer\ndefer\n### log\nnot plugin=a\n", "15: a line of the log has `plugin=a`"),
        ("### asked\nx.test A\n", "11: the name server was asked"),
        ("### bogus\n", "10: there is no heading `bogus`"),
        ("### ask\na=b\n", "12: nobody reads the last answer"),
    ] {
        let failure = replay(&format!("{config}{steps}"), Duration::from_millis(100)).unwrap_err();
        assert!(failure.starts_with(complaint), "{failure}");
    }
}

/// A part of a dialogue.
struct Section<'a> {
    /// Line of the heading, from 1.
    line: usize,
    heading: &'a str,
    lines: Vec<&'a str>,
}

impl Section<'_> {
    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Its lines without empty ones.
    fn entries(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().copied().filter(|line| !line.is_empty())
    }
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("### ") {
            Some(heading) => {
                sections.push(Section { line: index + 1, heading: heading.trim(), lines: Vec::new() })
            }
            None => sections.iter_mut().rev().take(1).for_each(|section| section.lines.push(line)),
        }
    }
    sections
}

/// Plays a dialogue; what is not as written comes back with its line. `patience` is for what may come later
/// than the answer.
fn replay(text: &str, patience: Duration) -> Result<(), String> {
    let sections = sections(text);
    let zone = sections.iter().filter(|section| section.heading == "dns").flat_map(Section::entries);
    let mut stage = Stage::new(zone, patience);
    for section in &sections {
        let first = section.line + usize::from(!section.lines.is_empty());
        stage.play(section).map_err(|failure| format!("{first}: {failure}{}", stage.log()))?;
    }
    let last = text.lines().count() + 1;
    stage.close().map_err(|failure| format!("{last}: {failure}{}", stage.log()))
}

/// What a dialogue is played with.
struct Stage {
    dns: FakeDns,
    patience: Duration,
    /// How many questions were looked at.
    seen_questions: usize,
    daemon: Option<Daemon>,
    client: Option<Client>,
    unread: usize,
}

impl Stage {
    fn new<'a>(zone: impl Iterator<Item = &'a str>, patience: Duration) -> Stage {
        let dns = FakeDns::start(answers_of(zone));
        Stage { dns, patience, seen_questions: 0, daemon: None, client: None, unread: 0 }
    }

    fn play(&mut self, section: &Section<'_>) -> Result<(), String> {
        match section.heading {
            "dns" => Ok(()),
            "config" => self.start(&section.text(), false),
            "config latin-1" => self.start(&section.text(), true),
            "ask" => {
                self.unread += 1;
                let attributes = section.text();
                self.client()?.send(attributes.trim_end_matches('\n'));
                Ok(())
            }
            "send" => {
                let bytes = unescape(section.entries().next().unwrap_or_default());
                self.client()?.send_raw(&bytes).map_err(|error| error.to_string())
            }
            "answer" => {
                self.expect(Answer::Action(section.lines.first().copied().unwrap_or_default().to_owned()))
            }
            "closed" => self.expect(Answer::Closed),
            "connect $OTHER" => {
                let port = self.daemon()?.site.other_port;
                self.client = Some(Client::tcp(loopback(port)).map_err(|error| error.to_string())?);
                Ok(())
            }
            "asked" => self.expect_questions(section.entries().collect()),
            "log" => section.entries().try_for_each(|words| self.expect_log(words)),
            other => Err(format!("there is no heading `{other}`")),
        }
    }

    fn start(&mut self, text: &str, latin_1: bool) -> Result<(), String> {
        let mut site = Site::new();
        site.replace("$DNS", self.dns.address());
        site.replace("$CLOSED", free_port());
        let text = site.fill(text);
        if latin_1 {
            let bytes = text.chars().map(u8::try_from).collect::<Result<Vec<_>, _>>();
            site.configure_bytes(&bytes.map_err(|_| "a character is not in Latin-1")?);
        } else {
            site.configure_bytes(text.as_bytes());
        }
        self.daemon = Some(site.start());
        Ok(())
    }

    fn daemon(&self) -> Result<&Daemon, String> {
        self.daemon.as_ref().ok_or_else(|| "there is no configuration yet".to_owned())
    }

    fn client(&mut self) -> Result<&mut Client, String> {
        if self.client.is_none() {
            self.client = Some(self.daemon()?.connect());
        }
        self.client.as_mut().ok_or_else(|| "no connection".to_owned())
    }

    fn expect(&mut self, expected: Answer) -> Result<(), String> {
        let got = self.client()?.answer();
        self.unread = self.unread.saturating_sub(1);
        if got == Answer::Closed {
            self.client = None;
            self.unread = 0;
        }
        let name = |answer: &Answer| match answer {
            Answer::Action(action) => format!("`{action}`"),
            Answer::Closed => "the end of the connection".to_owned(),
        };
        if got == expected {
            Ok(())
        } else {
            Err(format!("expected {}, got {}", name(&expected), name(&got)))
        }
    }

    /// The questions since the last time; what is asked ahead may arrive after the answer.
    fn expect_questions(&mut self, mut expected: Vec<&str>) -> Result<(), String> {
        expected.sort_unstable();
        let until = Instant::now() + if expected.is_empty() { Duration::ZERO } else { self.patience };
        loop {
            let questions = self.dns.queries();
            let mut asked: Vec<_> = questions[self.seen_questions..].iter().map(question).collect();
            asked.sort_unstable();
            if asked == expected || asked.len() > expected.len() || Instant::now() > until {
                self.seen_questions = questions.len();
                let complaint = || format!("the name server was asked {asked:?}");
                return if asked == expected { Ok(()) } else { Err(complaint()) };
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// A line is logged before its answer is sent, but written by a thread of its own.
    fn expect_log(&self, words: &str) -> Result<(), String> {
        let daemon = self.daemon()?;
        let has = |words: &str| daemon.log().lines().any(|line| line.contains(words));
        if let Some(words) = words.strip_prefix("not ") {
            sleep(Duration::from_millis(200));
            return if has(words) { Err(format!("a line of the log has `{words}`")) } else { Ok(()) };
        }
        let until = Instant::now() + self.patience;
        while !has(words) {
            if Instant::now() > until {
                return Err(format!("no line of the log has `{words}`"));
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The daemon ends well, and everything that it said was read.
    fn close(&mut self) -> Result<(), String> {
        if self.unread > 0 {
            return Err("nobody reads the last answer".to_owned());
        }
        self.client = None;
        let daemon = self.daemon.as_mut().ok_or("there is no configuration")?;
        let status = daemon.terminate();
        if status.success() { Ok(()) } else { Err(format!("the daemon ended with {status}")) }
    }

    fn log(&self) -> String {
        self.daemon.as_ref().map(|daemon| format!("\nlog:\n{}", daemon.log())).unwrap_or_default()
    }
}

fn question(query: &Query) -> String {
    let kind = match query.record_type {
        1 => "A".to_owned(),
        12 => "PTR".to_owned(),
        15 => "MX".to_owned(),
        16 => "TXT".to_owned(),
        28 => "AAAA".to_owned(),
        other => format!("TYPE{other}"),
    };
    format!("{} {kind}", query.name)
}

/// What the name server says to each question.
fn answers_of<'a>(zone: impl Iterator<Item = &'a str>) -> impl Fn(&Query) -> Reply + Send + Sync + 'static {
    const HOUR: u32 = 3600;
    let mut records: BTreeMap<String, Reply> = BTreeMap::new();
    for entry in zone {
        let mut words = entry.splitn(3, ' ');
        let (name, kind, data) = (words.next(), words.next(), words.next());
        let (name, data) = (name.unwrap_or_default(), data.unwrap_or_default());
        match kind {
            Some("A") => {
                let address = data.parse().expect("an IPv4 address");
                records.insert(format!("{name} A"), Reply::Addresses(vec![address], HOUR));
            }
            Some("TXT") => {
                records.insert(format!("{name} TXT"), Reply::Texts(vec![vec![unescape(data)]], HOUR));
            }
            Some("SERVFAIL") => {
                const SERVFAIL: u8 = 2;
                records.insert(format!("{name} A"), Reply::Code(SERVFAIL));
            }
            _ => panic!("no record: {entry}"),
        }
    }
    move |query| records.get(&question(query)).cloned().unwrap_or(Reply::NoSuchName(Some(HOUR)))
}

/// `\n`, `\r`, `\t`, `\0`, `\\` and `\xNN` as in Rust.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
            }
            other => panic!("no escape: {other:?}"),
        });
    }
    bytes
}
