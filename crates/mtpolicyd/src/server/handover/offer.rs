//! SIGTERM: a daemon that is started in place of the one that ends takes over its ports.
//!
//! Whoever restarts a daemon by hand ends one process and starts another. Between the two the ports would be
//! closed, for as long as a start takes. So a daemon that is told to end while it has clients goes on for a
//! moment and offers its sockets; one that is started in that moment with one of these addresses takes them,
//! and the old one ends when the new one serves requests. Nobody has to configure anything: the offer is made
//! under names that follow from the addresses, in the same network as these (unix(7), abstract sockets), and
//! both sides look at the other one's user.
//!
//! Knows: both sides of the offer. Must not know: what is passed, how a daemon ends.

use super::{Predecessor, Received, START_SECONDS, Successor, talk, to_pass, understand, wait_at_most};
use crate::address::ListenAddress;
use crate::server::Daemon;
use crate::server::listeners::Listeners;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt};
use nix::sys::socket::{listen, socket, sockopt};
use nix::unistd::Uid;
use serde_json::Value;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};

/// How long a daemon that was told to end waits for another one to take its ports. A program is loaded and
/// its configuration read in a tenth of that.
const OFFERED_FOR: Duration = Duration::from_millis(500);

/// How long a daemon that starts waits for one that has offered its ports to answer.
const ANSWER_SECONDS: i64 = 10;

/// The sockets of a daemon that ends, for one that is started.
pub(in crate::server) struct Offer {
    /// A socket for each name.
    names: Vec<UnixListener>,
    passed: Vec<(Value, OwnedFd)>,
}

impl Offer {
    /// Offers the ports; `None` if they can't be passed, or if nobody could find them.
    pub fn new(daemon: &Daemon<'_>, listeners: &Listeners) -> Option<Offer> {
        let passed = to_pass(daemon, listeners).ok()?;
        let names: Vec<_> = listeners.addresses().iter().filter_map(|name| open(name).ok()).collect();
        (!names.is_empty()).then_some(Offer { names, passed })
    }

    /// Waits for a daemon that takes the ports, and until it serves requests. `None` if none comes, or if it
    /// does not start.
    pub async fn taken(self) -> Option<Successor> {
        let until = Instant::now() + OFFERED_FOR;
        let (taker, process) = loop {
            let taker = timeout_at(until, self.next()).await.ok()?;
            let Ok(peer) = taker.peer_cred() else { continue };
            if let Some(process) = peer.pid().filter(|_| is_one_of_us(peer.uid(), None)) {
                break (taker, process.cast_unsigned());
            }
        };
        let taker = taker.into_std().ok()?;
        taker.set_nonblocking(false).ok()?;
        let (socket, passed) = (OwnedFd::from(taker), self.passed);
        let answer = tokio::task::spawn_blocking(move || (talk(&socket, passed), socket));
        let (answer, socket) = answer.await.ok()?;
        let (addresses, has_pid_file) = understand(&answer.ok()??).ok()?;
        Some(Successor { id: process, addresses, has_pid_file, _socket: socket })
    }

