//! Passwords and keys: what of a file may be shown, and whether every user of the machine can read it.
//!
//! Knows: which options are secret, the rights of files. Must not know: what a connection is.

use super::{ConsoleOptions, MetricsOptions, NotifyOptions, session_option_specs};
use super::{ControlOptions, DnsOptions, Globals, HostOptions, JournalOptions};
use crate::chain::StepOptions;
use crate::connections;
use crate::options::{OptionSpec, Options, Report, codes};
use crate::plugins::KINDS;
use crate::value::{is_key_elsewhere, key_files};
use config_general::{Block, Entry, Item, Sources, Span};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The right of everybody else to read.
const OTHERS_READ: u32 = 0o004;

/// What a value is replaced with.
pub(super) const HIDDEN: &str = "(not shown)";

/// Blocks whose tags hold no secret.
const BLOCKS: [&str; 11] = [
    "VirtualHost",
    "Plugin",
    "Connection",
    "SessionCache",
    "Dns",
    "Ticket",
    "Control",
    "Journal",
    "Metrics",
    "Notify",
    "Console",
];

/// Whether an option may be secret, by its name; options that nobody knows are not in it.
static OPTIONS: LazyLock<BTreeMap<String, bool>> = LazyLock::new(|| {
    let all = [
        Globals::specs(),
        HostOptions::specs(),
        StepOptions::specs(),
        DnsOptions::specs(),
        ControlOptions::specs(),
        JournalOptions::specs(),
        MetricsOptions::specs(),
        NotifyOptions::specs(),
        ConsoleOptions::specs(),
    ];
    let sessions = session_option_specs().into_iter().map(|(_, specs)| specs);
    let connections = connections::option_specs().into_iter().map(|module| module.options);
    let plugins = KINDS.iter().flat_map(|kind| {
        let blocks = (kind.blocks)().into_iter().map(|(_, specs)| specs);
        std::iter::once((kind.options)()).chain(blocks)
    });
    let mut options = BTreeMap::new();
    let specs = all.into_iter().chain(sessions).chain(connections).chain(plugins).flatten();
    for OptionSpec { name, user_config, may_be_secret, .. } in specs {
        if user_config {
            options.insert(format!("uc_{name}"), false);
        }
        let may_be_secret = may_be_secret || is_password(&name) || name == "dsn";
        *options.entry(name).or_default() |= may_be_secret;
    }
    options
});

fn is_password(name: &str) -> bool {
    name.ends_with("password")
}

/// What may be shown of the lines of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// The lines as they are.
    Lines,
    /// The line up to this byte of its file.
    Until(usize),
    /// Not more than where it is.
    Nothing,
}

/// What is known of the secrets of a file.
#[derive(Default)]
pub(super) struct Secrecy<'a> {
    /// The tree, if the file could be read.
    pub(super) root: Option<&'a Block>,
    /// Where secrets stand, or may stand.
    pub(super) hidden: Vec<Span>,
    /// Options that were understood, and are not secrets.
    pub(super) plain: Vec<Span>,
}

