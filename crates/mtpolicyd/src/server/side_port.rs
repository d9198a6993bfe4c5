//! A port beside those of Postfix, such as the control socket: what is known of it while it is open, how it
//! is passed on, and its end.
//!
//! Knows: listeners, tasks. Must not know: what is asked there.

use super::passed::{Owner, PassedSocket};
use super::sockets::{BoundSocket, Listener};
use crate::address::ListenAddress;
use serde_json::Value;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The open port.
pub(super) struct SidePort {
    listener: Arc<Listener>,
    address: ListenAddress,
    owner: Owner,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl SidePort {
    /// Starts to accept, in a task that ends when it is told to stop.
    pub fn start<Accepts>(
        socket: BoundSocket,
        accept: impl FnOnce(Arc<Listener>, CancellationToken) -> Accepts,
    ) -> io::Result<SidePort>
    where
        Accepts: Future<Output = ()> + Send + 'static,
    {
        let (address, owner) = (socket.address().clone(), socket.owner().clone());
        let (listener, stop) = (Arc::new(socket.into_listener()?), CancellationToken::new());
        let task = tokio::spawn(accept(listener.clone(), stop.clone()));
        Ok(SidePort { listener, address, owner, stop, task })
    }

    /// Where it is.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Its address, as in the messages between two processes.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// What a successor needs of it.
    pub fn to_pass(&self) -> io::Result<(Value, OwnedFd)> {
        let description = PassedSocket::describe(&self.address, &self.owner);
        Ok((description, self.listener.as_fd().try_clone_to_owned()?))
    }

    /// Says whether the file of a UNIX socket goes with this process.
    pub fn owns_file(&self, owns: bool) {
        self.listener.owns_file(owns);
    }

    /// Closes it, and its connections.
    pub async fn close(self) {
        self.stop.cancel();
        // One that panicked is as closed as one that ended.
        let _ = self.task.await;
    }
}