    async fn next(&self) -> UnixStream {
        poll_fn(|cx| {
            let taker = self.names.iter().find_map(|name| match name.poll_accept(cx) {
                Poll::Ready(Ok((taker, _))) => Some(taker),
                _ => None,
            });
            taker.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Predecessor {
    /// The daemon that offers one of these addresses since it ends, and all that it passes. `user` is the one
    /// that this process will run as.
    pub fn that_ends(addresses: &[ListenAddress], user: Option<Uid>) -> Option<(Predecessor, Received)> {
        let offers = addresses.iter().filter_map(|address| find(&address.to_string(), user).ok());
        offers.into_iter().find_map(|socket| {
            let predecessor = Predecessor { socket };
            // One that has ended meanwhile has closed its ports: they are bound as usual.
            let received = predecessor.receive().ok()?;
            Some((predecessor, received))
        })
    }
}

/// Whether a process with this user may take part: root, or the user of this one, which could do anything
/// with it as it is.
fn is_one_of_us(user: u32, also: Option<Uid>) -> bool {
    let user = Uid::from_raw(user);
    user.is_root() || user == Uid::effective() || Some(user) == also
}

/// The name under which a listen address is offered. Longer ones than fit are not.
fn name_of(address: &str) -> nix::Result<UnixAddr> {
    UnixAddr::new_abstract(format!("mtpolicyd handover {address}").as_bytes())
}

/// Neither side waits for the other one's place in a queue, which a stranger could keep full.
fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

fn open(address: &str) -> io::Result<UnixListener> {
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &name_of(address)?)?;
    listen(&socket, Backlog::new(1)?)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

fn find(address: &str, user: Option<Uid>) -> io::Result<OwnedFd> {
    const { assert!(ANSWER_SECONDS < START_SECONDS) };
    let socket = new_socket()?;
    connect(socket.as_raw_fd(), &name_of(address)?)?;
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
    if !is_one_of_us(peer.uid(), user) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user offers the address"));
    }
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    wait_at_most(&socket, ANSWER_SECONDS)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::descriptors;
    use serde_json::json;
    use std::net::TcpListener;

    /// Only these sockets, without the daemon.
    fn offer(address: &ListenAddress, socket: TcpListener) -> Offer {
        let described = json!({ "tcp": address.to_string() });
        let names = vec![open(&address.to_string()).unwrap()];
        Offer { names, passed: vec![(described, socket.into())] }
    }

    fn listening() -> (ListenAddress, TcpListener) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        (ListenAddress::Tcp(socket.local_addr().unwrap()), socket)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_starts_takes_what_is_offered_and_the_other_one_hears_of_it() {
        let (address, socket) = listening();
        let (other, _other) = listening();
        let offered = tokio::spawn(offer(&address, socket).taken());
        let addresses = [other, address.clone()];
        let found = tokio::task::spawn_blocking(move || {
            let (predecessor, received) = Predecessor::that_ends(&addresses, None).unwrap();
            assert_eq!(received.sockets.len(), 1);
            // The other side waits for it; what it answers is that it has let go.
            let ready = json!({ "ready": [addresses[1].to_string()], "pid_file": true });
            descriptors::send(&predecessor.socket, ready.to_string().as_bytes(), None).unwrap();
            assert!(descriptors::receive(&predecessor.socket).unwrap().is_none());
        });
        let successor = offered.await.unwrap().unwrap();
        assert_eq!(successor.id, std::process::id());
        assert_eq!(successor.addresses, [address.to_string()]);
        assert!(successor.has_pid_file);
        drop(successor);
        found.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_does_not_start_has_taken_nothing() {
        let (address, socket) = listening();
        let offered = tokio::spawn(offer(&address, socket).taken());
        let addresses = [address.clone()];
        let found = move || drop(Predecessor::that_ends(&addresses, None).unwrap());
        tokio::task::spawn_blocking(found).await.unwrap();
        assert!(offered.await.unwrap().is_none());
        assert!(Predecessor::that_ends(&[address], None).is_none(), "nobody offers it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_ends() {
        let (address, socket) = listening();
        let begun = Instant::now();
        assert!(offer(&address, socket).taken().await.is_none());
        assert!(begun.elapsed() >= OFFERED_FOR);
    }

    #[test]
    fn nobody_waits_in_a_full_queue() {
        let (address, _socket) = listening();
        let _listener = {
            let socket = new_socket().unwrap();
            bind(socket.as_raw_fd(), &name_of(&address.to_string()).unwrap()).unwrap();
            listen(&socket, Backlog::new(0).unwrap()).unwrap();
            socket
        };
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            // As many as the system lets wait, and one more.
            while let Ok(socket) = find(&address.to_string(), None) {
                waiting.push(socket);
            }
            sender.send(waiting.len())
        });
        // Whoever waits for a place does so for longer.
        let limit = Duration::from_secs(ANSWER_SECONDS.cast_unsigned() - 1);
        assert!(receiver.recv_timeout(limit).is_ok_and(|waiting| waiting > 0));
    }

    #[test]
    fn strangers_take_no_part() {
        let mine = Uid::effective().as_raw();
        assert!(is_one_of_us(0, None) && is_one_of_us(mine, None));
        assert!(!is_one_of_us(mine + 1, None) && is_one_of_us(mine + 1, Some(Uid::from_raw(mine + 1))));
    }
}
