//! Passwords in files that every user of the machine can read.
//!
//! Knows: which options are secret, the rights of files. Must not know: what a connection is.

use crate::options::Report;
use config_general::{Block, Entry, Sources, Span};
use std::os::unix::fs::PermissionsExt;

/// The right of everybody else to read.
const OTHERS_READ: u32 = 0o004;

/// The places of all secrets of a file, each from its key to the end of its value: those that the types of
/// options have told, and passwords. Warns of every one in a file that others can read.
pub(super) fn check(root: &Block, sources: &Sources, told: Vec<Span>, report: &Report) -> Vec<Span> {
    let mut passwords = Vec::new();
    find_passwords(root, &mut passwords);
    passwords.retain(|password| told.iter().all(|secret| secret.start != password.start));
    for (what, spans) in [("secret", &told), ("password", &passwords)] {
        for span in spans {
            let path = &sources.get(span.source).path;
            if readable_by_others(path) {
                warn(*span, what, path, report);
            }
        }
    }
    [told, passwords].concat()
}

fn find_passwords(root: &Block, found: &mut Vec<Span>) {
    for block in root.blocks() {
        find_passwords(block, found);
        let passwords = block.entries().filter(|entry| {
            let is_set = entry.value.as_deref().is_some_and(|value| !value.is_empty());
            is_set && (entry.key.ends_with("password") || entry.key == "dsn" && has_password(entry))
        });
        found.extend(passwords.map(|entry| Span { end: entry.value_span.end, ..entry.key_span }));
    }
}

/// Whether there is a password in a data source: as a name of Perl's DBI, or in a URL.
fn has_password(entry: &Entry) -> bool {
    let source = entry.value.as_deref().unwrap_or_default();
    let login = source.split_once("://").and_then(|(_, rest)| Some(rest.rsplit_once('@')?.0));
    source.contains("password=") || login.is_some_and(|login| login.contains(':'))
}

fn warn(span: Span, what: &str, path: &std::path::Path, report: &Report) {
    let message = format!("this {what} is readable by every user: {}", path.display());
    let help = "let only root and the group of the daemon read the file: chown root:mtpolicyd, chmod 640";
    report.warning(span, message, Some(help.to_owned()));
}

fn readable_by_others(path: &std::path::Path) -> bool {
    path.metadata().is_ok_and(|file| file.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn a_password_that_everybody_can_read_is_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        let text = "<Connection redis>\nmodule = Redis\npassword = hunter2\n</Connection>\n\
                    <VirtualHost 12345>\nname = test\n<Plugin a>\nmodule = Action\n\
                    action = dunno\n</Plugin>\n</VirtualHost>\n";
        std::fs::write(&path, text).unwrap();
        for (mode, warned) in [(0o644, true), (0o640, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let messages = Settings::load(&path, None).unwrap_or_else(|messages| panic!("{messages}")).1;
            let text = messages.to_string();
            assert_eq!(text.contains("readable by every user"), warned, "{text}");
            assert!(!text.contains("hunter2"), "{text}");
            assert!(messages.lines().all(|(_, line)| !line.contains("hunter2")), "{text}");
        }
    }

    #[test]
    fn a_data_source_may_have_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        for (dsn, warnings) in [
            ("dbi:Pg:dbname=x;host=127.0.0.1;user=me;password=hunter2", 1),
            ("postgres://me:hunter2@127.0.0.1/x", 1),
            ("postgres://me@127.0.0.1:5432/x", 0),
            ("dbi:Pg:dbname=x", 0),
        ] {
            let text = format!(
                "<Connection db>\nmodule = Sql\ndsn = \"{dsn}\"\n</Connection>\n<VirtualHost 12345>\n\
                 name = test\n<Plugin a>\nmodule = Action\naction = dunno\n</Plugin>\n</VirtualHost>\n"
            );
            std::fs::write(&path, text).unwrap();
            let messages = match Settings::load(&path, None) {
                Ok((_, messages)) => messages,
                Err(messages) => messages,
            };
            let text = messages.to_string();
            assert_eq!(text.matches("readable by every user").count(), warnings, "{dsn}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn so_is_a_secret_of_a_plugin_and_its_line_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        for (option, warnings) in [
            ("module = CtIpRep\nkey = hunter2", 1),
            ("module = CtIpRep\nkey = <<END\nhunter2\nhunter2\nEND", 0),
            ("module = CtIpRep\nkey = hunter2\nkey = hunter2", 0),
            ("module = HttpLookup\nurl = \"http://me:hunter2@127.0.0.1/\"", 1),
            ("module = HttpLookup\nurl = \"http://me:hunter2@127.0.0.1:0/\"", 0),
            ("module = SaAwlLookup\ndb_file = /x\npassword = <<END\nhunter2\nhunter2\nEND", 1),
            ("module = RegexList\nkey = sender\nregex = .", 0),
        ] {
            let text = format!(
                "<VirtualHost 12345>\nname = test\n<Plugin a>\n{option}\n</Plugin>\n</VirtualHost>\n"
            );
            std::fs::write(&path, text).unwrap();
            let messages = match Settings::load(&path, None) {
                Ok((_, messages)) => messages,
                Err(messages) => messages,
            };
            let text = messages.to_string();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(messages.lines().all(|(_, line)| !line.contains("hunter2")), "{text}");
            if !messages.has_errors() {
                assert_eq!(text.matches("readable by every user").count(), warnings, "{text}");
            }
        }
    }
}
