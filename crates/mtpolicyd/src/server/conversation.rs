//! One connection of Postfix: request, answer, request, answer, until one side has enough.
//!
//! Knows: the protocol, the service. Must not know: how a listener accepts, plugins.

use super::Shared;
use super::decided::Answer;
use super::slots::Slot;
use super::stream::Stream;
use crate::log::messages::daemon;
use crate::plugin::Afterwards;
use crate::value::{Count, Seconds};
use bytes::BytesMut;
use decisions::Flags;
use postfix_policy::{Decoder, ProtocolError, Request};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// What is read at once: a request of Postfix has about 800 bytes.
const READ_BYTES: usize = 4096;

/// How long a daemon that shuts down waits for the first request of a connection: a client of Postfix sends
/// it as soon as it is connected.
const FIRST_REQUEST: Duration = Duration::from_millis(200);

/// A connection and what was read from it.
pub struct Conversation {
    stream: Stream,
    buffer: BytesMut,
    decoder: Decoder,
    slot: Slot,
    /// Whether the client has asked nothing yet.
    is_new: bool,
}

/// Why no more requests come.
enum End {
    /// The client has closed, or the daemon is shutting down, between two requests.
    Quiet,
    /// The client went away in the middle of a request, or was too slow.
    Cut(&'static str),
    /// What the client sends is not a policy protocol.
    Broken(ProtocolError),
    /// Another connection needs the slot, or the memory.
    Evicted,
    /// The socket failed.
    Failed(io::Error),
}

impl End {
    /// Its place in [`ENDS`](super::numbers::ENDS).
    fn number(&self) -> usize {
        match self {
            End::Quiet => 0,
            End::Cut(_) => 1,
            End::Broken(_) => 2,
            End::Evicted => 3,
            End::Failed(_) => 4,
        }
    }
}

impl Conversation {
    /// Answers the requests of one connection, which arrived on the port with that key.
    pub async fn run(stream: Stream, slot: Slot, key: &str, shared: &Shared) {
        let (buffer, decoder) = (BytesMut::new(), Decoder::default());
        let mut conversation = Conversation { stream, buffer, decoder, slot, is_new: true };
        shared.numbers.accepted.add(0, 1);
        let end = conversation.answer_all(key, shared).await;
        shared.numbers.ended.add(end.number(), 1);
        // Before anything is written, since the client may be about to ask.
        drop(conversation);
        match end {
            End::Quiet => daemon::connection_closed(key),
            End::Cut(why) => daemon::connection_cut(key, why),
            End::Evicted => daemon::connection_evicted(key),
            End::Broken(error) => daemon::protocol_error(key, error),
            End::Failed(error) => daemon::connection_failed(key, error),
        }
    }

    async fn answer_all(&mut self, key: &str, shared: &Shared) -> End {
        let mut answered = 0;
        loop {
            self.slot.begin_to_wait();
            let (request, begun) = match self.next_request(shared).await {
                Ok(next) => next,
                Err(end) => return end,
            };
            self.slot.end_waiting();
            self.is_new = false;
            // Each request gets the newest settings: a reload drops no connection.
            let service = shared.service.load_full();
            // Boxed, so that an idle connection does not hold the memory that answering takes.
            let mut after = Afterwards::default();
            let (answer, decision) = Box::pin(service.answer(key, &request, begun, &mut after)).await;
            let Answer::Reply(reply) = answer else {
                decision.into_iter().for_each(|decision| service.record(decision));
                return End::Quiet;
            };
            let mut line = Vec::with_capacity(128);
            reply.write_to(&mut line);
            let until = Instant::now() + service.request_timeout();
            let written = timeout_at(until, self.stream.write_all(&line)).await;
            drop(request);
            self.slot.holds(self.buffer.capacity());
            if let Some(mut decision) = decision {
                if !matches!(written, Ok(Ok(()))) {
                    decision.flags = decision.flags.with(Flags::NOT_SENT);
                }
                service.record(decision);
            }
            match written {
                Ok(Ok(())) => {
                    answered += 1;
                    after.run().await;
                }
                Ok(Err(error)) => return End::Failed(error),
                Err(_) => return End::Cut("the client does not read its answer"),
            }
            let limit = service.settings.globals.max_keepalive.0;
            if limit.is_some_and(|Count(limit)| answered >= limit) || shared.closing.is_cancelled() {
                return End::Quiet;
            }
        }
    }

    /// The next whole request, and when it began. Waiting for one costs no buffer; one that has begun has to
    /// end in time.
    async fn next_request(&mut self, shared: &Shared) -> Result<(Request, Instant), End> {
        let timeouts = Timeouts::of(shared);
        let idle_until = timeouts.idle.map(|idle| Instant::now() + idle);
        let mut begun = None;
        loop {
            if !self.buffer.is_empty() && begun.is_none() {
                begun = Some(Instant::now());
            }
            if let Some(request) = self.decoder.decode(&mut self.buffer).map_err(End::Broken)? {
                if self.buffer.is_empty() {
                    self.buffer = BytesMut::new();
                }
                return Ok((request, begun.unwrap_or_else(Instant::now)));
            }
            let until = begun.map(|begun| begun + timeouts.request).or(idle_until);
            let read = self.read(shared);
            let read = match until {
                Some(until) => timeout_at(until, read).await,
                None => Ok(read.await),
            };
            let read = match read {
                Ok(Err(end)) => return Err(end),
                Ok(Ok(read)) => Ok(read),
                Err(late) => Err(late),
            };
            if !self.slot.holds(self.buffer.capacity()) {
                return Err(End::Evicted);
            }
            match read {
                Ok(0) if begun.is_some() => {
                    return Err(End::Cut("the client left in the middle of a request"));
                }
                Ok(0) => return Err(End::Quiet),
                Ok(_) => {}
                Err(_) if begun.is_some() => return Err(End::Cut("a request took too long to arrive")),
                Err(_) => return Err(End::Quiet),
            }
        }
    }

    /// Reads what is there; 0 at the end, which shutting down is too unless something has arrived. Who has
    /// just connected is about to ask.
    async fn read(&mut self, shared: &Shared) -> Result<usize, End> {
        let (idle, is_new) = (self.buffer.is_empty(), self.is_new);
        let closing = async {
            shared.closing.cancelled().await;
            if is_new {
                sleep(FIRST_REQUEST).await;
            }
        };
        let (stream, buffer, slot) = (&mut self.stream, &mut self.buffer, &self.slot);
        let arrived = async {
            stream.readable().await?;
            buffer.reserve(READ_BYTES);
            stream.read(buffer).await
        };
        tokio::select! {
            biased;
            () = slot.evicted() => return Err(End::Evicted),
            read = arrived => return read.map_err(End::Failed),
            () = closing, if idle => {}
        }
        if !self.stream.has_something() {
            return Ok(0);
        }
        self.buffer.reserve(READ_BYTES);
        self.stream.read(&mut self.buffer).await.map_err(End::Failed)
    }
}

/// How long the client may take.
struct Timeouts {
    /// To begin a request; `None` means forever.
    idle: Option<Duration>,
    /// To end one that has begun: `request_timeout`, or `keepalive_timeout` where it is shorter, as in the
    /// original.
    request: Duration,
}

impl Timeouts {
    fn of(shared: &Shared) -> Timeouts {
        let service = shared.service.load();
        let idle = service.settings.globals.keepalive_timeout.0.map(Seconds::duration);
        let request = service.request_timeout();
        Timeouts { idle, request: idle.map_or(request, |idle| idle.min(request)) }
    }
}