impl Secrecy<'_> {
    /// What may be shown of the lines of a place: only what is known to be no secret.
    pub(super) fn shown(&self, span: Span, sources: &Sources) -> Shown {
        if let Some(entry) = self.root.and_then(|root| entry_at(root, span)) {
            return match entry.key_span {
                _ if self.may_be_shown(entry) => Shown::Lines,
                // A line of one word may be nothing but a password.
                key if entry.value.is_some() && contains(key, span) => Shown::Until(key.end as usize),
                _ => Shown::Nothing,
            };
        }
        let text = &sources.get(span.source).text;
        let from = text[..span.start as usize].rfind('\n').map_or(0, |before| before + 1);
        let line = text[from..].trim_start();
        let word = line.split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default();
        let is_shown = match word.strip_prefix('<') {
            Some(kind) if kind.starts_with(['/', '<']) => true,
            Some(kind) => BLOCKS.iter().any(|known| kind.trim_end_matches('>').eq_ignore_ascii_case(known)),
            None => OPTIONS.get(word).is_some_and(|may_be_secret| !may_be_secret),
        };
        let word_ends = text.len() - line.len() + word.len();
        match span.end as usize {
            _ if is_shown => Shown::Lines,
            end if word.starts_with('<') && end <= word_ends => Shown::Until(word_ends),
            _ => Shown::Nothing,
        }
    }

    /// Whether the value of an option is known to be no secret.
    pub(super) fn may_be_shown(&self, entry: &Entry) -> bool {
        let is_plain = || self.plain.contains(&whole(entry));
        let is_known = OPTIONS.get(&entry.key).is_some_and(|may_be_secret| !may_be_secret || is_plain());
        let is_hidden = || self.hidden.iter().any(|hidden| overlap(*hidden, whole(entry)));
        is_known && entry.key != "dsn" && !is_password(&entry.key) && !is_hidden()
    }

    /// A block of which only what is known to be no secret is left, for others than the administrator.
    pub(super) fn masked_for_others(&self, block: &Block) -> Block {
        let mut block = block.clone();
        let is_known_kind = block.kind.is_empty() || BLOCKS.contains(&block.kind.as_str());
        if !is_known_kind {
            block.name = block.name.map(|_| HIDDEN.to_owned());
        }
        for item in &mut block.items {
            match item {
                Item::Entry(entry) if self.may_be_shown(entry) => {}
                // A line of one word may be nothing but a password.
                Item::Entry(Entry { key, value: None, .. }) => HIDDEN.clone_into(key),
                Item::Entry(entry) => entry.value = Some(HIDDEN.to_owned()),
                Item::Block(inner) => *inner = self.masked_for_others(inner),
            }
        }
        block
    }

    /// A block without the values that may be secret.
    pub(super) fn masked(&self, block: &Block) -> Block {
        let mut block = block.clone();
        for item in &mut block.items {
            match item {
                Item::Entry(entry) => {
                    if self.hidden.iter().any(|hidden| overlap(*hidden, whole(entry))) {
                        entry.value = entry.value.as_ref().map(|_| HIDDEN.to_owned());
                    }
                }
                Item::Block(inner) => *inner = self.masked(inner),
            }
        }
        block
    }
}

fn whole(entry: &Entry) -> Span {
    Span { end: entry.value_span.end.max(entry.key_span.end), ..entry.key_span }
}

fn contains(outer: Span, inner: Span) -> bool {
    outer.source == inner.source && outer.start <= inner.start && inner.end <= outer.end
}

fn overlap(one: Span, other: Span) -> bool {
    one.source == other.source && one.start < other.end && other.start < one.end
}

/// The option that a place is in.
pub(super) fn entry_at(block: &Block, span: Span) -> Option<&Entry> {
    let here = block.entries().find(|entry| contains(whole(entry), span));
    here.or_else(|| block.blocks().find_map(|inner| entry_at(inner, span)))
}

/// The places of all secrets of a file, each from its key to the end of its value: those that the types of
/// options have told, and passwords. Warns of every one in a file that others can read.
pub(super) fn check(root: &Block, sources: &Sources, report: &Report) -> Vec<Span> {
    let told = report.secrets();
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
    for (span, path) in keys_elsewhere(root) {
        if readable_by_others(&path) {
            warn(span, "key", &path, report);
        }
    }
    let mut logins = Vec::new();
    find_logins(root, &mut logins);
    [told, passwords, logins, report.hidden()].concat()
}

/// The files in which keys and passwords stand that the configuration does not hold itself, each with the
/// option that names it.
pub(super) fn keys_elsewhere(block: &Block) -> Vec<(Span, PathBuf)> {
    let may_be_secret = |entry: &&Entry| OPTIONS.get(&entry.key).is_some_and(|may_be| *may_be);
    let entries = block.entries().filter(may_be_secret);
    let own = entries.flat_map(|entry| {
        let files = key_files(entry.value.as_deref().unwrap_or_default());
        files.into_iter().map(|path| (whole(entry), path))
    });
    own.chain(block.blocks().flat_map(keys_elsewhere)).collect()
}

