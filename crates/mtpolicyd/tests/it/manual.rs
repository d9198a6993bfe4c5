//! The written manual is the one that the program prints, and its examples work.
//!
//! Knows: where the pages are kept. Must not know: what they say.
//!
//! `UPDATE=1 cargo test` writes the pages anew, and removes those that no module has any more.

use mtpolicyd::log::messages::GROUPS;
use mtpolicyd::manual::{Format, Page, check_page, control, index, log_page, metrics_page, pages};
use mtpolicyd::plugins::KINDS;
use mtpolicyd::settings::Settings;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The page that is not a module's.
const CONFIGURATION: &str = "mtpolicyd.conf";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page by its file.
fn wanted() -> BTreeMap<PathBuf, String> {
    let docs = root().join("docs");
    let mut wanted = BTreeMap::new();
    for page in pages() {
        let is_module = page.name != CONFIGURATION;
        let folder = if is_module { docs.join("plugins") } else { docs.clone() };
        wanted.insert(folder.join(format!("{}.md", page.name)), page.render(Format::Markdown));
        // As its title says: man(1) looks for the name of the file.
        let man = if is_module { format!("mtpolicyd-{}", page.name) } else { page.name.to_owned() };
        wanted.insert(docs.join(format!("man/{man}.5")), page.render(Format::Man));
    }
    for (name, section, text) in mtpolicyd::cli::man_pages() {
        wanted.insert(docs.join(format!("man/{name}.{section}")), text);
    }
    wanted.insert(docs.join("control.md"), control().render(Format::Markdown));
    wanted.insert(docs.join("man/mtpolicyd-control.5"), control().render(Format::Man));
    wanted.insert(docs.join("plugins/README.md"), index());
    wanted.insert(docs.join("log.md"), log_page());
    wanted.insert(docs.join("metrics.md"), metrics_page());
    wanted.insert(docs.join("check.md"), check_page());
    let readme = root().join("README.md");
    let text = fs::read_to_string(&readme).expect("README.md can be read");
    wanted.insert(readme, with_modules(&text));
    wanted
}

/// The README with the list of all modules in its place.
fn with_modules(readme: &str) -> String {
    const BEGIN: &str = "<!-- All modules; written by the test `manual`. -->\n";
    const END: &str = "\n<!-- End of the modules. -->";
    const MAX_COLUMNS: usize = 118;
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has a place for the modules");
    let (_, after) = rest.split_once(END).expect("the place ends");
    let mut lines = vec![String::new()];
    for (n, kind) in KINDS.iter().enumerate() {
        let word = format!("`{}`{}", kind.name, if n + 1 == KINDS.len() { "." } else { "," });
        match lines.last_mut().filter(|line| line.len() + word.len() < MAX_COLUMNS) {
            Some(line) if line.is_empty() => line.push_str(&word),
            Some(line) => line.extend([" ", &word]),
            None => lines.push(word),
        }
    }
    format!("{before}{BEGIN}{}{END}{after}", lines.join("\n"))
}

/// Every file that is there where pages are, whoever wrote it.
fn written() -> Vec<PathBuf> {
    let docs = root().join("docs");
    let files = ["plugins", "man"].map(|folder| fs::read_dir(docs.join(folder)));
    files.into_iter().flatten().flatten().map(|entry| entry.expect("the folder can be read").path()).collect()
}

#[test]
fn the_written_pages_are_current() {
    let wanted = wanted();
    let stale = written().into_iter().filter(|path| !wanted.contains_key(path));
    if std::env::var_os("UPDATE").is_some() {
        for path in stale {
            fs::remove_file(path).unwrap();
        }
        for (path, text) in &wanted {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        return;
    }
    let differs = wanted.iter().filter(|(path, text)| fs::read_to_string(path).ok().as_ref() != Some(text));
    let wrong: Vec<_> = stale.chain(differs.map(|(path, _)| path.clone())).collect();
    assert!(wrong.is_empty(), "`UPDATE=1 cargo test manual` writes these anew: {wrong:#?}");
}

#[test]
fn every_example_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.conf");
    for page in pages() {
        assert!(!page.examples().is_empty(), "{} has no example", page.name);
        for example in page.examples() {
            let whole = page.name == CONFIGURATION || example.contains("<VirtualHost");
            let text = if whole { example } else { in_a_host(&example) };
            fs::write(&path, &text).unwrap();
            // Some have a password.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            match Settings::load(&path, None) {
                Ok((_, messages)) => {
                    // Tables of Postfix that an example names are not on every machine.
                    let text = messages.to_string();
                    let warnings = text.split("\n\n").filter(|part| part.starts_with("warning:"));
                    let wrong: Vec<_> = warnings.filter(|part| !part.contains("no such file")).collect();
                    assert!(wrong.is_empty(), "{}: {wrong:#?}", page.name);
                }
                Err(messages) => panic!("{}: {messages}", page.name),
            }
        }
    }
}

