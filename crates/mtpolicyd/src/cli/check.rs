//! `mtpolicyd check`: what is wrong with a configuration, for people or for programs.
//!
//! Knows: settings, what the server finds out about users and files. Must not know: how a mistake is found.

use super::{DONE, REFUSED, config, control, print, say};
use crate::manual;
use crate::options::codes::{self, Code};
use crate::server;
use crate::settings::{Finding, Messages, Settings, Severity, ShadowFile};
use crate::value::nearest;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// The options of `mtpolicyd check`.
pub fn command() -> Command {
    let config = Arg::new("config").value_name("FILE").index(1).value_parser(value_parser!(PathBuf));
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("check")
        .about("Say what is wrong with a configuration file")
        .arg(config.default_value(super::DEFAULT_CONFIGURATION).help("The file"))
        .arg(flag("strict").help(
            "Take warnings for mistakes, so that an unknown option is one; a server that does not answer \
             now is none",
        ))
        .arg(Arg::new("as").long("as").value_name("USER").help(
            "Look whether this user can read and write the files; without it, the `user` of the file. Only \
             root can look for another user",
        ))
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("How to print: for people, or as JSON, one object a line"),
        )
        .arg(
            Arg::new("explain")
                .long("explain")
                .value_name("CODE")
                .help("Print what a code such as W031 means, and when it is right to ignore it"),
        )
}

/// Does what the options ask for.
pub fn run(matches: &ArgMatches) -> ExitCode {
    if let Some(code) = matches.get_one::<String>("explain") {
        return explain(code);
    }
    let is_json = matches.get_one::<String>("format").is_some_and(|format| format == "json");
    let check = Check { path: config(matches), is_json, start: Instant::now() };
    let user = matches.get_one::<String>("as").map(String::as_str);
    check.run(matches.get_flag("strict"), user)
}

fn explain(id: &str) -> ExitCode {
    if let Some(code) = codes::find(id) {
        return print(&manual::explain_code(code));
    }
    let all = codes::all();
    let hint = nearest(id, all.iter().map(|code| code.id));
    let hint = hint.map(|id| format!("; did you mean {id}?")).unwrap_or_default();
    say(&format!("mtpolicyd: there is no code `{id}`{hint}\n"));
    ExitCode::from(control::FAILED)
}

/// One check of a file.
struct Check<'a> {
    path: &'a Path,
    is_json: bool,
    start: Instant,
}

/// Something about the machine, not about a place in the file.
struct Trouble {
    code: &'static Code,
    text: String,
}