/// Finds the values that are not shown whether or not there is a password in them: data sources, and
/// addresses of servers with something before an `@`.
fn find_logins(root: &Block, found: &mut Vec<Span>) {
    for block in root.blocks() {
        find_logins(block, found);
        let logins = block.entries().filter(|entry| {
            let value = entry.value.as_deref().unwrap_or_default();
            entry.key == "dsn" || is_address(&entry.key) && (value.contains('@') || value.contains("://"))
        });
        found.extend(logins.map(whole));
    }
}

/// Whether an option holds addresses of servers, in which people may write a user and a password.
fn is_address(name: &str) -> bool {
    matches!(name, "host" | "server" | "servers" | "sentinels" | "cluster")
}

fn find_passwords(root: &Block, found: &mut Vec<Span>) {
    for block in root.blocks() {
        find_passwords(block, found);
        let is_set = |value: &&str| !value.is_empty();
        let passwords = block.entries().filter(|entry| {
            let value = entry.value.as_deref().filter(is_set);
            value.is_some_and(|value| may_have_password(&entry.key, value))
        });
        found.extend(passwords.map(whole));
    }
}

/// Whether a value is a password, or may have one in it.
pub(super) fn may_have_password(name: &str, value: &str) -> bool {
    is_password(name) && !is_key_elsewhere(value)
        || name == "dsn" && source_has_password(value)
        || is_address(name) && value.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
}

/// Whether there is a password in a data source: as a name of Perl's DBI, or in a URL.
fn source_has_password(source: &str) -> bool {
    let login = source.split_once("://").and_then(|(_, rest)| Some(rest.rsplit_once('@')?.0));
    // Perl's DBI ignores case, and takes `Password => x` in parentheses too.
    let words: String = source.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    let is_named = ["password=", "passwd=", "pass=", "pwd="].iter().any(|name| words.contains(name));
    is_named || login.is_some_and(|login| login.contains(':'))
}

fn warn(span: Span, what: &str, path: &Path, report: &Report) {
    let message = format!("this {what} is readable by every user: {}", path.display());
    let help = "let only root and the group of the daemon read the file: chown root:mtpolicyd, chmod 640";
    report.say(&codes::READABLE_SECRET, span, message, Some(help.to_owned()));
}

