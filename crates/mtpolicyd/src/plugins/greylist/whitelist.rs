//! Lists of clients and recipients that are not greylisted, in the format of postgrey(8).
//!
//! Knows: the format, addresses, names. Must not know: tickets.

use crate::fields::read_list;
use crate::network::{Network, NetworkTable, address_of};
use crate::value::Value;
use perl_regex::{Pattern, PatternList};
use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

/// One kind of list.
pub trait Entries: Default + Sized {
    /// Takes an entry of the file, or says what is wrong with it.
    fn add(&mut self, entry: &str) -> Result<(), String>;
    /// Has all entries.
    fn finish(&mut self) {}
}

/// A file of entries. It is read with the options, so that a missing one is a mistake like any other.
#[derive(Debug)]
pub struct ListFile<L> {
    path: String,
    /// What it lists but for its expressions.
    pub list: Arc<L>,
    /// Its expressions.
    pub patterns: Arc<PatternList>,
    /// The numbers of the lines that are not among them, and what is wrong with each.
    pub skipped: Arc<Vec<(usize, String)>>,
}

impl<L> Clone for ListFile<L> {
    fn clone(&self) -> Self {
        let ListFile { path, list, patterns, skipped } = self;
        ListFile {
            path: path.clone(),
            list: list.clone(),
            patterns: patterns.clone(),
            skipped: skipped.clone(),
        }
    }
}

impl<L> Display for ListFile<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}

impl<L: Entries> Value for ListFile<L> {
    const FORM: &'static str = "path of a file";
    fn parse(path: &str) -> Result<Self, String> {
        let bytes = read_list(path).map_err(|why| format!("can't read `{path}`: {why}"))?;
        let (mut list, patterns, skipped) = parse::<L>(&String::from_utf8_lossy(&bytes));
        list.finish();
        let (list, patterns) = (Arc::new(list), Arc::new(PatternList::new(patterns)));
        Ok(ListFile { path: path.to_owned(), list, patterns, skipped: Arc::new(skipped) })
    }
}

/// The list that a file holds, its expressions, and what is wrong with it.
fn parse<L: Entries>(text: &str) -> (L, Vec<Pattern>, Vec<(usize, String)>) {
    let (mut list, mut patterns, mut skipped) = (L::default(), Vec::new(), Vec::new());
    for (n, line) in text.lines().enumerate() {
        let entry = without_comment(line);
        if entry.is_empty() {
            continue;
        }
        let taken = match entry.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(pattern) => {
                let pattern = Pattern::new(&format!("(?i){pattern}"));
                pattern.map(|pattern| patterns.push(pattern)).map_err(|why| why.to_string())
            }
            None => list.add(&entry.to_ascii_lowercase()),
        };
        if let Err(why) = taken {
            skipped.push((n + 1, why));
        }
    }
    (list, patterns, skipped)
}

/// The lines of a list that can't be read, with their numbers. `option` is that of the plugin.
pub fn unreadable_lines(option: &str, text: &str) -> Vec<(usize, String)> {
    match option {
        "whitelist_clients" => parse::<ClientList>(text).2,
        _ => parse::<RecipientList>(text).2,
    }
}

/// A comment begins at the start of a line or after a blank, so that expressions may hold a `#`.
fn without_comment(line: &str) -> &str {
    let line = line.trim();
    let starts = |(at, _): &(usize, &str)| line[..*at].chars().next_back().is_none_or(char::is_whitespace);
    let end = line.match_indices('#').find(starts).map_or(line.len(), |(at, _)| at);
    line[..end].trim_end()
}

/// Names of domains; each stands for those below it too.
#[derive(Debug, Default)]
struct Domains(HashSet<String>);

impl Domains {
    fn add(&mut self, text: &str) -> Result<(), String> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') || !b.is_ascii();
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(format!("`{text}` is not a domain, address, network or /expression/"));
        }
        self.0.insert(name.to_owned());
        Ok(())
    }

    fn contains(&self, name: &str) -> bool {
        let above = std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above));
        !self.0.is_empty() && above.into_iter().any(|name| self.0.contains(name))
    }
}

/// Clients that are not greylisted.
#[derive(Debug, Default)]
pub struct ClientList {
    /// Those that were read, until there is a table of them.
    read: Vec<Network>,
    networks: NetworkTable,
    domains: Domains,
}

impl Entries for ClientList {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        match Network::parse(entry) {
            Some(network) => {
                self.read.push(network);
                Ok(())
            }
            None if entry.contains(['/', ':']) => {
                Err(format!("`{entry}` is neither an address nor a network"))
            }
            None => self.domains.add(entry),
        }
    }
    fn finish(&mut self) {
        let read = std::mem::take(&mut self.read);
        self.networks = NetworkTable::new(read.into_iter().map(|network| (network, 0)));
    }
}