/// A host with these plugins, behind the connections that they name.
pub fn in_a_host(example: &str) -> String {
    let (mut connections, mut plugins) = (String::new(), String::new());
    let mut in_connection = false;
    for line in example.lines() {
        in_connection |= line.starts_with("<Connection ");
        let part = if in_connection { &mut connections } else { &mut plugins };
        part.push_str(line);
        part.push('\n');
        in_connection &= line != "</Connection>";
    }
    format!(
        "port = \"127.0.0.1:12345\"\n{connections}<VirtualHost 12345>\nname = \"incoming\"\n\
         {plugins}</VirtualHost>\n"
    )
}

#[test]
fn every_option_is_explained() {
    for page in pages() {
        let text = page.render(Format::Markdown);
        let options: Vec<_> = text.split("\n### ").skip(1).collect();
        for option in options {
            let lines: Vec<_> = option.lines().filter(|line| !line.trim().is_empty()).collect();
            let explained = lines.get(2).is_some_and(|line| line.ends_with('.') || line.len() > 20);
            assert!(explained, "{}: {option}", page.name);
        }
        assert!(has_a_summary(&page), "{}: {}", page.name, page.summary);
    }
}

/// One line for apropos(1).
fn has_a_summary(page: &Page) -> bool {
    page.summary.len() > 30 && page.summary.len() < 160 && !page.summary.contains('\n')
}

#[test]
fn every_message_of_the_log_is_explained() {
    for message in GROUPS.iter().flat_map(|group| group.messages) {
        let doc = message.doc.trim();
        assert!(doc.len() > 20 && doc.ends_with('.'), "{}: {doc}", message.text);
        assert!(!message.text.contains('\n') && !message.text.contains("  "), "{}", message.text);
    }
}

#[test]
fn man_pages_are_well_formed() {
    for page in pages() {
        let man = page.render(Format::Man);
        assert!(man.starts_with(".TH "), "{}", page.name);
        for section in [".SH NAME\n", ".SH DESCRIPTION\n"] {
            assert!(man.contains(section), "{}: no {section}", page.name);
        }
        // A line of text that begins with a dot or a quote would be taken for a request.
        const REQUESTS: [&str; 11] =
            [".TH", ".SH", ".TP", ".PP", ".IP", ".B", ".br", ".nf", ".fi", ".RS", ".BR"];
        for line in man.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next().unwrap_or_default();
            assert!(REQUESTS.contains(&request) || request == ".RE", "{}: {line}", page.name);
        }
    }
}

#[test]
fn the_configuration_that_comes_along_has_no_surprise() {
    let path = root().join("etc/mtpolicyd.conf");
    match Settings::load(&path, None) {
        Ok((_, messages)) => assert!(messages.is_empty(), "{messages}"),
        Err(messages) => panic!("{messages}"),
    }
}

/// The table of what a request can do to each plugin has a row for each, and says something in it.
#[test]
fn every_plugin_is_in_the_table_of_failures() {
    let text = fs::read_to_string(root().join("docs/failures.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<Vec<&str>> =
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let named: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let mut known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    known.sort_unstable();
    assert_eq!(named, known, "docs/failures.md names each plugin once, in the order of the alphabet");
    for row in &rows {
        let nothing = row.get(1).is_some_and(|cause| cause.starts_with("nothing"));
        let says = row.len() == 3 && row[1].len() > 6 && (nothing || row[2].len() > 6);
        assert!(says, "docs/failures.md says too little about {}", row[0]);
    }
}
