//! Which file a path means that is not absolute: the same one whatever folder a program is started in, or a
//! warning, so that `check` and the service do not read two files.
//!
//! Knows: which options name files. Must not know: what is in them.

use crate::options::{Report, codes};
use config_general::{Block, Entry, Item, Sources};
use std::path::{Path, absolute};

/// Options whose value is a path: the kind of block, and the name.
const PATHS: [(&str, &str); 29] = [
    ("", "chroot"),
    ("", "log_file"),
    ("", "pid_file"),
    ("Connection", "dsn"),
    ("Connection", "sock"),
    ("Connection", "tls_ca"),
    ("Connection", "tls_certificate"),
    ("Connection", "tls_key"),
    ("Console", "tls_cert"),
    ("Console", "tls_key"),
    ("Console", "tokens"),
    ("Control", "socket"),
    ("Journal", "file"),
    ("Notify", "secret_file"),
    ("Notify", "tls_ca"),
    ("Plugin", "asn_database"),
    ("Plugin", "asn_database6"),
    ("Plugin", "database"),
    ("Plugin", "database6"),
    ("Plugin", "db_file"),
    ("Plugin", "dsn"),
    ("Plugin", "file"),
    ("Plugin", "proxymap_socket"),
    ("Plugin", "socket"),
    ("Plugin", "socket_path"),
    ("Plugin", "tls_ca"),
    ("Plugin", "whitelist_clients"),
    ("Plugin", "whitelist_recipients"),
    ("VirtualHost", "shadow"),
];

/// Settings of a data source whose values are paths.
const IN_SOURCES: [&str; 9] = [
    "mysql_read_default_file",
    "mysql_socket",
    "mysql_ssl_ca_file",
    "mysql_ssl_client_cert",
    "mysql_ssl_client_key",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "tls_ca",
];

/// Types of Postfix's tables that are files.
const FILES: [&str; 8] = ["hash", "btree", "lmdb", "cdb", "texthash", "cidr", "regexp", "pcre"];

/// Makes every path absolute.
pub(super) fn resolve(block: &mut Block, sources: &Sources, report: &Report) {
    let kind = block.kind.clone();
    for item in &mut block.items {
        match item {
            Item::Block(inner) => resolve(inner, sources, report),
            Item::Entry(entry) if PATHS.contains(&(kind.as_str(), entry.key.as_str())) => {
                let Some(value) = entry.value.clone() else { continue };
                let found = parts(&entry.key, &value).into_iter().rev();
                let resolved = found.fold(value.clone(), |text, (start, end)| {
                    let path = find(&value[start..end], entry, sources, report);
                    format!("{}{path}{}", &text[..start], &text[end..])
                });
                entry.value = Some(resolved);
            }
            Item::Entry(_) => {}
        }
    }
}

/// Where in the value of an option relative paths stand, in order.
fn parts(key: &str, value: &str) -> Vec<(usize, usize)> {
    let is_relative = |path: &str| !path.is_empty() && !path.starts_with('/');
    let whole = |start: usize| Some((start, value.len())).filter(|_| is_relative(&value[start..]));
    match key {
        "dsn" => {
            let (_, found) = files_of_source(value);
            found.into_iter().filter(|(start, end)| is_relative(&value[*start..*end])).collect()
        }
        "db_file" => match value.split_once(':') {
            None => whole(0).into_iter().collect(),
            Some((kind, _)) if FILES.contains(&kind) => whole(kind.len() + 1).into_iter().collect(),
            Some(_) => Vec::new(),
        },
        _ => whole(0).into_iter().collect(),
    }
}

/// Where in a data source paths stand, absolute or not, and whether they are databases of SQLite:
/// `dbi:SQLite:dbname=FILE`, `dbi:mysql:...;mysql_ssl_ca_file=FILE`, `postgres://...?sslrootcert=FILE`.
pub(super) fn files_of_source(value: &str) -> (bool, Vec<(usize, usize)>) {
    let nothing = (false, Vec::new());
    let Some((scheme, rest)) = value.split_once(':') else { return nothing };
    let (is_sqlite, settings, separator) = if scheme.eq_ignore_ascii_case("dbi") {
        let Some((driver, settings)) = rest.split_once(':') else { return nothing };
        (driver.eq_ignore_ascii_case("sqlite"), settings, ';')
    } else if scheme.eq_ignore_ascii_case("sqlite") {
        (true, rest.trim_start_matches("//"), '?')
    } else {
        (false, rest.split_once('?').unwrap_or_default().1, '&')
    };
    let mut found = Vec::new();
    let mut start = value.len() - settings.len();
    for setting in settings.split(separator) {
        let (name, path) = setting.split_once('=').unwrap_or(("", setting));
        let names_file = if is_sqlite {
            // Memory, and URIs, are what they are; percent signs are for what decodes them.
            let is_path = !path.contains(':') && (separator == ';' || !path.contains('%'));
            is_path && matches!(name.trim(), "" | "db" | "dbname" | "database")
        } else {
            IN_SOURCES.contains(&name.trim())
        };
        let end = start + setting.len();
        if names_file {
            found.push((end - path.trim_start().len(), end));
        }
        start = end + 1;
    }
    (is_sqlite, found)
}

