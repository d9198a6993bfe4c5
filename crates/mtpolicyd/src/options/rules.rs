//! What the options of a block have to do with one another: declared once, checked when the block is read,
//! and written in the manual.
//!
//! Knows: names, whether they are given. Must not know: values.

use super::{OptionSpec, Section, codes};

/// What holds between options. An option that users may set is given by `uc_` and its name too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One of them has to be given.
    AnyOf(&'static [&'static str]),
    /// No two of them may be given.
    AtMostOne(&'static [&'static str]),
    /// The first can't be used without all others.
    Requires(&'static [&'static str]),
    /// The first has an effect only with one of the others.
    OnlyWith(&'static [&'static str]),
    /// The first makes the others ineffective.
    Overrides(&'static [&'static str]),
}

impl Rule {
    /// The options that it names.
    pub fn options(self) -> &'static [&'static str] {
        let (Rule::AnyOf(names)
        | Rule::AtMostOne(names)
        | Rule::Requires(names)
        | Rule::OnlyWith(names)
        | Rule::Overrides(names)) = self;
        names
    }

    /// Whether a block keeps it, after the mistake was reported. What only has no effect is a warning.
    fn check(self, section: &Section<'_>) -> bool {
        let (given, missing): (Vec<&str>, Vec<&str>) =
            self.options().iter().partition(|name| section.is_given(name));
        match (self, self.options()) {
            (Rule::AnyOf(_), names) if given.is_empty() => {
                let message = format!("{} needs {}", section.describe(), one_of(names));
                let help = Some("add one of them to this block".to_owned());
                section.report().say(&codes::CONTRADICTION, section.span(), message, help);
                false
            }
            (Rule::AtMostOne(_), _) if given.len() > 1 => {
                let message = format!("{}: there is {} already", given[1], quoted(given[0]));
                let help = Some("keep one of them".to_owned());
                section.report().say(&codes::CONTRADICTION, section.span_of(given[1]), message, help);
                false
            }
            (Rule::Requires(_), [first, ..]) if section.is_given(first) && !missing.is_empty() => {
                let message = format!("{first}: needs {}", quoted(missing[0]));
                let help = Some(format!("add `{} = ...` to this block", missing[0]));
                section.report().say(&codes::CONTRADICTION, section.span_of(first), message, help);
                false
            }
            (Rule::OnlyWith(_), [first, others @ ..]) if given == [*first] => {
                let why = format!("has no effect without {}", one_of(others));
                section.warn_as(&codes::NO_EFFECT, first, why);
                true
            }
            (Rule::Overrides(_), [first, ..]) if section.is_given(first) => {
                for other in given.iter().filter(|other| *other != first) {
                    let why = format!("has no effect beside {}", quoted(first));
                    section.warn_as(&codes::NO_EFFECT, other, why);
                }
                true
            }
            _ => true,
        }
    }

    /// What it means to an option, in the words of the manual; `None` where that is for another to say.
    fn explain(self, name: &str) -> Option<String> {
        let names = self.options();
        let is_first = names.first() == Some(&name);
        match self {
            _ if !names.contains(&name) => None,
            Rule::AnyOf(_) => Some(format!("{} is required", one_of(names))),
            Rule::AtMostOne(_) => {
                let others: Vec<_> = names.iter().copied().filter(|other| *other != name).collect();
                Some(format!("not with {}", one_of(&others)))
            }
            Rule::Requires(_) if is_first => {
                let others: Vec<_> = names[1..].iter().map(|other| quoted(other)).collect();
                Some(format!("needs {}", others.join(" and ")))
            }
            Rule::OnlyWith(_) if is_first => Some(format!("only with {}", one_of(&names[1..]))),
            Rule::Requires(_) | Rule::OnlyWith(_) | Rule::Overrides(_) => None,
        }
    }
}

/// Whether a block keeps the rules, after the mistakes were reported.
pub fn check(rules: &[Rule], section: &Section<'_>) -> bool {
    // Each is looked at, so that every mistake of the block is reported at once.
    rules.iter().filter(|rule| !rule.check(section)).count() == 0
}

