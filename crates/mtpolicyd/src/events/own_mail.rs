//! The connections over which this daemon sends events as messages, so that its own checks let them pass.
//!
//! Postfix asks about such a message as about any other, and says from which port it came. Nobody else can
//! have that port as long as the connection is open, so the exception can't be forged.
//!
//! Knows: addresses, the attributes of a request. Must not know: SMTP, what is sent.

use postfix_policy::Request;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections that are open.
#[derive(Clone, Debug, Default)]
pub struct OwnMail(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<BTreeSet<SocketAddr>>,
    count: AtomicUsize,
}

/// A connection that is open until this is dropped.
pub struct OpenMail {
    all: OwnMail,
    from: SocketAddr,
}

impl OwnMail {
    /// A connection was opened from this address.
    pub fn opened(&self, from: SocketAddr) -> OpenMail {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let mut open = self.lock();
        open.insert(from);
        self.0.count.store(open.len(), Ordering::Release);
        OpenMail { all: self.clone(), from }
    }

    /// Whether a request is about a message that comes over one of them. That is a glance at a number while
    /// none is open.
    pub fn is_own(&self, request: &Request) -> bool {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let port = request.get("client_port").and_then(|port| str::from_utf8(port).ok()?.parse().ok());
        let address = request.client_ip().map(|address| address.to_canonical());
        let from = address.zip(port).map(|(address, port)| SocketAddr::new(address, port));
        from.is_some_and(|from| self.lock().contains(&from))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenMail {
    fn drop(&mut self) {
        let mut open = self.all.lock();
        open.remove(&self.from);
        self.all.0.count.store(open.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(address: &str, port: &str) -> Request {
        Request::from_pairs([("client_address", address), ("client_port", port)]).expect("a request")
    }

    #[test]
    fn only_a_message_over_an_open_connection_is_ours() {
        let own = OwnMail::default();
        let ours = request("127.0.0.1", "40000");
        assert!(!own.is_own(&ours));
        let open = own.opened("127.0.0.1:40000".parse().unwrap());
        let second = own.opened("[::ffff:192.0.2.1]:7".parse().unwrap());
        assert!(own.is_own(&ours) && own.is_own(&request("192.0.2.1", "7")));
        for (address, port) in [("127.0.0.1", "40001"), ("127.0.0.2", "40000"), ("", ""), ("x", "40000")] {
            assert!(!own.is_own(&request(address, port)), "{address} {port}");
        }
        drop(open);
        assert!(!own.is_own(&ours));
        drop(second);
    }
}