impl ClientList {
    /// Whether a client is on the list, its expressions apart: they are compared with the name and with the
    /// address.
    pub fn contains(&self, address: &[u8], name: &[u8]) -> bool {
        if address_of(address).is_some_and(|ip| self.networks.get(ip).is_some()) {
            return true;
        }
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.domains.contains(lower.trim_end_matches('.'))
    }
}

/// Recipients whose mail is not greylisted.
#[derive(Debug, Default)]
pub struct RecipientList {
    /// Local parts, in any domain.
    users: HashSet<String>,
    addresses: HashSet<String>,
    domains: Domains,
}

impl Entries for RecipientList {
    fn add(&mut self, entry: &str) -> Result<(), String> {
        match entry.rsplit_once('@') {
            None => return self.domains.add(entry),
            // `@example.org` is not in postgrey's manual, but can mean only one thing.
            Some(("", domain)) => return self.domains.add(domain),
            Some((user, "")) => self.users.insert(user.to_owned()),
            Some(_) => self.addresses.insert(entry.to_owned()),
        };
        Ok(())
    }
}

impl RecipientList {
    /// Whether a recipient is on the list, perhaps without its extension (`user+extension@domain`); its
    /// expressions apart.
    pub fn contains(&self, recipient: &[u8]) -> bool {
        let lower = String::from_utf8_lossy(recipient).to_ascii_lowercase();
        let (user, domain) = lower.rsplit_once('@').unwrap_or((&lower, ""));
        let plain = user.split_once('+').map_or(user, |(plain, _)| plain);
        let listed = [user, plain]
            .into_iter()
            .any(|user| self.users.contains(user) || self.addresses.contains(&format!("{user}@{domain}")));
        listed || self.domains.contains(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perl_regex::Budget;
    use std::io::Write;

    /// A list and its expressions, read as from a file.
    fn list<L: Entries>(text: &str) -> (ListFile<L>, Budget) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let list = ListFile::parse(file.path().to_str().unwrap()).unwrap();
        assert!(list.skipped.is_empty(), "{:?}", list.skipped);
        (list, Budget::new(1_000_000, 1_000_000))
    }

    #[test]
    fn clients_by_name_address_network_and_expression() {
        let text = "# comment\n\nexample.org # below it too\n192.0.2.7\n198.51.100\n203.0.113.128/25\n\
                    2001:db8::/32\n/^mx\\d+#\\.Example\\.com$/\n.dotted.example\n";
        let (file, mut budget) = list::<ClientList>(text);
        let mut listed = |ip: &str, name: &str| {
            let mut matches =
                |value: &str| file.patterns.find(value.as_bytes(), &mut budget).unwrap().is_some();
            file.list.contains(ip.as_bytes(), name.as_bytes()) || matches(name) || matches(ip)
        };
        for (ip, name) in [
            ("10.0.0.1", "example.org"),
            ("10.0.0.1", "a.b.EXAMPLE.org"),
            ("192.0.2.7", "unknown"),
            ("198.51.100.200", "unknown"),
            ("203.0.113.200", "unknown"),
            ("2001:db8::1", "unknown"),
            ("10.0.0.1", "MX12#.example.com"),
            ("10.0.0.1", "dotted.example"),
        ] {
            assert!(listed(ip, name), "{ip} {name}");
        }
        for (ip, name) in [
            ("10.0.0.1", "notexample.org"),
            ("192.0.2.70", "unknown"),
            ("198.51.101.1", "unknown"),
            ("203.0.113.1", ""),
            ("", "com"),
        ] {
            assert!(!listed(ip, name), "{ip} {name}");
        }
    }

    #[test]
    fn recipients_by_address_user_domain_and_expression() {
        let text = "postmaster@\nJoe@example.org\nexample.net\n/^trap-.*@/\n@at.example";
        let (file, mut budget) = list::<RecipientList>(text);
        let mut listed = |recipient: &str| {
            let recipient = recipient.as_bytes();
            file.list.contains(recipient) || file.patterns.find(recipient, &mut budget).unwrap().is_some()
        };
        for recipient in [
            "Postmaster@any.example",
            "postmaster+x@any.example",
            "joe@example.org",
            "joe+lists@example.org",
            "any@example.net",
            "any@sub.example.net",
            "trap-1@x.example",
            "a@at.example",
        ] {
            assert!(listed(recipient), "{recipient}");
        }
        for recipient in ["joe@example.com", "joey@example.org", "any@notexample.net", "", "x@org"] {
            assert!(!listed(recipient), "{recipient}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        let (_, _, skipped) = parse::<ClientList>("good.example\n192.0.2.0/99\n/(broken/\nwhat is this?\n");
        let lines: Vec<_> = skipped.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4], "{skipped:?}");
    }
}
