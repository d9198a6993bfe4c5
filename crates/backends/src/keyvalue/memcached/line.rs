//! A connection in use: requests go out as they come, replies come back in the same order.
//!
//! Knows: which request was sent and whose reply is next. Must not know: which server it is, when to connect.

use super::job::Job;
use super::protocol::{Parsed, Replies};
use crate::Socket;
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::io;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Maximum number of requests without a reply: as many as policy connections are busy at once. More wait.
const MAX_SENT: usize = 256;

/// What the buffers begin with, and are given back to once a large value has gone through.
const BUFFER_BYTES: usize = 16 * 1024;

/// A connection.
pub(super) struct Line {
    stream: Socket,
    /// Bytes to write, and how many were written before them.
    output: BytesMut,
    written: u64,
    input: BytesMut,
    /// Requests without all their replies, in order.
    sent: VecDeque<Sent>,
    /// The replies that the first of them has so far.
    replies: Replies,
    /// Requests to send first.
    waiting: VecDeque<Job>,
}

/// A request whose bytes have been given to the connection.
struct Sent {
    job: Job,
    /// How many bytes were given to the connection before.
    begin: u64,
}

/// Why a connection is not used any more.
pub(super) enum Ended {
    /// Nobody will ask anything.
    Dropped,
    /// A request got no reply until its deadline.
    TimedOut,
    /// It broke.
    Lost(String),
    /// Something came that is not a reply.
    OutOfStep(&'static str),
}

impl Line {
    /// A connection that sends these requests before others.
    pub(super) fn new(stream: Socket, waiting: VecDeque<Job>) -> Line {
        Line {
            stream,
            output: BytesMut::with_capacity(BUFFER_BYTES),
            written: 0,
            input: BytesMut::with_capacity(BUFFER_BYTES),
            sent: VecDeque::new(),
            replies: Replies::new(),
            waiting,
        }
    }

    /// Serves requests until the connection ends.
    pub(super) async fn run(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Ended {
        match self.serve(jobs).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    /// What may have been done, and what was not sent.
    pub(super) fn close(self) -> (Vec<Job>, VecDeque<Job>) {
        let written = self.written;
        let (mut sent, mut unsent) = (Vec::new(), VecDeque::new());
        for one in self.sent {
            // A request of which a part was written may hold a whole command.
            if one.begin < written { sent.push(one.job) } else { unsent.push_back(one.job) }
        }
        unsent.extend(self.waiting);
        (sent, unsent)
    }

    async fn serve(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Result<std::convert::Infallible, Ended> {
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            // Before anything is sent, so that a server that has closed the connection is noticed in time.
            self.read()?;
            self.send_waiting()?;
            if let Some(first) = self.sent.front().map(|sent| sent.job.deadline)
                && (timer.is_elapsed() || timer.deadline() > first)
            {
                let earliest = self.sent.iter().map(|sent| sent.job.deadline).min();
                timer.as_mut().reset(earliest.unwrap_or(first));
            }
            let room = self.output.is_empty() && self.sent.len() < MAX_SENT;
            let mut interest = Interest::READABLE;
            if !self.output.is_empty() {
                interest |= Interest::WRITABLE;
            }
            tokio::select! {
                biased;
                ready = self.stream.ready(interest) => { ready.map_err(lost)?; }
                () = &mut timer, if !self.sent.is_empty() => self.check_deadlines()?,
                job = jobs.recv(), if room => match job {
                    Some(job) => self.gather(job, jobs).await,
                    None => return Err(Ended::Dropped),
                },
            }
        }
    }

    /// Takes a request, and those that other tasks are about to make: one write and one packet for all.
    async fn gather(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) {
        self.waiting.push_back(first);
        // This task runs at once after the one that woke it, before others that could ask something too.
        tokio::task::yield_now().await;
        while self.sent.len() + self.waiting.len() < MAX_SENT {
            match jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => break,
            }
        }
    }

    fn send_waiting(&mut self) -> Result<(), Ended> {
        for job in self.waiting.drain(..) {
            // Whoever has given up wants nothing done any more.
            if !job.answer.is_closed() {
                let begin = self.written + self.output.len() as u64;
                self.output.extend_from_slice(job.request.bytes());
                self.sent.push_back(Sent { job, begin });
            }
        }
        while !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(count) => {
                    self.output.advance(count);
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(error)),
            }
        }
        shrink(&mut self.output);
        Ok(())
    }

    fn read(&mut self) -> Result<(), Ended> {
        loop {
            if self.input.capacity() == self.input.len() {
                self.input.reserve(BUFFER_BYTES);
            }
            match self.stream.try_read(&mut self.input) {
                Ok(0) => return Err(Ended::Lost("the server has closed the connection".to_owned())),
                Ok(_) => self.hand_out()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(error)),
            }
        }
    }

    /// Gives the replies that have come to those who wait for them.
    fn hand_out(&mut self) -> Result<(), Ended> {
        while !self.input.is_empty() {
            let Some(first) = self.sent.front() else {
                return Err(Ended::OutOfStep("a reply that nobody waits for"));
            };
            match first.job.request.parse(&self.input) {
                Parsed::Incomplete => return Ok(()),
                Parsed::OutOfStep(what) => return Err(Ended::OutOfStep(what)),
                Parsed::Reply(reply, length) => {
                    self.input.advance(length);
                    self.replies.push(reply);
                }
            }
            if self.replies.len() == first.job.request.replies()
                && let Some(Sent { job, .. }) = self.sent.pop_front()
            {
                // Whoever has given up does not hear it.
                let _ = job.answer.send(Ok(std::mem::take(&mut self.replies)));
            }
        }
        shrink(&mut self.input);
        Ok(())
    }

    fn check_deadlines(&self) -> Result<(), Ended> {
        let now = Instant::now();
        let late = self.sent.iter().any(|sent| sent.job.deadline <= now);
        if late { Err(Ended::TimedOut) } else { Ok(()) }
    }
}

/// Gives back what a large value has taken.
fn shrink(buffer: &mut BytesMut) {
    if buffer.capacity() > 4 * BUFFER_BYTES {
        *buffer = BytesMut::with_capacity(BUFFER_BYTES);
    }
}

fn lost(error: io::Error) -> Ended {
    Ended::Lost(error.to_string())
}
