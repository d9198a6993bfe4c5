//! A cluster: which of its servers has a key.
//!
//! Knows: slots and who serves them. Must not know: what is asked of a server.
//!
//! The library's own cluster client repeats commands whose connection broke, increments too, and so would
//! count twice; that is why the map of slots is kept here.

use super::link::{Access, Address, Link};
use super::node::{Node, ProbeFuture, Target};
use super::trouble::Trouble;
use crate::{Breaker, Probe};
use redis::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// The number of slots (Redis Cluster Specification, "Key distribution model").
const SLOTS: u16 = 16384;

/// How old the map has to be before a dead server is a reason to ask for it again.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// The servers of a cluster.
pub(super) struct Cluster {
    seeds: Vec<Address>,
    access: Access,
    breaker: Arc<Breaker>,
    map: Mutex<Map>,
    /// Whether a server has shown that the map is wrong, or there is none yet.
    outdated: AtomicBool,
    /// Held while the map is asked for.
    asking: tokio::sync::Mutex<()>,
}

/// Who serves what.
#[derive(Default)]
struct Map {
    nodes: BTreeMap<Address, Arc<Node>>,
    /// Ranges of slots by their last one: the first one and the server.
    ranges: BTreeMap<u16, (u16, Arc<Node>)>,
    asked: Option<Instant>,
}

/// Slots from the first to the last, and the server of them.
type Range = (u16, u16, Address);

impl Cluster {
    /// A cluster, of which nothing is known but some servers.
    pub(super) fn new(seeds: Vec<Address>, access: Access, breaker: Arc<Breaker>) -> Arc<Cluster> {
        let (outdated, asking) = (AtomicBool::new(true), tokio::sync::Mutex::new(()));
        Arc::new(Cluster { seeds, access, breaker, map: Mutex::default(), outdated, asking })
    }

    /// The map has to be asked for again.
    pub(super) fn is_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// The server at an address.
    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        let make = || {
            let name = format!("{} (node {address})", self.breaker.connection());
            Node::new(Target::Address(address.clone()), self.access.clone(), Breaker::new(&name))
        };
        self.lock().nodes.entry(address.clone()).or_insert_with(make).clone()
    }

    /// The server of a key.
    pub(super) async fn owner(self: &Arc<Self>, key: &[u8], deadline: Instant) -> Result<Arc<Node>, Trouble> {
        if self.outdated.load(Ordering::Relaxed) {
            self.breaker.check().map_err(Trouble::Known)?;
            let refreshed = timeout_at(deadline, self.refresh()).await;
            refreshed.map_err(|_| Trouble::Late(self.breaker.suspect(self.probe())))??;
        }
        let slot = slot(key);
        let nobody = || Trouble::Down(format!("no server of the cluster has slot {slot}"));
        self.lock().owner(slot).ok_or_else(nobody)
    }

    /// The server that has taken the place of a dead one, if there is one by now.
    pub(super) async fn successor(
        self: &Arc<Self>,
        dead: &Arc<Node>,
        key: &[u8],
        deadline: Instant,
    ) -> Option<Arc<Node>> {
        let fresh = self.lock().asked.is_some_and(|asked| asked.elapsed() < REFRESH_EVERY);
        if fresh {
            return None;
        }
        self.is_outdated();
        let owner = self.owner(key, deadline).await.ok()?;
        (!Arc::ptr_eq(&owner, dead)).then_some(owner)
    }

    /// Asks for the map, unless somebody else just has.
    async fn refresh(self: &Arc<Self>) -> Result<(), Trouble> {
        let _alone = self.asking.lock().await;
        if !self.outdated.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A caller that waited while another one found the cluster down does not try again.
        self.breaker.check().map_err(Trouble::Known)?;
        match self.ask_all().await {
            Ok(ranges) => {
                self.take(ranges);
                Ok(())
            }
            Err(Trouble::Down(cause)) => Err(Trouble::Known(self.breaker.failed(&cause, self.probe()))),
            Err(other) => Err(other),
        }
    }

    /// The first map that one of the servers tells.
    async fn ask_all(self: &Arc<Self>) -> Result<Vec<Range>, Trouble> {
        let known = self.lock().nodes.clone();
        let mut tries = JoinSet::new();
        for seed in self.seeds.iter().filter(|seed| !known.contains_key(seed)) {
            let (access, seed) = (self.access.clone(), seed.clone());
            tries.spawn(async move { slots_of(&access, &access.connect(&seed).await?, &seed).await });
        }
        for (address, node) in known {
            let access = self.access.clone();
            tries.spawn(async move {
                let in_use = node.use_link().await?;
                let link = in_use.link.clone();
                // A server that is slower than another one still answers.
                in_use.answered();
                slots_of(&access, &link, &address).await
            });
        }
        let mut first_trouble = None;
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok(Ok(ranges)) => return Ok(ranges),
                Ok(Err(trouble)) => drop(first_trouble.get_or_insert(trouble)),
                Err(panic) => drop(first_trouble.get_or_insert(Trouble::Down(panic.to_string()))),
            }
        }
        // What is known of one server is not known of the cluster.
        Err(match first_trouble {
            Some(Trouble::Known(error) | Trouble::Late(error)) => Trouble::Down(error.failure.to_string()),
            Some(trouble) => trouble,
            None => Trouble::Down("no server is known".to_owned()),
        })
    }

    /// The map is this from now on. Servers that have no slots are dropped with their connections.
    fn take(&self, ranges: Vec<Range>) {
        let ranges: Vec<_> = ranges
            .into_iter()
            .map(|(first, last, address)| (first, last, self.node(&address), address))
            .collect();
        let mut map = self.lock();
        map.nodes = ranges.iter().map(|(.., node, address)| (address.clone(), node.clone())).collect();
        map.ranges = ranges.into_iter().map(|(first, last, node, _)| (last, (first, node))).collect();
        map.asked = Some(Instant::now());
        self.outdated.store(false, Ordering::Relaxed);
    }

    /// Tries whether there is a map again.
    fn probe(self: &Arc<Self>) -> impl FnMut() -> ProbeFuture + Send + use<> {
        let cluster = Arc::downgrade(self);
        move || {
            let cluster = cluster.clone();
            Box::pin(async move {
                let Some(cluster) = cluster.upgrade() else { return Probe::Dropped };
                match cluster.ask_all().await {
                    Ok(ranges) => {
                        cluster.take(ranges);
                        Probe::Alive
                    }
                    Err(_) => Probe::Dead,
                }
            })
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let (_, (first, node)) = self.ranges.range(slot..).next()?;
        (*first <= slot).then(|| node.clone())
    }
}

