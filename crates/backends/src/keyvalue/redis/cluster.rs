//! A cluster: which of its servers has a key.
//!
//! Knows: slots and who serves them. Must not know: what is asked of a server.
//!
//! The library's own cluster client repeats commands whose connection broke, increments too, and so would
//! count twice; that is why the map of slots is kept here.

use super::connection::{Access, Connection};
use super::error::RequestError;
use super::keys::slot;
use super::node::{Node, Target};
use crate::{Breaker, Endpoint, Server};
use redis::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How old the map has to be before a dead server is a reason to ask for it again.
const REFRESH_EVERY: Duration = Duration::from_millis(100);

/// The servers of a cluster.
pub(super) struct Cluster {
    seeds: Vec<Endpoint>,
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
    nodes: BTreeMap<Endpoint, Arc<Node>>,
    /// Ranges of slots by their last one: the first one and the server.
    ranges: BTreeMap<u16, (u16, Arc<Node>)>,
    asked: Option<Instant>,
}

/// Slots from the first to the last, and the server of them.
type Range = (u16, u16, Endpoint);

impl Cluster {
    /// A cluster, of which nothing is known but some servers.
    pub(super) fn new(seeds: Vec<Endpoint>, access: Access, breaker: Arc<Breaker>) -> Arc<Cluster> {
        let (outdated, asking) = (AtomicBool::new(true), tokio::sync::Mutex::new(()));
        Arc::new(Cluster { seeds, access, breaker, map: Mutex::default(), outdated, asking })
    }

    /// The map has to be asked for again.
    pub(super) fn is_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// The server at an address.
    pub(super) fn node(&self, address: &Endpoint) -> Arc<Node> {
        let make = || {
            let name = format!("{} (node {address})", self.breaker.connection());
            Node::new(Target::Address(address.clone()), self.access.clone(), Breaker::new(&name))
        };
        self.lock().nodes.entry(address.clone()).or_insert_with(make).clone()
    }