/// The absolute path of a relative one: beside the file that has the line if it is there, else, as in the
/// original, in the folder in which the program was started, which is said.
fn find(path: &str, entry: &Entry, sources: &Sources, report: &Report) -> String {
    let folder = sources.get(entry.key_span.source).path.parent().unwrap_or(Path::new(""));
    let beside = absolute(folder.join(path)).ok();
    let here = absolute(path).ok();
    // A table is named without its ending.
    let is_there = |path: &&std::path::PathBuf| {
        path.exists()
            || [".db", ".lmdb", ".cdb"]
                .iter()
                .any(|ending| Path::new(&format!("{}{ending}", path.display())).exists())
    };
    if let Some(found) = beside.as_ref().filter(is_there) {
        return found.display().to_string();
    }
    let Some(here) = here else { return path.to_owned() };
    if beside.as_ref() != Some(&here) {
        let shown = here.display();
        let help = format!("write the full path, or put the file into {}", folder_of(folder));
        let key = &entry.key;
        let message = format!(
            "{key}: `{path}` is {shown} only for a program that is started in the same folder as this one"
        );
        report.say(&codes::text::RELATIVE_PATH, entry.value_span, message, Some(help));
    }
    here.display().to_string()
}

fn folder_of(folder: &Path) -> String {
    absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .map_or_else(|_| "the folder of this configuration".to_owned(), |folder| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::KINDS;

    fn found<'a>(key: &str, value: &'a str) -> Vec<&'a str> {
        parts(key, value).into_iter().map(|(start, end)| &value[start..end]).collect()
    }

    #[test]
    fn paths_are_found_in_values() {
        let none: [&str; 0] = [];
        assert_eq!(found("file", "lists/a"), ["lists/a"]);
        assert_eq!(found("file", "/lists/a"), none);
        assert_eq!(found("db_file", "map"), ["map"]);
        assert_eq!(found("db_file", "hash:map"), ["map"]);
        assert_eq!(found("db_file", "hash:/map"), none);
        assert_eq!(found("db_file", "proxy:hash:map"), none);
        assert_eq!(found("db_file", "socketmap:unix:s:n"), none);
        assert_eq!(found("dsn", "dbi:SQLite:dbname=a.db;sqlite_unicode=1"), ["a.db"]);
        assert_eq!(found("dsn", "DBI:sqlite:a.db"), ["a.db"]);
        assert_eq!(found("dsn", "dbi:SQLite:dbname=:memory:"), none);
        assert_eq!(found("dsn", "dbi:SQLite:uri=file:a.db"), none);
        assert_eq!(found("dsn", "dbi:mysql:database=mail;mysql_ssl_ca_file=ca.pem;port=1"), ["ca.pem"]);
        assert_eq!(found("dsn", "dbi:Pg:dbname=mail;sslrootcert=a;tls_ca=b"), ["a", "b"]);
        assert_eq!(found("dsn", "postgres://host/mail"), none);
        assert_eq!(found("dsn", "postgres://host/mail?sslmode=verify-full&sslrootcert=ca.pem"), ["ca.pem"]);
        assert_eq!(found("dsn", "sqlite://a.db"), ["a.db"]);
        assert_eq!(found("dsn", "sqlite:///a.db"), none);
    }

    #[test]
    fn every_option_that_says_that_it_is_a_path_is_known() {
        let mut seen = 0;
        for kind in KINDS {
            for option in (kind.options)() {
                let says = option.form.starts_with("path of") || option.doc.contains("The path of");
                if says {
                    let is_known = PATHS.contains(&("Plugin", option.name.as_str()));
                    assert!(is_known, "PATHS does not have {} of {}", option.name, kind.name);
                    seen += 1;
                }
            }
        }
        assert!(seen >= 6, "only {seen} options say so");
    }
}
