//! What a declaration of options reads, refuses and says of itself.
//!
//! Knows: options, sections. Must not know: plugins.

use super::{OptionalUserConfig, Options, Presence, Repeated, Report, Section, UserConfig};
use crate::session::Session;
use crate::value::{Score, Switch};
use config_general::Limits;
use std::path::Path;

options! {
    /// A block.
    struct Sample {
        /// What it is called.
        name: String,
        /// Whether it is done.
        switch: Switch = Switch::On,
        /// What may be left out.
        note: Option<String>,
        /// What may be written several times.
        line: Repeated<String>,
        /// What a user may override.
        limit: UserConfig<Score> = Score::from(5.0),
        /// What only a user may set.
        action: OptionalUserConfig<String>,
        /// Named after a keyword.
        r#match: Option<String>,
    }
}

/// What is read of a block, and what is said about it.
fn read(text: &str) -> (Option<Sample>, Vec<String>) {
    let document = config_general::parse(Path::new("c"), text.as_bytes(), &Limits::default())
        .expect("the dialect is followed");
    let report = Report::default();
    let mut section = Section::new(&document.root, &report);
    let sample = Sample::read(&mut section);
    section.finish();
    let said = report.into_diagnostics().into_iter().map(|said| {
        let help = said.help.map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}: {}{help}", said.severity, said.message)
    });
    (sample, said.collect())
}

#[test]
fn what_is_given_counts_and_defaults_hold_otherwise() {
    let (sample, said) = read("name = a b\nswitch = off\nline = 1\nline = 2\nnote = x\nmatch = y\n");
    let sample = sample.expect("it is right");
    assert_eq!((&*sample.name, sample.switch, sample.note.as_deref()), ("a b", Switch::Off, Some("x")));
    assert_eq!(
        (&sample.line.0[..], sample.r#match.as_deref()),
        (&["1".to_owned(), "2".to_owned()][..], Some("y"))
    );
    assert_eq!(said, [""; 0]);
    let (sample, said) = read("name = a\n");
    let sample = sample.expect("the rest may be left out");
    assert_eq!((sample.switch, sample.note, sample.line.0.len()), (Switch::On, None, 0));
    assert_eq!((sample.limit.configured(), sample.action.configured()), (&Score::from(5.0), None));
    assert!(!sample.action.is_given() && said.is_empty());
}

#[test]
fn every_mistake_of_a_block_is_in_one_report() {
    let (sample, said) = read("nme = a\nswitch = maybe\nlimit = many\n");
    assert!(sample.is_none());
    assert_eq!(said.len(), 4, "{said:#?}");
    assert_eq!(said[0], "error: the file needs the option `name` (did you mean `name` where it says `nme`?)");
    assert!(said[1].starts_with("error: switch: ") && said[1].contains("a value of `switch` is"), "{said:?}");
    assert!(said[2].starts_with("error: limit: "), "{said:?}");
    assert_eq!(said[3], "warning: the file has no option `nme`; it has no effect (did you mean `name`?)");
}

#[test]
fn an_option_that_is_given_once_may_not_be_given_twice() {
    let (_, said) = read("name = a\nnote = x\nnote = y\n");
    assert_eq!(said, ["error: option `note` occurs more than once (keep one of them)"]);
}

#[test]
fn a_word_alone_sets_nothing_and_is_not_repeated() {
    let (sample, said) = read("name = a\nnote\nhunter2\n");
    assert_eq!(sample.expect("it is right").note, None);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("warning: option `note` has no value; it counts as not given"), "{said:?}");
    assert!(said[1].contains("this line of one word is not an option"), "{said:?}");
    assert!(!said[1].contains("hunter2"), "it may be a password: {said:?}");
}

#[test]
fn a_user_overrides_what_can_be_read_only() {
    let (sample, said) = read("name = a\nlimit = 7\nuc_limit = my_limit\nuc_action = my_action\n");
    let sample = sample.expect("it is right");
    let mut session = Session::default();
    assert_eq!((sample.limit.get(&session), sample.action.get(&session)), (Score::from(7.0), None));
    session.configure("my_limit", "9.5");
    session.configure("my_action", "reject");
    assert_eq!(sample.limit.get(&session), Score::from(9.5));
    assert_eq!(sample.action.get(&session).as_deref(), Some("reject"));
    session.configure("my_limit", "lots");
    assert_eq!(sample.limit.get(&session), Score::from(7.0));
    assert!(sample.action.is_given() && said.is_empty());
}

#[test]
fn the_manual_has_each_option_in_its_order() {
    let specs = Sample::specs();
    let shown = specs.iter().map(|spec| (spec.name.as_str(), spec.user_config, spec.presence.clone()));
    let default = |text: &str| Presence::Default(text.to_owned());
    let expected = [
        ("name", false, Presence::Required),
        ("switch", false, default("on")),
        ("note", false, Presence::Optional),
        ("line", false, Presence::Optional),
        ("limit", true, default("5")),
        ("action", true, Presence::Optional),
        ("match", false, Presence::Optional),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!((Sample::ABOUT, specs[1].doc), (" A block.\n", " Whether it is done.\n"));
}

#[test]
fn a_block_inside_that_nobody_takes_is_said_and_its_values_may_be_secrets() {
    let text = "name = a\n<Inner x>\npassword = hunter2\n</Inner>\n<Known>\n</Known>\n";
    let document = config_general::parse(Path::new("c"), text.as_bytes(), &Limits::default())
        .expect("the dialect is followed");
    let report = Report::default();
    let mut section = Section::new(&document.root, &report);
    assert!(Sample::read(&mut section).is_some());
    assert_eq!(section.take_blocks("Known").len(), 1);
    assert!(section.has_more("Inner") && !section.has_more("Known"));
    assert_eq!(section.given_inside("Inner", "password"), Some("hunter2"));
    section.finish();
    let hidden: Vec<_> =
        report.hidden().iter().map(|span| &text[span.start as usize..span.end as usize]).collect();
    assert!(hidden.contains(&"password = hunter2"), "{hidden:?}");
    let plain: Vec<_> =
        report.plain().iter().map(|span| &text[span.start as usize..span.end as usize]).collect();
    assert_eq!(plain, ["name = a"]);
    let said = report.into_diagnostics();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].message, "the file has no block `<Inner>`; it has no effect");
}

#[test]
fn of_a_thousand_mistakes_a_hundred_are_kept() {
    let unknown: String = (0..1_000).map(|number| format!("other{number} = 1\n")).collect();
    let (_, said) = read(&format!("name = a\n{unknown}"));
    assert_eq!((said.len(), said[100].as_str()), (101, "warning: and 900 more warnings"));
}
