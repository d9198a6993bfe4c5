//! Option files of MariaDB and MySQL (`my.cnf`).
//!
//! Knows: their grammar. Must not know: what an option means.

use std::path::Path;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 256 << 10;

/// The groups that count for every client.
const CLIENTS: [&str; 3] = ["client", "client-server", "client-mariadb"];

/// The options of all clients and of one group, in their order, names with hyphens.
pub(super) fn read(file: &str, group: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let bytes = safe_files::read(Path::new(file), MAX_BYTES);
    let bytes = bytes.map_err(|error| format!("can't read `mysql_read_default_file={file}`: {error}"))?;
    let text = String::from_utf8_lossy(&bytes);
    options(&text, group).map_err(|why| format!("{file}: {why}"))
}

fn options(text: &str, group: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let mut counts = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if line.starts_with('!') {
            return Err(format!("`{line}` is not supported; name the file with the options of the client"));
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or_default().trim();
            counts = CLIENTS.contains(&name) || group == Some(name);
            continue;
        }
        if counts {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            found.push((name.trim().replace('_', "-"), unquoted(value.trim())));
        }
    }
    Ok(found)
}

/// The value without its quotes or the comment behind it, and with its escapes resolved.
fn unquoted(value: &str) -> String {
    let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let value = quoted.unwrap_or_else(|| value.split(" #").next().unwrap_or_default().trim_end());
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('b') => text.push('\u{8}'),
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('s') => text.push(' '),
            Some(other @ ('\\' | '"' | '\'')) => text.push(other),
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_clients_and_of_one_group_are_found() {
        let text = "port=1\n[mysqld]\nport = 2\n[client]\n# a comment\nuser=joe\npassword = \"a#b\\\\c\"\n\
                    ssl-verify_server_cert\n[mtpolicyd]\nhost = db.example # here\n[mysql]\nhost=other\n";
        let found = |group| {
            let options = options(text, group).unwrap();
            options.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(None), "user=joe password=a#b\\c ssl-verify-server-cert=");
        assert_eq!(
            found(Some("mtpolicyd")),
            "user=joe password=a#b\\c ssl-verify-server-cert= host=db.example"
        );
        assert!(options("!includedir /etc/mysql/conf.d/\n", None).unwrap_err().contains("!includedir"));
    }
}