fn readable_by_others(path: &Path) -> bool {
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
            ("dbi:Pg:dbname=x;PASSWORD=hunter2", 1),
            ("dbi:Pg:dbname=x;Password = hunter2", 1),
            ("dbi:mysql(PrintError=>0,Password=>hunter2):database=x", 1),
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

    #[test]
    fn a_password_in_the_address_of_a_server_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        let step = "<Plugin a>\nmodule = Action\naction = dunno\n</Plugin>\n";
        let connection = |lines: &str| {
            format!(
                "<Connection c>\n{lines}\n</Connection>\n<VirtualHost 1>\nname = x\n{step}</VirtualHost>\n"
            )
        };
        let plugin = |lines: &str| {
            format!("<VirtualHost 1>\nname = x\n<Plugin b>\n{lines}\n</Plugin>\n{step}</VirtualHost>\n")
        };
        for text in [
            connection("module = Redis\nserver = \"redis://:hunter2@h:6379\""),
            connection("module = Redis\nserver = \":hunter2@h\""),
            connection("module = Redis\nserver = \"rediss://u:hunter2\""),
            connection("module = Redis\nsentinels = \"u:hunter2@h:6379\"\nservice = x"),
            connection("module = Redis\ncluster = \"rediss://u:hunter2@h/0\""),
            connection("module = Ldap\nhost = \"ldap://u:hunter2@h/\""),
            connection("module = Memcached\nservers = \"u:hunter2@h:11211\""),
            plugin("module = Proxy\nhost = \"u:hunter2@h:1\""),
            plugin("module = HttpLookup\nurl = \"http://u:hunter2\""),
            plugin("module = HttpLookup\nurl = \"http://127.0.0.1/hook/hunter2\""),
            plugin("module = CtIpRep\nkey = k\nurl = \"http://u:hunter2\""),
            plugin("module = SaAwlLookup\ndsn = \"dbi:Pg:dbname=m;PASSWORD=hunter2\""),
            plugin("module = SaAwlLookup\ndsn = \"dbi:Pg:dbname=m;key hunter2\""),
            plugin("module = SaAwlLookup\ndsn = \"dbi:mysql(PrintError=>0,Password=>hunter2):database=m\""),
        ] {
            std::fs::write(&path, &text).unwrap();
            let dump = Settings::dump(&path).map_or_else(|messages| messages.to_string(), |(dump, _)| dump);
            let said = said(&text);
            assert!(!dump.contains("hunter2") && !said.contains("hunter2"), "{text}\n{said}\n{dump}");
        }
    }

    /// What is said of a file, or of why it can't be used.
    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        std::fs::write(&path, text).unwrap();
        let messages = match Settings::load(&path, None) {
            Ok((_, messages)) | Err(messages) => messages,
        };
        let lines: Vec<_> = messages.lines().map(|(_, line)| line).collect();
        format!("{messages}\n{}", lines.join("\n"))
    }

    #[test]
    fn a_line_that_nobody_understands_shows_no_value() {
        let wrong = [
            "<Connection db>\nmodule = Redis\nLINE\n</Connection>\n",
            "<Connection db>\nmodule = Rdis\nLINE\n</Connection>\n",
            "<Conection db>\nLINE\n</Conection>\n",
            "LINE\n",
            "<VirtualHost 12345>\nLINE\n</VirtualHost>\n",
            "<VirtualHost 12345>\n<Plugin a>\nmodule = HttpLookup\nLINE\n</Plugin>\n</VirtualHost>\n",
            // What is never closed keeps the whole file from being understood.
            "<VirtualHost 12345>\n<Plugin a>\nmodule = HttpLookup\nLINE\n</Plugin>\n",
        ];
        let lines = [
            "pasword = hunter2",
            "pasword = 'hunter2'",
            "pasword = \"hunter2",
            "pasword = <<END\nhunter2\nhunter2\nEND",
            "pasword = a\\\nhunter2",
            "pasword = a\npasword = hunter2",
            "password = 'hunter2'",
            "password hunter2",
            "passw0rd=hunter2#glued",
            "hunter2",
            "tokn = hunter2",
            "token = hunter2",
            "<password hunter2>\n</password>",
            "<pasword hunter2>\npassword=hunter2\n</pasword>",
            "url = \"http://127.0.0.1/?key=hunter2\" #\nurl = 'http://x/?key=hunter2'",
        ];
        for file in wrong {
            for line in lines {
                let said = said(&file.replace("LINE", line));
                assert!(!said.contains("hunter2"), "{file}{line}:\n{said}");
                assert!(!said.trim().is_empty());
            }
        }
        let known = said("<VirtualHost 12345>\nnam = x\non_error = nver\n</VirtualHost>\n");
        assert!(known.contains("nam ...") && known.contains("on_error = nver"), "{known}");
    }

    #[test]
    fn the_dump_has_everything_but_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        let text = "<VirtualHost 12345>\nname = test\nnmae = hunter2\n<Plugin look>\nmodule = HttpLookup\n\
                    url = \"http://127.0.0.1/?key=hunter2\"\ntoken = hunter2\n</Plugin>\n\
                    <Plugin list>\nmodule = RBL\ndomain = hunter2hunter2hunter2.zen.example\n</Plugin>\n\
                    <Plugin a>\nmodule = Action\naction = \"reject it\"\n</Plugin>\n</VirtualHost>\n";
        std::fs::write(&path, text).unwrap();
        let (dump, _) = Settings::dump(&path).unwrap_or_else(|messages| panic!("{messages}"));
        assert!(!dump.contains("hunter2"), "{dump}");
        for kept in ["name = \"test\"", "token = \"(not shown)\"", "action = \"reject it\""] {
            assert!(dump.contains(kept), "{dump}");
        }
    }
}
