//! The open ports, by address, so that a reload can tell which to open and which to close.
//!
//! Knows: sockets, the accept loop. Must not know: settings, conversations.

use super::Shared;
use super::listener::listen;
use super::sockets::BoundSocket;
use crate::address::ListenAddress;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The open ports.
#[derive(Default)]
pub struct Listeners {
    open: BTreeMap<ListenAddress, Port>,
}

struct Port {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listeners {
    /// Starts to accept on each socket.
    pub fn start(&mut self, sockets: Vec<BoundSocket>, shared: &Arc<Shared>) -> io::Result<()> {
        for socket in sockets {
            let address = socket.address().clone();
            let key: Arc<str> = address.vhost_key().into();
            let stop = CancellationToken::new();
            let task = tokio::spawn(listen(socket.into_listener()?, key, shared.clone(), stop.clone()));
            self.open.insert(address, Port { stop, task });
        }
        Ok(())
    }

    /// Whether the address is open.
    pub fn has(&self, address: &ListenAddress) -> bool {
        self.open.contains_key(address)
    }

    /// Closes the ports that are not wanted any more. Their connections go on until a side closes them.
    pub fn keep_only(&mut self, wanted: &[ListenAddress]) {
        let gone: Vec<_> = self.open.keys().filter(|address| !wanted.contains(address)).cloned().collect();
        for address in gone {
            if let Some(port) = self.open.remove(&address) {
                port.stop.cancel();
                tracing::info!("no longer listening on {address}");
            }
        }
    }

    /// Closes all ports; a UNIX socket's file is gone when this returns.
    pub async fn stop(self) {
        for port in self.open.into_values() {
            port.stop.cancel();
            // An accept loop that panicked has logged it, and is as closed as one that ended.
            let _ = port.task.await;
        }
    }

    /// Where the daemon listens, for a message.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.open.keys().map(ListenAddress::to_string).collect();
        names.join(", ")
    }
}