    /// The server of a key.
    pub(super) async fn owner(
        self: &Arc<Self>,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Arc<Node>, RequestError> {
        self.learn_map(deadline).await?;
        let slot = slot(key);
        let nobody = || RequestError::Down(format!("no server of the cluster has slot {slot}"));
        self.lock().owner(slot).ok_or_else(nobody)
    }

    /// All servers that have slots, in the order of their addresses.
    pub(super) async fn masters(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<BTreeMap<Endpoint, Arc<Node>>, RequestError> {
        self.learn_map(deadline).await?;
        let map = self.lock();
        let nodes = map.ranges.values().map(|(_, node)| node);
        Ok(nodes.filter_map(|node| Some((node.address()?.clone(), node.clone()))).collect())
    }

    /// Asks for the map if it is wrong.
    async fn learn_map(self: &Arc<Self>, deadline: Instant) -> Result<(), RequestError> {
        if self.outdated.load(Ordering::Relaxed) {
            self.breaker.check().map_err(RequestError::Known)?;
            let refreshed = timeout_at(deadline, self.refresh()).await;
            refreshed.map_err(|_| RequestError::Known(self.breaker.suspect(self)))??;
        }
        Ok(())
    }

    /// A server could not serve: another one may have taken its place, unless the map is new.
    pub(super) fn is_perhaps_outdated(&self) {
        let is_new = self.lock().asked.is_some_and(|asked| asked.elapsed() < REFRESH_EVERY);
        if !is_new {
            self.is_outdated();
        }
    }

    /// Whether the next caller asks for the map.
    pub(super) fn has_to_ask(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// Whether the cluster as a whole is known to be down, and since when.
    pub(super) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Asks for the map, unless somebody else just has.
    async fn refresh(self: &Arc<Self>) -> Result<(), RequestError> {
        let _alone = self.asking.lock().await;
        if !self.outdated.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A caller that waited while another one found the cluster down does not try again.
        self.breaker.check().map_err(RequestError::Known)?;
        match self.ask_all().await {
            Ok(ranges) => {
                self.take(ranges);
                self.breaker.served();
                Ok(())
            }
            Err(RequestError::Down(cause)) => Err(RequestError::Known(self.breaker.failed(&cause, self))),
            Err(other) => Err(other),
        }
    }

    /// The first map that one of the servers tells.
    async fn ask_all(&self) -> Result<Vec<Range>, RequestError> {
        let known = self.lock().nodes.clone();
        let mut tries = JoinSet::new();
        for seed in self.seeds.iter().filter(|seed| !known.contains_key(seed)) {
            let (access, seed) = (self.access.clone(), seed.clone());
            tries.spawn(async move { slots_of(&access, &access.connect(&seed).await?, &seed).await });
        }
        for (address, node) in known {
            let access = self.access.clone();
            tries.spawn(async move {
                let in_use = node.connection().await?;
                let connection = in_use.connection.clone();
                // A server that is slower than another one still answers.
                in_use.answered();
                slots_of(&access, &connection, &address).await
            });
        }
        let mut first_error = None;
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok(Ok(ranges)) => return Ok(ranges),
                Ok(Err(error)) => drop(first_error.get_or_insert(error)),
                Err(panic) => drop(first_error.get_or_insert(RequestError::Down(panic.to_string()))),
            }
        }
        // What is known of one server is not known of the cluster.
        Err(match first_error {
            Some(RequestError::Known(error) | RequestError::Late(error)) => {
                RequestError::Down(error.failure.to_string())
            }
            Some(error) => error,
            None => RequestError::Down("no server is known".to_owned()),
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server for Cluster {
    /// Tries whether there is a map again.
    async fn answers(&self) -> bool {
        let answered = self.ask_all().await;
        answered.map(|ranges| self.take(ranges)).is_ok()
    }
}

impl Map {
    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let (_, (first, node)) = self.ranges.range(slot..).next()?;
        (*first <= slot).then(|| node.clone())
    }
}

/// What a server says about who serves what.
async fn slots_of(
    access: &Access,
    connection: &Connection,
    asked: &Endpoint,
) -> Result<Vec<Range>, RequestError> {
    let unclear = || RequestError::Down(format!("{asked} says nothing clear about its cluster"));
    let Value::Array(ranges) = access.ask(connection, asked, "CLUSTER", &["SLOTS"]).await? else {
        return Err(unclear());
    };
    if ranges.is_empty() {
        return Err(RequestError::Down(format!("{asked} knows of no server that has slots")));
    }
    ranges.iter().map(|range| read_range(range, asked).ok_or_else(unclear)).collect()
}

/// First slot, last slot, the master, its replicas. A master without a host has that of the server that
/// answers.
fn read_range(range: &Value, asked: &Endpoint) -> Option<Range> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match (host, asked) {
        (Value::BulkString(host), _) if !host.is_empty() => String::from_utf8(host.clone()).ok()?,
        (_, Endpoint::Tcp { host, .. }) => host.clone(),
        (_, Endpoint::Unix(_)) => return None,
    };
    let address = Endpoint::Tcp { host, port: u16::try_from(*port).ok()? };
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_a_host_is_at_the_server_that_answers() {
        let asked = Endpoint::Tcp { host: "a".to_owned(), port: 1 };
        let range = |host| {
            let master = Value::Array(vec![host, Value::Int(7001)]);
            read_range(&Value::Array(vec![Value::Int(0), Value::Int(5), master]), &asked)
        };
        let at = |host: &str| Some((0, 5, Endpoint::Tcp { host: host.to_owned(), port: 7001 }));
        assert_eq!(range(Value::BulkString(b"b".to_vec())), at("b"));
        assert_eq!(range(Value::Nil), at("a"));
        assert_eq!(range(Value::BulkString(Vec::new())), at("a"));
        assert_eq!(read_range(&Value::Nil, &asked), None);
    }
}