/// What a server says about who serves what.
async fn slots_of(access: &Access, link: &Link, asked: &Address) -> Result<Vec<Range>, Trouble> {
    let unclear = || Trouble::Down(format!("{asked} says nothing clear about its cluster"));
    let Value::Array(ranges) = access.ask(link, asked, "CLUSTER", &["SLOTS"]).await? else {
        return Err(unclear());
    };
    if ranges.is_empty() {
        return Err(Trouble::Down(format!("{asked} knows of no server that has slots")));
    }
    ranges.iter().map(|range| read_range(range, asked).ok_or_else(unclear)).collect()
}

/// First slot, last slot, the master, its replicas. A master without a host has that of the server that
/// answers.
fn read_range(range: &Value, asked: &Address) -> Option<Range> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match (host, asked) {
        (Value::BulkString(host), _) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
        (_, Address::Tcp { host, .. }) => host.clone(),
        (_, Address::Unix(_)) => return None,
    };
    let address = Address::Tcp { host, port: u16::try_from(*port).ok()? };
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address))
}

/// The slot of a key: that of what stands in its first braces, so that keys can be kept together.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the specification asks for.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_that_servers_compute() {
        // The check value of the specification, and what `CLUSTER KEYSLOT` answers.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"somekey"), 11058);
        assert_eq!(slot(b"foo{hash_tag}"), 2515);
        assert_eq!(slot(b"{hash_tag}bar"), 2515);
        assert_eq!(slot(b"foo{}{hash_tag}"), crc16(b"foo{}{hash_tag}") % SLOTS);
    }

    #[test]
    fn a_range_without_a_host_is_at_the_server_that_answers() {
        let asked = Address::Tcp { host: "a".to_owned(), port: 1 };
        let range = |host| {
            let master = Value::Array(vec![host, Value::Int(7001)]);
            read_range(&Value::Array(vec![Value::Int(0), Value::Int(5), master]), &asked)
        };
        let at = |host: &str| Some((0, 5, Address::Tcp { host: host.to_owned(), port: 7001 }));
        assert_eq!(range(Value::BulkString(b"b".to_vec())), at("b"));
        assert_eq!(range(Value::Nil), at("a"));
        assert_eq!(range(Value::BulkString(Vec::new())), at("a"));
        assert_eq!(read_range(&Value::Nil, &asked), None);
    }
}
