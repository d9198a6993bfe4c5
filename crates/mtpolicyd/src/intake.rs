//! What another program knew of clients, for the plugins that keep lists of them.
//!
//! Knows: what is taken over. Must not know: plugins, where they keep it, who hands it in.

use crate::facts::World;
use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;

/// A client that has passed for the senders of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownClient {
    /// The domain of the senders, empty for messages without a sender.
    pub sender_domain: String,
    /// The address of the client, or the first one of its network.
    pub client: IpAddr,
    /// When it came last, in seconds since the epoch.
    pub last_seen: i64,
}

type Running = Pin<Box<dyn Future<Output = Result<u64, String>> + Send>>;

/// A list of a plugin that takes known clients.
pub struct Intake {
    /// The plugin.
    pub plugin: String,
    /// How many bits of an IPv4 and of an IPv6 address the list keeps; `None` if it does not go by addresses.
    pub prefixes: Option<[u8; 2]>,
    take: Box<dyn Fn(Vec<KnownClient>, World) -> Running + Send + Sync>,
}

impl Intake {
    /// A list. `take` adds clients and returns how many there were.
    pub fn new<F>(
        plugin: &str,
        prefixes: Option<[u8; 2]>,
        take: impl Fn(Vec<KnownClient>, World) -> F + Send + Sync + 'static,
    ) -> Intake
    where
        F: Future<Output = Result<u64, String>> + Send + 'static,
    {
        let take = Box::new(move |clients, world| Box::pin(take(clients, world)) as Running);
        Intake { plugin: plugin.to_owned(), prefixes, take }
    }

    /// Adds clients. Returns how many were added, or why it failed.
    pub async fn take(&self, clients: Vec<KnownClient>, world: World) -> Result<u64, String> {
        (self.take)(clients, world).await
    }
}

/// The lists of a configuration while it is read.
#[derive(Default)]
pub struct Intakes(RefCell<Vec<Intake>>);

impl Intakes {
    /// Leaves a list.
    pub fn add(&self, intake: Intake) {
        self.0.borrow_mut().push(intake);
    }

    /// All that were left, in the order of the file.
    pub fn take_all(&self) -> Vec<Intake> {
        self.0.take()
    }
}
