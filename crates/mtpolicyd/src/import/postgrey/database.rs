//! The databases of postgrey: Berkeley DB files, btree.
//!
//! `postgrey.db` has `network/sender/recipient` with the times of the first and the last attempt,
//! `postgrey_clients.db` an address with the number of retries and the time of the last one.
//!
//! Knows: keys and values. Must not know: what becomes of them.

use crate::import::{ImportError, Imported};
use crate::intake::KnownClient;
use postfix_maps::berkeley::Database;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

/// The file of the triplets.
pub const TRIPLETS: &str = "postgrey.db";

/// The file of the clients.
pub const CLIENTS: &str = "postgrey_clients.db";

/// Which entries count.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// The present.
    pub now: i64,
    /// How long a client had to wait.
    pub delay: i64,
    /// Entries that were last seen before this are expired.
    pub oldest: i64,
    /// After how many retries a client passes for all its senders.
    pub threshold: u64,
}

/// What the databases hold.
#[derive(Debug, Default)]
pub struct Found {
    /// Networks with the domains of senders for which they have passed.
    pub known: Vec<KnownClient>,
    /// Clients that pass for all their senders.
    pub(super) clients: Vec<IpAddr>,
    triplets: usize,
    waiting: usize,
    expired: usize,
    unreadable: usize,
    /// Whether changes may still be in the log of the database.
    behind: bool,
}

/// Reads both.
pub fn read(folder: &Path, ages: &Ages, has_client_list: bool) -> Result<Found, ImportError> {
    let (mut found, mut pairs) = (Found::default(), BTreeMap::new());
    visit(&folder.join(TRIPLETS), |key, value| found.triplet(key, value, ages, &mut pairs))?;
    let pair = |((sender_domain, client), last_seen)| KnownClient { sender_domain, client, last_seen };
    found.known = pairs.into_iter().map(pair).collect();
    let path = folder.join(CLIENTS);
    if has_client_list && path.exists() {
        visit(&path, |key, value| found.client(key, value, ages))?;
    }
    found.clients.sort_unstable();
    found.behind = log_is_newer(folder);
    Ok(found)
}

/// Shows each entry of a file.
fn visit(path: &Path, entry: impl FnMut(&[u8], &[u8])) -> Result<(), ImportError> {
    let failed = |why: &dyn std::fmt::Display| ImportError(format!("can't read {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| failed(&error))?;
    let database = Database::open(&file).map_err(|error| failed(&error))?;
    database.for_each(entry).map_err(|error| failed(&error))
}

/// Whether postgrey runs, or ended without writing its pages: then they are in the log only.
fn log_is_newer(folder: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let Some(database) = modified(&folder.join(TRIPLETS)) else { return false };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("log."));
    let newest: Option<SystemTime> = logs.filter_map(|entry| modified(&entry.path())).max();
    newest.is_some_and(|log| log > database)
}

impl Found {
    fn triplet(
        &mut self,
        key: &[u8],
        value: &[u8],
        ages: &Ages,
        pairs: &mut BTreeMap<(String, IpAddr), i64>,
    ) {
        self.triplets += 1;
        let (Some(pair), Some((first, last))) = (client_and_domain(key), numbers(value)) else {
            self.unreadable += 1;
            return;
        };
        if last < ages.oldest {
            self.expired += 1;
        } else if last.saturating_sub(first) < ages.delay {
            self.waiting += 1;
        } else {
            let last = last.min(ages.now);
            let seen = pairs.entry(pair).or_insert(last);
            *seen = last.max(*seen);
        }
    }

    fn client(&mut self, key: &[u8], value: &[u8], ages: &Ages) {
        let address = str::from_utf8(key).ok().and_then(|key| key.trim_end_matches('\0').parse().ok());
        let (Some(address), Some((count, last))) = (address, numbers(value)) else {
            self.unreadable += 1;
            return;
        };
        let is_known = u64::try_from(count).is_ok_and(|count| count >= ages.threshold);
        if is_known && last >= ages.oldest {
            self.clients.push(address);
        }
    }

    /// Tells what there is.
    pub fn report(&self, imported: &mut Imported) {
        imported.note(format!(
            "{TRIPLETS}: {} entries, {} pairs of a network and a sender's domain that have passed; {} \
             entries are \
             of clients that have not come back, {} are expired",
            self.triplets,
            self.known.len(),
            self.waiting,
            self.expired
        ));
        if self.unreadable > 0 {
            imported.leave_out(
                format!("{} entries of the databases", self.unreadable),
                "they can't be understood",
            );
        }
        if self.behind {
            imported.note(format!(
                "the log of the database is newer than {TRIPLETS}: stop postgrey first, so that it \
                 writes all of it"
            ));
        }
    }
}

/// The network and the sender's domain of a key. A sender may hold slashes, and has an `@` unless it is
/// empty.
fn client_and_domain(key: &[u8]) -> Option<(String, IpAddr)> {
    let key = str::from_utf8(key).ok()?.trim_end_matches('\0');
    let (client, rest) = key.split_once('/')?;
    let client: IpAddr = client.parse().ok()?;
    let domain = match rest.strip_prefix('/') {
        Some(_) => "",
        None if rest.matches('@').count() < 2 => return None,
        None => rest.split_once('@')?.1.split_once('/')?.0,
    };
    Some((domain.to_owned(), client.to_canonical()))
}

/// The first two numbers of a value.
fn numbers(value: &[u8]) -> Option<(i64, i64)> {
    let mut numbers = str::from_utf8(value).ok()?.trim_end_matches('\0').split(',');
    Some((numbers.next()?.trim().parse().ok()?, numbers.next()?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart() {
        for (key, expected) in [
            ("192.0.2.0/alice@example.org/bob@example.net", Some(("example.org", "192.0.2.0"))),
            ("2001:db8:0:0:0:0:0:0/a/b@example.org/bob@example.net", Some(("example.org", "2001:db8::"))),
            ("192.0.2.0//bob@example.net", Some(("", "192.0.2.0"))),
            ("192.0.2.0/root/bob@example.net", None),
            ("3b18e512dba79e4c8300dd08aeb37f8e728b8dad", None),
        ] {
            let expected = expected.map(|(domain, ip)| (domain.to_owned(), ip.parse().unwrap()));
            assert_eq!(client_and_domain(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(numbers(b"1700000000,1700000400,mail"), Some((1_700_000_000, 1_700_000_400)));
        assert_eq!(numbers(b"1700000000"), None);
    }

    #[test]
    fn only_clients_that_have_come_back_count() {
        let ages = Ages { now: 10_000, delay: 300, oldest: 5_000, threshold: 5 };
        let (mut found, mut pairs) = (Found::default(), BTreeMap::new());
        for (key, value) in [
            ("192.0.2.0/a@example.org/b@x.test", "6000,6300"),
            ("192.0.2.0/a@example.org/c@x.test", "6000,9000"),
            ("192.0.2.0/a@other.test/c@x.test", "9000,9299"),
            ("192.0.2.0/a@old.test/c@x.test", "1000,4999"),
            ("nonsense", "1,2"),
        ] {
            found.triplet(key.as_bytes(), value.as_bytes(), &ages, &mut pairs);
        }
        assert_eq!(pairs.into_values().collect::<Vec<_>>(), [9_000]);
        assert_eq!((found.triplets, found.waiting, found.expired, found.unreadable), (5, 1, 1, 1));
        for (key, value) in [("192.0.2.1", "5,9000"), ("192.0.2.2", "4,9000"), ("192.0.2.3", "9,4999")] {
            found.client(key.as_bytes(), value.as_bytes(), &ages);
        }
        assert_eq!(found.clients, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
}