/// Has the manual say with each option what the rules mean to it.
pub fn explain(rules: &[Rule], mut options: Vec<OptionSpec>) -> Vec<OptionSpec> {
    for option in &mut options {
        option.rules = rules.iter().filter_map(|rule| rule.explain(&option.name)).collect();
        let overrides = rules.iter().filter_map(|rule| match rule {
            Rule::Overrides([first, others @ ..]) if others.contains(&&*option.name) => Some(*first),
            _ => None,
        });
        let overrides: Vec<_> = overrides.collect();
        if !overrides.is_empty() {
            option.rules.push(format!("no effect beside {}", one_of(&overrides)));
        }
    }
    options
}

fn quoted(name: &str) -> String {
    format!("`{name}`")
}

/// `a`, `b` or `c`, each in backticks.
fn one_of(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{OptionalUserConfig, Options, Report, options};
    use config_general::Limits;
    use std::path::Path;

    options! {
        /// A block with every kind of rule.
        struct Ruled {
            /// One way.
            host: Option<String>,
            /// Another.
            socket: OptionalUserConfig<String>,
            /// Goes with a password.
            user: Option<String>,
            /// Goes with a user.
            password: Option<String>,
            /// A file.
            file: Option<String>,
            /// A database.
            db: Option<String>,
            /// For a database.
            query: Option<String>,
        }
        rules {
            AnyOf(host, socket),
            Overrides(socket, host),
            Requires(user, password),
            AtMostOne(file, db),
            OnlyWith(query, db),
        }
    }

    fn read(text: &str) -> (bool, Vec<String>) {
        let document = config_general::parse(Path::new("test"), text.as_bytes(), &Limits::default()).unwrap();
        let report = Report::default();
        let ruled = Ruled::read(&mut Section::new(&document.root, &report));
        let given = ruled.as_ref().map(|Ruled { host, socket, user, password, file, db, query }| {
            [host, user, password, file, db, query].iter().filter(|option| option.is_some()).count()
                + usize::from(socket.is_given())
        });
        assert!(given.is_none_or(|given| given == text.lines().count()), "{text}");
        (ruled.is_some(), report.into_diagnostics().into_iter().map(|d| d.message).collect())
    }

    #[test]
    fn what_the_rules_forbid_is_a_mistake_and_what_has_no_effect_a_warning() {
        for (text, is_accepted, messages) in [
            ("host = a", true, vec![]),
            ("uc_socket = a", true, vec![]),
            ("", false, vec!["the file needs `host` or `socket`"]),
            ("host = a\nsocket = b", true, vec!["host: has no effect beside `socket`"]),
            ("host = a\nuser = b", false, vec!["user: needs `password`"]),
            ("host = a\npassword = b", true, vec![]),
            ("host = a\nfile = b\ndb = c", false, vec!["db: there is `file` already"]),
            ("host = a\nfile = b\nquery = c", true, vec!["query: has no effect without `db`"]),
            ("host = a\nquery = b\ndb = c", true, vec![]),
            (
                "user = a\nfile = b\ndb = c",
                false,
                vec![
                    "the file needs `host` or `socket`",
                    "user: needs `password`",
                    "db: there is `file` already",
                ],
            ),
        ] {
            assert_eq!(
                read(text),
                (is_accepted, messages.iter().map(|m| (*m).to_owned()).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn the_manual_says_what_the_rules_mean_to_each_option() {
        let said: Vec<_> =
            Ruled::specs().into_iter().map(|spec| (spec.name, spec.rules.join("; "))).collect();
        let expected = [
            ("host", "`host` or `socket` is required; no effect beside `socket`"),
            ("socket", "`host` or `socket` is required"),
            ("user", "needs `password`"),
            ("password", ""),
            ("file", "not with `db`"),
            ("db", "not with `file`"),
            ("query", "only with `db`"),
        ];
        assert_eq!(said, expected.map(|(name, rules)| (name.to_owned(), rules.to_owned())));
    }

    #[test]
    fn every_rule_names_options_that_exist() {
        for kind in crate::plugins::KINDS {
            let options: Vec<_> = (kind.options)().into_iter().map(|option| option.name).collect();
            for name in kind.rules.iter().flat_map(|rule| rule.options()) {
                assert!(options.iter().any(|option| option == name), "{}: {name}", kind.name);
            }
        }
    }
}
