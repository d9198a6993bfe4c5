//! The open ports, by address, so that a reload can tell which to open and which to close.
//!
//! Knows: sockets, the accept loop. Must not know: settings, conversations.

use super::Shared;
use super::console::ConsolePort;
use super::listener::listen;
use super::passed::{self, Owner, PassedSocket};
use super::side_port::SidePort;
use super::sockets::{BoundSocket, Listener};
use crate::address::ListenAddress;
use crate::log::messages::daemon;
use crate::settings::Settings;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The ports at which connections are accepted.
#[derive(Default)]
pub struct Listeners {
    open: BTreeMap<ListenAddress, Port>,
    pub(super) control: Option<SidePort>,
    pub(super) metrics: Option<SidePort>,
    pub(super) console: Option<ConsolePort>,
}

struct Port {
    listener: Arc<Listener>,
    key: Arc<str>,
    owner: Owner,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A port that is open, but at which nothing is accepted yet.
pub struct OpenPort {
    address: ListenAddress,
    listener: Listener,
    key: Arc<str>,
    owner: Owner,
}

impl TryFrom<BoundSocket> for OpenPort {
    type Error = io::Error;

    fn try_from(socket: BoundSocket) -> io::Result<OpenPort> {
        let (address, key, owner) = (socket.address().clone(), socket.key().into(), socket.owner().clone());
        Ok(OpenPort { address, listener: socket.into_listener()?, key, owner })
    }
}

impl Listeners {
    /// Starts to accept.
    pub fn start(&mut self, ports: Vec<OpenPort>, shared: &Arc<Shared>) {
        for OpenPort { address, listener, key, owner } in ports {
            let stop = CancellationToken::new();
            let listener = Arc::new(listener);
            let accepts = listen(listener.clone(), key.clone(), shared.clone(), stop.clone());
            let task = tokio::spawn(accepts);
            self.open.insert(address, Port { listener, key, owner, stop, task });
        }
    }

    /// What a successor needs of each port: its description, and a descriptor for it.
    pub fn to_pass(&self) -> io::Result<Vec<(Value, OwnedFd)>> {
        let passed = self.open.iter().map(|(address, port)| {
            let description = PassedSocket::describe(address, &port.owner);
            Ok((description, port.listener.as_fd().try_clone_to_owned()?))
        });
        passed.chain(self.beside().map(SidePort::to_pass)).collect()
    }

    /// Says that the files of UNIX sockets go with this process; or, for the ports of these names, that they
    /// are its successor's.
    pub fn own_files(&self, left: &[String]) {
        for (address, port) in &self.open {
            port.listener.owns_file(!left.contains(&address.to_string()));
        }
        for port in self.beside() {
            port.owns_file(!left.contains(&port.name()));
        }
    }

    /// Whether these settings have a host for every socket that systemd holds open.
    pub fn check_passed(&self, settings: &Settings) -> io::Result<()> {
        for (address, port) in &self.open {
            if let Owner::Systemd(name) = &port.owner
                && settings.host(&port.key, None).is_none()
            {
                return Err(passed::nobody_answers(address, name));
            }
        }
        Ok(())
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
            is_tcp(old)
                && self.may_close(old)
                && !wanted.contains(old)
                && new.iter().any(|new| same_port(&new))
        };
        self.open.keys().filter(|old| clashes(old)).cloned().collect()
    }

    /// What systemd has opened it also keeps open.
    fn may_close(&self, address: &ListenAddress) -> bool {
        self.open.get(address).is_some_and(|port| matches!(port.owner, Owner::Daemon(_)))
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
            let stays = wanted.contains(address) || matches!(port.owner, Owner::Systemd(_));
            if !stays {
                port.stop.cancel();
                daemon::port_closed(address);
            }
            stays
        });
    }

    /// Closes all ports; a UNIX socket's file is gone when this returns.
    pub async fn stop(self) {
        let console = self.console.map(|console| console.port);
        for port in self.control.into_iter().chain(console).chain(self.metrics) {
            port.close().await;
        }
        for port in self.open.into_values() {
            port.close().await;
        }
    }

    /// The ports beside those of Postfix.
    fn beside(&self) -> impl Iterator<Item = &SidePort> {
        let console = self.console.iter().map(|console| &console.port);
        self.control.iter().chain(console).chain(&self.metrics)
    }

    /// Where the daemon listens, for a message.
    pub fn names(&self) -> String {
        self.addresses().join(", ")
    }

    /// The sockets that listen, that of the commands and that of the console too.
    pub fn sockets(&self) -> Vec<String> {
        let console = self.console.iter().map(|console| &console.port);
        let beside = self.control.iter().chain(console).map(SidePort::name);
        self.addresses().into_iter().chain(beside).collect()
    }

    /// Where the daemon listens.
    pub fn addresses(&self) -> Vec<String> {
        self.open.keys().map(ListenAddress::to_string).collect()
    }
}

impl Port {
    async fn close(self) {
        self.stop.cancel();
        // An accept loop that panicked has logged it, and is as closed as one that ended.
        let _ = self.task.await;
    }
}
