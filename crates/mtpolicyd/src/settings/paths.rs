//! The files that a configuration names and that are opened later, by the daemon's own user.
//!
//! Knows: which options name files, and what is done with them. Must not know: what is in them, who may.

use super::journal::DEFAULT_FILE;
use super::relative::files_of_source;
use crate::address::ListenAddress;
use config_general::{Block, Entry, Sources};
use std::path::PathBuf;

/// A path that an option names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// `file:line: option`.
    pub place: String,
    /// The path.
    pub path: PathBuf,
    /// What the daemon does with it.
    pub access: Access,
}

/// What the daemon does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It has to be there, and readable.
    Read,
    /// It is written, and made if it is not there.
    Make,
    /// It is made at the start, perhaps by root: the folder has to be there.
    Folder,
}

/// All of them, in the order of the file.
pub(super) fn named(root: &Block, addresses: &[ListenAddress], sources: &Sources) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let ports = root.entries().filter(|entry| entry.key == "port");
    for (entry, address) in ports.flat_map(|entry| addresses.iter().map(move |address| (entry, address))) {
        if let ListenAddress::Unix(path) = address {
            found.push(NamedPath {
                place: place(entry, sources),
                path: path.clone(),
                access: Access::Folder,
            });
        }
    }
    collect(root, root, sources, &mut found);
    found
}

fn collect(block: &Block, root: &Block, sources: &Sources, found: &mut Vec<NamedPath>) {
    for entry in block.entries() {
        let value = entry.value.as_deref().unwrap_or_default();
        let named: Vec<(PathBuf, Access)> = match (block.kind.as_str(), entry.key.as_str()) {
            ("", "log_file") => vec![(value.into(), Access::Make)],
            ("", "pid_file") => vec![(value.into(), Access::Folder)],
            ("Control", "socket") => vec![(value.into(), Access::Folder)],
            ("Console", "tls_cert" | "tls_key") => vec![(value.into(), Access::Read)],
            ("Console", "tokens") => vec![(value.into(), Access::Make)],
            ("Console", "listen") => vec![(value.into(), Access::Folder)],
            ("Journal", "file") => vec![(value.into(), Access::Make)],
            ("Connection", "dsn") => {
                let name = block.name.as_deref().unwrap_or_default();
                source(value, if is_only_read(name, root) { Access::Read } else { Access::Make })
            }
            // A plugin's own database is one of another program.
            ("Plugin", "dsn") => source(value, Access::Read),
            ("Plugin", "db_file") => map(value).into_iter().collect(),
            ("Plugin", "database" | "database6" | "asn_database" | "asn_database6") => {
                vec![(value.into(), Access::Read)]
            }
            ("VirtualHost", "shadow") => vec![(value.into(), Access::Read)],
            _ => Vec::new(),
        };
        // A place is looked for in the whole file, so only for those that name something.
        let named = named.into_iter().filter(|(path, _)| path.is_absolute());
        found.extend(named.map(|(path, access)| NamedPath { place: place(entry, sources), path, access }));
    }
    let is_elsewhere = |entry: &Entry| matches!(entry.key.as_str(), "file" | "connection");
    if block.kind == "Journal" && block.name.is_none() && !block.entries().any(is_elsewhere) {
        let position = sources.position(block.span);
        let file = sources.get(block.span.source).path.display();
        let place = format!("{file}:{}: file", position.line);
        found.push(NamedPath { place, path: DEFAULT_FILE.into(), access: Access::Make });
    }
    block.blocks().for_each(|inner| collect(inner, root, sources, found));
}

/// How a block uses a connection of this name.
fn use_of(block: &Block, name: &str) -> Option<Access> {
    /// The plugins that only read a database.
    const READERS: [&str; 3] = ["SqlList", "SqlUserConfig", "SaAwlLookup"];
    /// The name of the connection where none is given.
    const USUAL_NAME: &str = "db";
    if !matches!(block.kind.as_str(), "Plugin" | "Ticket" | "AWL" | "SessionCache") {
        return None;
    }
    let given = |option: &str| {
        block.entries().find(|entry| entry.key == option).and_then(|entry| entry.value.as_deref())
    };
    let module = given("module");
    let is_reader = block.kind == "Plugin" && module.is_some_and(|module| READERS.contains(&module));
    let is_named = given("db") == Some(name) || given("store") == Some(name);
    let takes_default = match block.kind.as_str() {
        "Plugin" => is_reader || matches!(module, Some("Accounting" | "Quota" | "Greylist")),
        "SessionCache" => module == Some("Sql"),
        _ => module.is_none_or(|module| module == "Sql"),
    };
    let is_default = name == USUAL_NAME && given("db").is_none() && takes_default;
    (is_named || is_default).then_some(if is_reader { Access::Read } else { Access::Make })
}

