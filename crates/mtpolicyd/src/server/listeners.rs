//! The open ports, by address, so that a reload can tell which to open and which to close.
//!
//! Knows: sockets, the accept loop. Must not know: settings, conversations.

use super::Shared;
use super::listener::listen;
use super::sockets::{BoundSocket, Listener};
use crate::address::ListenAddress;
use crate::log::messages::daemon;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The ports at which connections are accepted.
#[derive(Default)]
pub struct Listeners {
    open: BTreeMap<ListenAddress, Port>,
}

struct Port {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A port that is open, but at which nothing is accepted yet.
pub struct OpenPort {
    address: ListenAddress,
    listener: Listener,
}

impl TryFrom<BoundSocket> for OpenPort {
    type Error = io::Error;

    fn try_from(socket: BoundSocket) -> io::Result<OpenPort> {
        Ok(OpenPort { address: socket.address().clone(), listener: socket.into_listener()? })
    }
}

impl Listeners {
    /// Starts to accept.
    pub fn start(&mut self, ports: Vec<OpenPort>, shared: &Arc<Shared>) {
        for OpenPort { address, listener } in ports {
            let key: Arc<str> = address.vhost_key().into();
            let stop = CancellationToken::new();
            let task = tokio::spawn(listen(listener, key, shared.clone(), stop.clone()));
            self.open.insert(address, Port { stop, task });
        }
    }

    /// Whether the address is open.
    pub fn has(&self, address: &ListenAddress) -> bool {
        self.open.contains_key(address)
    }

    /// Ports that are not wanted any more, but keep a new one with the same number from being opened.
    pub fn in_the_way(&self, new: &[ListenAddress], wanted: &[ListenAddress]) -> Vec<ListenAddress> {
        let is_tcp = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(_));
        let clashes = |old: &ListenAddress| {
            let same_port = |new: &&ListenAddress| is_tcp(new) && new.vhost_key() == old.vhost_key();
            is_tcp(old) && !wanted.contains(old) && new.iter().any(|new| same_port(&new))
        };
        self.open.keys().filter(|old| clashes(old)).cloned().collect()
    }

    /// Closes ports. Their connections go on until a side closes them.
    pub async fn close(&mut self, addresses: &[ListenAddress]) {
        for port in addresses.iter().filter_map(|address| self.open.remove(address)).collect::<Vec<_>>() {
            port.close().await;
        }
    }

    /// Closes the ports that are not wanted any more, without waiting for it.
    pub fn keep_only(&mut self, wanted: &[ListenAddress]) {
        self.open.retain(|address, port| {
            let stays = wanted.contains(address);
            if !stays {
                port.stop.cancel();
                daemon::port_closed(address);
            }
            stays
        });
    }

    /// Closes all ports; a UNIX socket's file is gone when this returns.
    pub async fn stop(self) {
        for port in self.open.into_values() {
            port.close().await;
        }
    }

    /// Where the daemon listens, for a message.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.open.keys().map(ListenAddress::to_string).collect();
        names.join(", ")
    }
}

impl Port {
    async fn close(self) {
        self.stop.cancel();
        // An accept loop that panicked has logged it, and is as closed as one that ended.
        let _ = self.task.await;
    }
}
