//! Where the servers come from: the configuration, or `resolv.conf`, which is read again when it changes.
//!
//! Knows: files, lists of servers. Must not know: questions.

use std::fs;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::resolv_conf::{DNS_PORT, ResolvConf};
use crate::resolver::Config;
use crate::server::{Server, Upstream};

/// How often is looked at most if the file has changed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How much of the file is read.
const MAX_FILE: u64 = 64 * 1_024;

/// The servers in use.
pub(crate) struct Source {
    epoch: Instant,
    current: RwLock<Current>,
    /// How often the servers have changed, for those who want to know only that.
    generation: AtomicU64,
    /// When the file is looked at the next time, in milliseconds since the epoch.
    next_check: AtomicU64,
    /// Those in use, and those before them that still have something open.
    known: Mutex<Vec<Arc<Server>>>,
    /// The file as it was read.
    stamp: Mutex<Option<Stamp>>,
}

struct Current {
    upstream: Arc<Upstream>,
    warning: Option<String>,
    trust_ad: bool,
}

/// What changes when a file is written or replaced.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl Source {
    pub fn new(config: &Config) -> Self {
        let epoch = Instant::now();
        let mut known = Vec::new();
        let stamp = config.file().and_then(|path| stamp(path).ok());
        let current = current(config, &mut known, epoch, 0);
        Self {
            epoch,
            current: RwLock::new(current),
            generation: AtomicU64::new(0),
            next_check: AtomicU64::new(millis(CHECK_EVERY)),
            known: Mutex::new(known),
            stamp: Mutex::new(stamp),
        }
    }

    pub fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).upstream)
    }

    pub fn warning(&self) -> Option<String> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).warning.clone()
    }

    pub fn trusts_ad(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).trust_ad
    }

    /// How often the servers have changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn known(&self) -> MutexGuard<'_, Vec<Arc<Server>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers that may have something open. Those that are neither in use nor have so are dropped.
    pub fn known_servers(&self) -> Vec<Arc<Server>> {
        let upstream = self.upstream();
        let is_used = |server: &Arc<Server>| upstream.servers.iter().any(|used| Arc::ptr_eq(used, server));
        let mut known = self.known();
        known.retain(|server| is_used(server) || server.ports().all().next().is_some());
        known.clone()
    }

    /// Looks if the file has changed, if nobody has done so in the last second. To look costs a system call
    /// on a file of the machine's own, as the C library has it with every lookup.
    pub fn refresh_if_due(&self, config: &Config, now: Instant) {
        let due = self.next_check.load(Ordering::Relaxed);
        let time = millis(now.saturating_duration_since(self.epoch));
        if time < due || config.file().is_none() {
            return;
        }
        let next = time + millis(CHECK_EVERY);
        if self.next_check.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.refresh(config);
        }
    }

    /// Reads the file again if it has changed. A file that is gone changes nothing.
    pub fn refresh(&self, config: &Config) {
        let Some(path) = config.file() else { return };
        let Ok(new) = stamp(path) else { return };
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if *stamp == Some(new) {
            return;
        }
        *stamp = Some(new);
        let generation = self.generation() + 1;
        let mut known = self.known();
        let current = current(config, &mut known, self.epoch, generation);
        drop(known);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        self.generation.store(generation, Ordering::Release);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let file = fs::metadata(path)?;
    Ok((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ))
}

fn read_file(path: &Path) -> io::Result<ResolvConf> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(ResolvConf::parse(&text))
}

/// The servers as the configuration and the file say now. Those that were known stay what they are.
fn current(config: &Config, known: &mut Vec<Arc<Server>>, epoch: Instant, generation: u64) -> Current {
    let (mut conf, mut warning) = (ResolvConf::default(), None);
    if let Some(path) = config.file() {
        let why = match read_file(path) {
            Ok(read) => {
                conf = read;
                conf.servers.is_empty().then(|| "it names none".to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            // As resolv.conf(5) has it.
            conf.servers = vec![(Ipv4Addr::LOCALHOST, DNS_PORT).into()];
            warning = Some(format!("no name server in {} ({why}): 127.0.0.1 is asked", path.display()));
        }
    } else {
        conf.servers.clone_from(&config.servers);
    }
    let mut server = |address: &SocketAddr| match known.iter().find(|known| known.address == *address) {
        Some(server) => Arc::clone(server),
        None => {
            let server = Arc::new(Server::new(*address, epoch));
            known.push(Arc::clone(&server));
            server
        }
    };
    let upstream = Upstream {
        servers: conf.servers.iter().map(&mut server).collect(),
        timeout: config.timeout.unwrap_or(conf.timeout).max(Duration::from_millis(1)),
        attempts: config.attempts.unwrap_or(conf.attempts).max(1),
        rotate: conf.rotate,
        use_tcp: conf.use_tcp,
        generation,
    };
    Current { upstream: Arc::new(upstream), warning, trust_ad: conf.trust_ad }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(source: &Source) -> Vec<String> {
        source.upstream().servers.iter().map(|server| server.address.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let config = Config { resolv_conf: path.clone(), ..Config::default() };
        let source = Source::new(&config);
        assert_eq!(servers(&source), ["127.0.0.1:53"]);
        assert!(source.warning().is_some_and(|warning| warning.contains("No such file")));

        fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:3 attempts:4").unwrap();
        source.refresh_if_due(&config, Instant::now());
        assert_eq!(servers(&source), ["127.0.0.1:53"], "not every time");
        tokio::time::advance(CHECK_EVERY).await;
        source.refresh_if_due(&config, Instant::now());
        assert_eq!(servers(&source), ["192.0.2.1:53", "192.0.2.2:53"]);
        let upstream = source.upstream();
        assert_eq!((upstream.timeout.as_secs(), upstream.attempts), (3, 4));
        assert_eq!((source.warning(), source.generation()), (None, 1));

        // A server that stays is the same one; the others are dropped.
        let new = folder.path().join("new");
        fs::write(&new, "nameserver 192.0.2.2").unwrap();
        fs::rename(&new, &path).unwrap();
        source.refresh(&config);
        assert!(Arc::ptr_eq(&source.upstream().servers[0], &upstream.servers[1]));
        assert_eq!(source.known_servers().len(), 1);

        fs::remove_file(&path).unwrap();
        source.refresh(&config);
        assert_eq!(servers(&source), ["192.0.2.2:53"], "a file that is gone changes nothing");
        fs::write(&path, "# none\n").unwrap();
        source.refresh(&config);
        assert_eq!(servers(&source), ["127.0.0.1:53"]);
    }

    #[test]
    fn given_servers_need_no_file() {
        let given = vec![([192, 0, 2, 7], 5353).into()];
        let config = Config { servers: given, attempts: Some(0), ..Config::default() };
        let source = Source::new(&config);
        source.refresh(&config);
        assert_eq!((servers(&source), source.generation()), (vec!["192.0.2.7:5353".to_owned()], 0));
        assert_eq!(source.upstream().attempts, 1);
    }
}
