//! Option files of MariaDB and MySQL (`my.cnf`).
//!
//! Knows: their grammar. Must not know: what an option means.

use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 256 << 10;

/// The groups that count for every client.
const CLIENTS: [&str; 3] = ["client", "client-server", "client-mariadb"];

/// How deep files may include others, as in the client library.
const MAX_DEPTH: usize = 10;

/// The most files that are read in all.
const MAX_FILES: usize = 100;

/// The options of all clients and of one group, in their order, names with hyphens.
pub(super) fn read(file: &str, group: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let mut reader = Reader { group, files: 0, found: Vec::new() };
    reader
        .read(Path::new(file), 0)
        .map_err(|error| format!("can't read `mysql_read_default_file={file}`: {error}"))?;
    Ok(reader.found)
}

/// What has been read of a file and of those that it includes.
struct Reader<'a> {
    group: Option<&'a str>,
    files: usize,
    found: Vec<(String, String)>,
}

impl Reader<'_> {
    fn read(&mut self, file: &Path, depth: usize) -> Result<(), String> {
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return Err(format!("too many files include each other: {}", file.display()));
        }
        let bytes = safe_files::read(file, MAX_BYTES).map_err(|error| match depth {
            0 => error.to_string(),
            _ => format!("{}: {error}", file.display()),
        })?;
        let mut counts = false;
        for line in String::from_utf8_lossy(&bytes).lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(folder) = directive(line, "!includedir") {
                for file in option_files(Path::new(folder))? {
                    self.read(&file, depth + 1)?;
                }
            } else if let Some(file) = directive(line, "!include") {
                self.read(Path::new(file), depth + 1)?;
            } else if line.starts_with('!') {
                return Err(format!("{}: `{line}` is not supported", file.display()));
            } else if let Some(name) = line.strip_prefix('[') {
                let name = name.split(']').next().unwrap_or_default().trim();
                counts = CLIENTS.contains(&name) || self.group == Some(name);
            } else if counts {
                let (name, value) = line.split_once('=').unwrap_or((line, ""));
                self.found.push((name.trim().replace('_', "-"), unquoted(value.trim())));
            }
        }
        Ok(())
    }
}

/// What follows a directive, if the line is that one.
fn directive<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix(name)?.strip_prefix([' ', '\t']).map(str::trim)
}

/// The option files in a folder, in the order of their names.
fn option_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let paths = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
        let mut files = paths.collect::<Result<Vec<_>, _>>()?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == "cnf"));
        files.sort();
        Ok(files)
    };
    list().map_err(|error| format!("{}: {error}", folder.display()))
}

/// The value without its quotes or the comment behind it, and with its escapes resolved.
fn unquoted(value: &str) -> String {
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let (inside, behind) = value.strip_prefix(quote)?.rsplit_once(quote)?;
        let is_all = behind.is_empty() || behind.trim_start().starts_with('#');
        is_all.then_some(inside)
    });
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

    /// The options of a text, as words.
    fn found(text: &str, group: Option<&str>) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let options = read(file.path().to_str().unwrap(), group)?;
        Ok(options.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_options_of_clients_and_of_one_group_are_found() {
        let text = "port=1\n[mysqld]\nport = 2\n[client]\n# a comment\nuser=joe\npassword = \"a#b\\\\c\"\n\
                    ssl-verify_server_cert\n[mtpolicyd]\nhost = db.example # here\n[mysql]\nhost=other\n";
        let all = "user=joe password=a#b\\c ssl-verify-server-cert=";
        assert_eq!(found(text, None).unwrap(), all);
        assert_eq!(found(text, Some("mtpolicyd")).unwrap(), format!("{all} host=db.example"));
    }

    #[test]
    fn a_comment_may_follow_a_value_in_quotes() {
        let text = "[client]\nuser=\"joe\" # me\npassword='a #\"b' #\ninit-command=\"SET @a = 'x'\"\n";
        assert_eq!(found(text, None).unwrap(), "user=joe password=a #\"b init-command=SET @a = 'x'");
    }

    /// As Debian's `/etc/mysql/my.cnf`, which includes two folders.
    #[test]
    fn files_and_folders_are_included() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(at("conf.d")).unwrap();
        std::fs::write(at("conf.d/b.cnf"), "[client]\nuser=last\n").unwrap();
        std::fs::write(at("conf.d/a.cnf"), "[client]\nuser=first\npassword=secret\n").unwrap();
        std::fs::write(at("conf.d/c.cnf~"), "[client]\nuser=nobody\n").unwrap();
        std::fs::write(at("one"), format!("!include {}\n", at("one"))).unwrap();
        let text = format!("[client]\nport=3307\n!includedir {}/\nhost=db.example\n", at("conf.d"));
        assert_eq!(
            found(&text, None).unwrap(),
            "port=3307 user=first password=secret user=last host=db.example"
        );
        let wrong = |text: String| found(&text, None).unwrap_err();
        assert!(wrong(format!("!include {}\n", at("one"))).contains("include each other"));
        assert!(wrong("!includedir /no/such\n".to_owned()).contains("/no/such: "));
        assert!(wrong("!include /no/such.cnf\n".to_owned()).contains("/no/such.cnf: "));
        assert!(wrong("!exec x\n".to_owned()).contains("`!exec x` is not supported"));
    }
}
