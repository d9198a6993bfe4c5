//! What is done once Postfix has its answer.
//!
//! Knows: futures. Must not know: any plugin, sockets.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

/// Work that must not be done before the answer is with Postfix: a daemon that dies in between must not have
/// used up what the next try of the same message needs. It is not done if the answer can't be sent.
///
/// The lock is never waited for: it lets other threads have a reference.
#[derive(Default)]
pub struct Afterwards(Mutex<Vec<Work>>);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Afterwards {
    /// Leaves something to do. The connection waits for it before it reads another request, so it needs a
    /// time limit.
    pub fn add(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
    }

    /// Does all of it, in order.
    pub async fn run(self) {
        for work in self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            work.await;
        }
    }
}