/// Whether there are plugins that read a database, and nothing that writes to it.
fn is_only_read(name: &str, root: &Block) -> bool {
    fn uses(block: &Block, name: &str, found: &mut Vec<Access>) {
        found.extend(use_of(block, name));
        block.blocks().for_each(|inner| uses(inner, name, found));
    }
    let mut found = Vec::new();
    uses(root, name, &mut found);
    !found.is_empty() && found.iter().all(|access| *access == Access::Read)
}

fn place(entry: &Entry, sources: &Sources) -> String {
    let line = sources.position(entry.key_span).line;
    format!("{}:{line}: {}", sources.get(entry.key_span.source).path.display(), entry.key)
}

/// The file of `dbi:SQLite:dbname=FILE`, and what is done with it; certificates of other databases are read.
fn source(dsn: &str, access: Access) -> Vec<(PathBuf, Access)> {
    let (is_sqlite, parts) = files_of_source(dsn);
    let access = if is_sqlite { access } else { Access::Read };
    parts.into_iter().map(|(start, end)| (dsn[start..end].into(), access)).collect()
}

/// The file of a table of Postfix: with the ending that its type has.
fn map(table: &str) -> Option<(PathBuf, Access)> {
    let (kind, path) = table.split_once(':').unwrap_or(("hash", table));
    let ending = match kind {
        "hash" | "btree" => ".db",
        "lmdb" => ".lmdb",
        "cdb" => ".cdb",
        "texthash" | "cidr" | "regexp" | "pcre" => "",
        _ => return None,
    };
    let path = if path.ends_with(ending) { path.to_owned() } else { format!("{path}{ending}") };
    path.starts_with('/').then(|| (path.into(), Access::Read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_general::Limits;
    use std::path::Path;

    #[test]
    fn a_database_that_nobody_writes_to_is_only_read() {
        let list = "<Plugin a>\nmodule = SqlList\n</Plugin>\n";
        for (plugins, is_read) in [
            ("", false),
            (list, true),
            ("<Plugin a>\nmodule = SqlList\ndb = other\n</Plugin>\n", false),
            (&format!("{list}<Plugin q>\nmodule = Quota\n</Plugin>\n"), false),
            (&format!("{list}<Plugin q>\nmodule = Quota\ndb = other\n</Plugin>\n"), true),
            (&format!("{list}<Plugin r>\nmodule = RateLimit\nstore = db\n</Plugin>\n"), false),
            (&format!("{list}<Plugin r>\nmodule = RateLimit\nstore = memory\n</Plugin>\n"), true),
            (&format!("{list}<Plugin x>\nmodule = Action\n</Plugin>\n"), true),
            (
                &format!("{list}<Plugin g>\nmodule = Greylist\n<AWL>\nmodule = Memory\n</AWL>\n</Plugin>\n"),
                false,
            ),
            (&format!("{list}<SessionCache>\nmodule = Sql\n</SessionCache>\n"), false),
            (&format!("{list}<SessionCache>\nmodule = Memory\n</SessionCache>\n"), true),
        ] {
            let document =
                config_general::parse(Path::new("c"), plugins.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(is_only_read("db", &document.root), is_read, "{plugins}");
        }
    }

    #[test]
    fn files_are_found_by_their_options() {
        let text = "log_file = /l\nport = \"12345, /s|unix\"\n<Connection db>\n\
                    dsn = \"dbi:SQLite:dbname=/d\"\n</Connection>\n<VirtualHost x>\n<Plugin a>\n\
                    db_file = \"hash:/m\"\n</Plugin>\n<Plugin b>\n\
                    db_file = \"tcp:localhost:1\"\ndatabase = relative\n</Plugin>\n<Plugin c>\n\
                    dsn = dbi:SQLite:/e\nasn_database6 = /g\n</Plugin>\n</VirtualHost>\n\
                    <Connection my>\ndsn = \"dbi:mysql:mail;mysql_ssl_ca_file=/c\"\n</Connection>\n\
                    <Journal>\nfile = /j\n</Journal>\n<Journal>\n</Journal>\n<Journal off>\n</Journal>\n";
        let document = config_general::parse(Path::new("c"), text.as_bytes(), &Limits::default()).unwrap();
        let addresses = ListenAddress::parse_list("12345, /s|unix", None).unwrap();
        let found = named(&document.root, &addresses, &document.sources);
        let shown: Vec<_> = found
            .iter()
            .map(|NamedPath { place, path, access }| format!("{place} {} {access:?}", path.display()))
            .collect();
        let expected = [
            "c:2: port /s Folder",
            "c:1: log_file /l Make",
            "c:4: dsn /d Make",
            "c:8: db_file /m.db Read",
            "c:15: dsn /e Read",
            "c:16: asn_database6 /g Read",
            "c:20: dsn /c Read",
            "c:23: file /j Make",
            "c:25: file /var/lib/mtpolicyd/journal.db Make",
        ];
        assert_eq!(shown, expected);
    }
}
