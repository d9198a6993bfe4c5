//! One server of memcached: a connection that all requests share.
//!
//! A task owns the connection. It writes what has been queued meanwhile at once, and hands out the replies in
//! the order of the requests. A request that got no reply until its deadline ends the connection, so that no
//! late reply is taken for another's. What was sent on it fails, since it may have been done, and what was
//! not goes over the next one.
//!
//! Knows: sockets, deadlines, whether the server is alive. Must not know: what is asked.

use super::job::{Fault, Job};
use super::line::{Ended, Line};
use super::protocol::{Parsed, Replies, Reply, Request};
use crate::messages;
use crate::{BackendError, Breaker, Endpoint, Failure, Guarded, Socket};
use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

/// Length of the task's queue; beyond it callers wait.
const QUEUE: usize = 256;

/// How often a request that was not sent is given another connection.
const MAX_CONNECTIONS_PER_JOB: u8 = 2;

/// A server.
pub(super) struct Server {
    target: Guarded<Target>,
    /// To the task, once there is one.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
}

/// Where a server is.
struct Target {
    endpoint: Endpoint,
    limit: Duration,
}

impl Server {
    /// A server for the connection of that name; nothing is opened yet.
    pub(super) fn new(connection: &str, endpoint: Endpoint, limit: Duration) -> Server {
        let breaker = Breaker::new(&format!("{connection} ({endpoint})"));
        Server { target: Guarded::new(breaker, limit, Target { endpoint, limit }), queue: Mutex::default() }
    }

    /// Whether it is believed to be alive.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        self.target.check()
    }

    /// An error of this server's.
    pub(super) fn refused(&self, message: String) -> BackendError {
        self.target.error(Failure::Refused(message))
    }

    /// Whether it answers.
    pub(super) async fn ping(&self, deadline: Instant) -> Result<(), BackendError> {
        match timeout_at(deadline, self.target.look()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.target.failed(&error.to_string())),
            Err(_) => Err(self.target.failed("no answer in time")),
        }
    }

    /// Sends a request and waits for its replies, at most until the deadline.
    pub(super) async fn call(&self, request: Request, deadline: Instant) -> Result<Replies, Fault> {
        if deadline <= Instant::now() {
            return Err(Fault::Lost(self.target.error(Failure::TimedOut)));
        }
        let (answer, replies) = oneshot::channel();
        let job = Job { request, deadline, answer, connections: 0 };
        let queue = self.queue();
        let answered = timeout_at(deadline, async {
            // The task lives as long as its runtime.
            queue.send(job).await.ok()?;
            replies.await.ok()
        });
        match answered.await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(Fault::Lost(self.target.error(Failure::Down("shut down".into())))),
            Err(_) => Err(Fault::Lost(self.target.suspect())),
        }
    }

    /// The way to the task, which is started when it is first used.
    fn queue(&self) -> mpsc::Sender<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.as_ref().filter(|queue| !queue.is_closed()) {
            Some(queue) => queue.clone(),
            None => {
                let (sender, jobs) = mpsc::channel(QUEUE);
                let runner = Runner { target: self.target.clone(), jobs, waiting: VecDeque::new() };
                tokio::spawn(runner.run());
                queue.insert(sender).clone()
            }
        }
    }
}

impl Target {
    /// Asks the server for its version, on a connection of its own.
    async fn look(&self) -> io::Result<()> {
        let stream = Socket::connect(&self.endpoint, self.limit).await?;
        let request = Request::new().version();
        stream.ready(Interest::WRITABLE).await?;
        stream.try_write(request.bytes())?;
        let mut input = bytes::BytesMut::new();
        loop {
            stream.ready(Interest::READABLE).await?;
            match stream.try_read(&mut input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match request.parse(&input) {
                Parsed::Incomplete => {}
                Parsed::Reply(Reply::Version, _) => return Ok(()),
                Parsed::Reply(..) | Parsed::OutOfStep(_) => return Err(io::Error::other("no memcached")),
            }
        }
    }
}

impl crate::Server for Target {
    async fn answers(&self) -> bool {
        self.look().await.is_ok()
    }
}

/// The task of a server: connects when there is something to send.
struct Runner {
    target: Guarded<Target>,
    jobs: mpsc::Receiver<Job>,
    /// What a connection that ended has not sent.
    waiting: VecDeque<Job>,
}

impl Runner {
    async fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => self.waiting.push_back(job),
                    None => return,
                }
            }
            // Whoever has given up meanwhile wants nothing done.
            self.waiting.retain(|job| !job.answer.is_closed());
            if self.waiting.is_empty() {
                continue;
            }
            let Target { endpoint, limit } = &*self.target;
            match timeout(*limit, Socket::connect(endpoint, *limit)).await {
                Ok(Ok(stream)) => {
                    if !self.serve(stream).await {
                        return;
                    }
                }
                Ok(Err(error)) => self.fail_waiting(&error.to_string()),
                Err(_) => self.fail_waiting("no connection in time"),
            }
        }
    }

    /// Uses a connection until it ends: whether there will be another.
    async fn serve(&mut self, stream: Socket) -> bool {
        for job in &mut self.waiting {
            job.connections += 1;
        }
        let mut line = Line::new(stream, std::mem::take(&mut self.waiting));
        let ended = line.run(&mut self.jobs).await;
        let (sent, unsent) = line.close();
        let failure = match ended {
            Ended::Dropped => return false,
            Ended::TimedOut => Failure::TimedOut,
            Ended::Lost(cause) => Failure::Down(cause.into()),
            Ended::OutOfStep(reply) => {
                messages::not_memcached(self.target.connection(), reply);
                Failure::Refused(format!("not the memcached protocol: {reply}"))
            }
        };
        for job in sent {
            // Whoever does not wait any more has its error.
            let _ = job.answer.send(Err(Fault::Lost(self.target.error(failure.clone()))));
        }
        self.waiting = unsent;
        if self.waiting.iter().any(|job| job.connections >= MAX_CONNECTIONS_PER_JOB) {
            self.fail_waiting(&failure.to_string());
        }
        true
    }

    /// Without a connection: what waits may go to another server.
    fn fail_waiting(&mut self, cause: &str) {
        let error = self.target.failed(cause);
        while let Ok(job) = self.jobs.try_recv() {
            self.waiting.push_back(job);
        }
        for job in self.waiting.drain(..) {
            let _ = job.answer.send(Err(Fault::Unsent(job.request, error.clone())));
        }
    }
}