impl Check<'_> {
    fn run(&self, strict: bool, user: Option<&str>) -> ExitCode {
        let path = self.path.display();
        let (mut settings, messages) = match Settings::load(self.path, None) {
            Ok(loaded) => loaded,
            Err(messages) => {
                self.show(&messages, &[]);
                let errors = messages.errors();
                let s = if errors == 1 { "" } else { "s" };
                return refused(&format!("{path}: the configuration can't be used: {errors} error{s}\n"));
            }
        };
        std::mem::take(&mut settings.shadows).iter().for_each(|shadow| self.show_shadow(shadow));
        let mut troubles = Vec::new();
        if let Err(error) = server::check_names(&settings) {
            troubles.push(Trouble { code: &codes::NO_USER, text: format!("{path}: {error}") });
        }
        let note = settings.globals.as_root().filter(|_| user.is_none());
        let found = self.look(settings, &messages, user);
        let found = match found {
            Ok(found) => found,
            Err(error) if troubles.is_empty() => return refused(&format!("{path}: {error}\n")),
            // The same again, from where the user is needed.
            Err(_) => Vec::new(),
        };
        troubles.extend(found.into_iter().filter(|trouble| !messages.allows(trouble.code)));
        let mut note = note.map(|note| Trouble { code: &codes::STAYS_ROOT, text: note.to_owned() });
        let is_mistake = |trouble: &Trouble| trouble.code.severity() == Severity::Error;
        let is_refused = troubles.iter().any(is_mistake);
        // That a server is down now is not a mistake of the file.
        let is_doubtful = messages.has_warnings() || troubles.iter().any(|trouble| trouble.code.id != DOWN);
        // After the warnings, which matter more; a file without any says nothing on the standard error.
        if is_doubtful || is_refused || self.is_json {
            troubles.extend(note.take());
        }
        self.show(&messages, &troubles);
        if is_refused {
            return ExitCode::from(REFUSED);
        }
        if strict && is_doubtful {
            return refused(&format!("{path}: refused, since --strict takes warnings for errors\n"));
        }
        if self.is_json {
            return DONE;
        }
        let note = note.map(|note| line(&note)).unwrap_or_default();
        print(&format!("{note}{path}: the configuration can be used\n"))
    }

    /// What is wrong with files, servers and tables for the user that the daemon will be.
    fn look(
        &self,
        settings: Settings,
        messages: &Messages,
        user: Option<&str>,
    ) -> Result<Vec<Trouble>, server::process::ProcessError> {
        let access = server::access(self.path, &settings, messages, user)?;
        let look = server::look(settings, user)?;
        let lists = [
            (&codes::NO_ACCESS, access),
            (&codes::NO_RIGHT, look.denied),
            (&codes::NO_ANSWER, look.unanswered),
        ];
        let troubles = lists.into_iter().flat_map(|(code, texts)| {
            let trouble = move |text| Trouble { code, text };
            texts.into_iter().map(trouble)
        });
        Ok(troubles.collect())
    }

    /// Prints what there is to say about a file that runs in a shadow, before what is said about the file
    /// itself: there, a shadow that can't be used is a doubt.
    fn show_shadow(&self, shadow: &ShadowFile) {
        if self.is_json {
            shadow.messages.findings().for_each(|finding| print_finding(&finding));
        } else if !shadow.messages.is_empty() {
            let hosts: Vec<_> = shadow.hosts.iter().map(|(name, _)| &**name).collect();
            let text = format!("the shadow of {}, {}:\n\n", hosts.join(", "), shadow.path.display());
            say(&(text + &shadow.messages.to_string()));
        }
    }

    /// Prints all that was found, and how much that is.
    fn show(&self, messages: &Messages, troubles: &[Trouble]) {
        if self.is_json {
            let others = troubles.iter().map(Trouble::finding);
            messages.findings().chain(others).for_each(|finding| print_finding(&finding));
        } else {
            say(&messages.to_string());
            troubles.iter().for_each(|trouble| say(&format!("{}\n", line(trouble))));
        }
        let count = |severity| troubles.iter().filter(|it| it.code.severity() == severity).count();
        let mistakes = messages.errors() + count(Severity::Error);
        let doubts = messages.warnings() + count(Severity::Warning);
        if mistakes + doubts > 0 {
            say(&format!("{}\n", self.summary(messages, mistakes, doubts)));
        }
    }

    /// Such as `1 mistake, 3 doubts in 2 files, 14 plugins, 31 ms`.
    fn summary(&self, messages: &Messages, mistakes: usize, doubts: usize) -> String {
        let (mistakes, doubts) = (counted(mistakes, "mistake"), counted(doubts, "doubt"));
        let (files, plugins) = (counted(messages.files(), "file"), counted(messages.plugins(), "plugin"));
        let milliseconds = self.start.elapsed().as_millis();
        format!("{mistakes}, {doubts} in {files}, {plugins}, {milliseconds} ms")
    }
}

fn print_finding(finding: &Finding<'_>) {
    // Strings and numbers can always be written.
    let text = serde_json::to_string(finding).unwrap_or_default();
    print(&format!("{text}\n"));
}

/// A server that does not answer.
const DOWN: &str = codes::NO_ANSWER.id;

impl Trouble {
    fn finding(&self) -> Finding<'_> {
        Finding::without_place(self.code, &self.text)
    }
}

fn line(trouble: &Trouble) -> String {
    format!("{}[{}]: {}\n", trouble.code.severity(), trouble.code.id, trouble.text)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Says why the file is refused.
fn refused(why: &str) -> ExitCode {
    say(why);
    ExitCode::from(REFUSED)
}
