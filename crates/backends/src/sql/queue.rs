//! A bounded queue between the tasks that ask and the threads that work.
//!
//! Knows: waiting, ends. Must not know: what is queued.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A queue that several threads may take from.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    bound: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// What a thread finds.
pub(super) enum Taken<T> {
    /// At least one.
    Some(Vec<T>),
    /// Nothing came in the time.
    Nothing,
    /// Nothing is left, and nothing will come.
    End,
}

impl<T> Queue<T> {
    /// A queue with this capacity.
    pub fn new(bound: usize) -> Queue<T> {
        let state = State { waiting: VecDeque::new(), closed: false };
        Queue { state: Mutex::new(state), filled: Condvar::new(), bound }
    }

    /// Adds one at the end, or gives it back if the queue is full or closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= self.bound {
            return Err(item);
        }
        state.waiting.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until there is something, at most for `patience` if that is given, and takes up to `most`.
    pub fn take(&self, most: usize, patience: Option<Duration>) -> Taken<T> {
        let end = patience.map(|patience| Instant::now() + patience);
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() {
                let count = most.min(state.waiting.len());
                return Taken::Some(state.waiting.drain(..count).collect());
            }
            if state.closed {
                return Taken::End;
            }
            state = match end {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::Nothing;
                    }
                    self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes what is there, up to `most`, without waiting.
    pub fn take_now(&self, most: usize) -> Vec<T> {
        let mut state = self.lock();
        let count = most.min(state.waiting.len());
        state.waiting.drain(..count).collect()
    }

    /// Nothing may be added any more; what is there is still taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_ends_when_it_is_closed_and_empty() {
        let queue = Queue::new(2);
        assert!(queue.push(1).is_ok() && queue.push(2).is_ok());
        assert_eq!(queue.push(3), Err(3));
        assert!(matches!(queue.take(9, None), Taken::Some(all) if all == [1, 2]));
        assert!(matches!(queue.take(9, Some(Duration::from_millis(1))), Taken::Nothing));
        assert!(queue.push(4).is_ok());
        queue.close();
        assert_eq!(queue.push(5), Err(5));
        assert!(matches!(queue.take(9, None), Taken::Some(all) if all == [4]));
        assert!(matches!(queue.take(9, None), Taken::End));
    }
}
