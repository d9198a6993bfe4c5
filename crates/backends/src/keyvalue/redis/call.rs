//! One call: to the right server, by its deadline, once more where that does no harm.
//!
//! What a server has surely not executed is repeated until it is, or until the time is over. A server that
//! has only just failed may be in the middle of being replaced, so callers wait for that, for
//! [`RedisSettings::failover_wait`](super::RedisSettings) from the beginning of the outage.
//!
//! Knows: which failures leave a command undone. Must not know: what the commands mean.

use super::cluster::Cluster;
use super::error::{RequestError, answer_of, text_of};
use super::node::{InUse, Node};
use crate::Endpoint;
use redis::{Cmd, Pipeline, ServerError, ServerErrorKind, Value, cmd};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How often in a row servers of a cluster may name another one, before the caller waits for them to agree.
const MAX_MOVES: usize = 5;

/// The first wait for a server that can't serve; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(2);

/// The longest of these waits.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The servers of a connection.
pub(super) enum Servers {
    /// One has everything.
    One(Arc<Node>),
    /// Each has a part.
    Cluster(Arc<Cluster>),
}

/// What goes to the server of a key as one command.
pub(super) struct Command<'a> {
    /// The key.
    key: &'a [u8],
    command: Cmd,
    /// Whether it does no harm to execute it twice.
    repeatable: bool,
    /// Whether its last argument is to be the time, by the server's clock, by which it has to begin with it.
    dated: bool,
}

impl<'a> Command<'a> {
    /// A command that may be executed again when its connection broke.
    pub(super) fn repeatable(key: &'a [u8], command: Cmd) -> Command<'a> {
        Command { key, command, repeatable: true, dated: false }
    }

    /// A command that must not be executed twice.
    pub(super) fn once(key: &'a [u8], command: Cmd) -> Command<'a> {
        Command { repeatable: false, ..Command::repeatable(key, command) }
    }

    /// The same with one argument more: until when the server may begin with it, in milliseconds since the
    /// epoch by its own clock, or 0 as long as that clock is not known. The reply has to be a list whose
    /// last element is the server's time, and whose first is [`STALE`] if it was too late.
    pub(super) fn dated(self) -> Command<'a> {
        Command { dated: true, ..self }
    }

    fn packed(&self, node: &Node, asking: bool, begin_by: Instant) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(2);
        if asking {
            pipeline.add_command(cmd("ASKING"));
        }
        let mut command = self.command.clone();
        if self.dated {
            command.arg(node.clock().at(begin_by));
        }
        pipeline.add_command(command);
        pipeline
    }
}

/// What a script answers first that was told to begin by a time that has passed.
pub(super) const STALE: i64 = -1;

/// How soon a server has to begin with a dated command. One that was asleep for longer does not execute it
/// when it wakes, and is asked again: by then it has executed what others had sent it before it fell asleep,
/// such as a session that is saved. It is less than anybody waits for a reply, so what was given up is not
/// executed later.
const FRESH: Duration = Duration::from_millis(500);

/// How long callers wait.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// When the call has to end.
    pub(super) deadline: Instant,
    /// After what time without a reply a server is suspected to be dead.
    pub(super) reply: Duration,
    /// How long a server that has failed is waited for.
    pub(super) failover: Duration,
}

/// What a server says.
enum Reply {
    Value(Value),
    /// The key is at another one.
    Moved(Endpoint),
    /// The key may be at another one already, which has to be told that we know.
    Ask(Endpoint),
    /// It can't serve just now, and has done nothing: it is a replica, reads its data, has lost its master or
    /// most of the cluster.
    NotYet(String),
    /// The keys are on the move, and not all in one place.
    Moving(String),
}

/// Waits that become longer.
struct Pause(Duration);

impl Pause {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST_PAUSE);
        now
    }
}

impl Servers {
    /// The reply to a command; of the server's errors only NOSCRIPT is one.
    pub(super) async fn call(
        &self,
        command: &Command<'_>,
        patience: Patience,
    ) -> Result<Value, RequestError> {
        let (mut pause, mut moves, mut failures, mut is_stale) = (Pause(FIRST_PAUSE), 0, 0, false);
        let mut next: Option<(Arc<Node>, bool)> = None;
        // A slot moves in a moment, whatever happens to others: that is waited for in each call.
        let mut moving_until: Option<Instant> = None;
        loop {
            let (node, asking) = match next.take() {
                Some(next) => next,
                None => (self.owner(command.key, patience, &mut pause).await?, false),
            };
            let begun = Instant::now();
            let error = match send(&node, command, asking, patience, is_stale).await {
                Ok(Reply::Value(value)) => match node.clock().learn(command.dated, &value, begun) {
                    // Its clock was set since, or it was asleep: nothing was done.
                    true if !is_stale && Instant::now() < patience.deadline => {
                        is_stale = true;
                        continue;
                    }
                    _ => return Ok(value),
                },
                Ok(Reply::Moved(address) | Reply::Ask(address)) if matches!(self, Servers::One(_)) => {
                    let text =
                        format!("the key is at {address}: this is a cluster; name its nodes in `cluster`");
                    return Err(RequestError::Refused(text));
                }
                Ok(reply @ (Reply::Moved(_) | Reply::Ask(_))) if moves < MAX_MOVES => {
                    moves += 1;
                    next = self.sent_on(reply);
                    continue;
                }
                Ok(Reply::Moved(_) | Reply::Ask(_)) => {
                    moves = 0;
                    moving_until.get_or_insert(Instant::now() + patience.failover);
                    RequestError::Down("the key is sent from server to server".to_owned())
                }
                Ok(Reply::Moving(answer)) => {
                    moving_until.get_or_insert(Instant::now() + patience.failover);
                    RequestError::Down(answer)
                }
                // It answers, and may be meant to be a replica.
                Ok(Reply::NotYet(answer)) if answer.starts_with("READONLY") => RequestError::Refused(answer),
                Ok(Reply::NotYet(answer)) => RequestError::Down(answer),
                // Whoever asked may ask again: better when the server is back than now.
                Err(error @ (RequestError::Lost(_) | RequestError::Late(_))) if !command.repeatable => {
                    if matches!(error, RequestError::Lost(_)) {
                        // Whether it is down is found out at once.
                        node.suspect();
                    }
                    node.breaker().wait(patience.failover, patience.deadline).await;
                    return Err(error);
                }
                Err(error @ RequestError::Refused(_)) => return Err(error),
                Err(error) => error,
            };
            let until = worth_trying_until(&node, &error, moving_until, patience);
            failures += 1;
            if failures == 1 && self.is_elsewhere(&node, &error) {
                continue;
            }
            if !self.wait(&node, patience.failover, until, &mut pause).await {
                return Err(error);
            }
        }
    }

    /// Whether the server may already be another one, or reachable over another connection, so that the first
    /// failure is a reason to look at once.
    fn is_elsewhere(&self, node: &Arc<Node>, error: &RequestError) -> bool {
        match (self, error) {
            (_, RequestError::Late(_)) => false,
            (Servers::One(_), RequestError::Known(_)) => false,
            (Servers::One(_), _) => true,
            (Servers::Cluster(cluster), RequestError::Known(_)) => {
                cluster.is_perhaps_outdated();
                // It is no use to look again where nothing can have changed.
                cluster.has_to_ask() && node.breaker().check().is_err()
            }
            (Servers::Cluster(cluster), _) => {
                cluster.is_outdated();
                true
            }
        }
    }

    /// Where a server sends the caller on to.
    fn sent_on(&self, reply: Reply) -> Option<(Arc<Node>, bool)> {
        let Servers::Cluster(cluster) = self else { return None };
        match reply {
            Reply::Moved(address) => {
                cluster.is_outdated();
                Some((cluster.node(&address), false))
            }
            Reply::Ask(address) => Some((cluster.node(&address), true)),
            Reply::Value(_) | Reply::NotYet(_) | Reply::Moving(_) => None,
        }
    }

    /// Waits a little for a server that could not serve: whether there is time left.
    async fn wait(&self, node: &Arc<Node>, failover: Duration, until: Instant, pause: &mut Pause) -> bool {
        let next = Instant::now() + pause.next();
        if next >= until {
            return false;
        }
        match self {
            // There is no other: nothing changes before it is back.
            Servers::One(node) if node.breaker().check().is_err() => {
                return node.breaker().wait(failover, until).await;
            }
            Servers::One(_) => sleep_until(next).await,
            Servers::Cluster(cluster) => {
                node.breaker().wait_for_change(next).await;
                cluster.is_perhaps_outdated();
            }
        }
        Instant::now() < until
    }

    /// The server of a key.
    async fn owner(
        &self,
        key: &[u8],
        patience: Patience,
        pause: &mut Pause,
    ) -> Result<Arc<Node>, RequestError> {
        let cluster = match self {
            Servers::One(node) => return Ok(node.clone()),
            Servers::Cluster(cluster) => cluster,
        };
        loop {
            let by = patience.deadline.min(Instant::now() + patience.reply);
            let error = match cluster.owner(key, by).await {
                Ok(node) => return Ok(node),
                Err(error) => error,
            };
            let until = cluster.breaker().worth_waiting(patience.failover).unwrap_or_else(Instant::now);
            let next = Instant::now() + pause.next();
            if next >= until.min(patience.deadline) {
                return Err(error);
            }
            cluster.breaker().wait_for_change(next).await;
        }
    }
}

/// Sends commands to a server, whatever keys they name: the reply to each, errors among them, and the
/// connection, which is closed unless the caller says that it is still good.
pub(super) async fn exchange(
    node: &Arc<Node>,
    commands: impl FnOnce(&Node) -> Pipeline,
    patience: Patience,
) -> Result<(Vec<Value>, InUse), RequestError> {
    let until = patience.deadline.min(Instant::now() + patience.reply);
    // Nothing was sent until it is open.
    let in_use =
        timeout_at(until, node.connection()).await.map_err(|_| RequestError::Known(node.suspect()))??;
    let commands = commands(node);
    let replies = timeout_at(until, in_use.connection.send(&commands)).await;
    // Without replies, the connection goes with `in_use`.
    let replies = replies.map_err(|_| RequestError::Late(node.suspect()))?;
    let replies = replies.map_err(|error| RequestError::Lost(text_of(&error)))?;
    Ok((replies, in_use))
}

/// Sends a command to a server. If it is dated, the server has to begin with it while it is fresh, or, where
/// it was too late for that, while its reply is waited for.
async fn send(
    node: &Arc<Node>,
    command: &Command<'_>,
    asking: bool,
    patience: Patience,
    was_stale: bool,
) -> Result<Reply, RequestError> {
    let make = |node: &Node| {
        let until = patience.deadline.min(Instant::now() + patience.reply);
        let begin_by = if was_stale { until } else { until.min(Instant::now() + FRESH) };
        command.packed(node, asking, begin_by)
    };
    let (replies, in_use) = exchange(node, make, patience).await?;
    let reply = judge(node, replies);
    // A connection to what has become a replica, or can't serve, is of no further use.
    match &reply {
        Ok(Reply::NotYet(_)) => node.breaker().not_serving(),
        Ok(Reply::Moving(_)) => in_use.answered(),
        Err(RequestError::Known(_)) => {}
        _ => {
            node.breaker().served();
            in_use.answered();
        }
    }
    reply
}

/// What the replies say, of which the first error counts.
fn judge(node: &Arc<Node>, replies: Vec<Value>) -> Result<Reply, RequestError> {
    let error = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(error),
        _ => None,
    });
    let last = |mut replies: Vec<Value>| Reply::Value(replies.pop().unwrap_or(Value::Nil));
    let Some(error) = error else { return Ok(last(replies)) };
    let answer = answer_of(error);
    match error.kind() {
        Some(ServerErrorKind::NoScript) => Ok(last(replies)),
        Some(ServerErrorKind::Moved) => other_server(node, error).map(Reply::Moved),
        Some(ServerErrorKind::Ask) => other_server(node, error).map(Reply::Ask),
        Some(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown,
        ) => Ok(Reply::NotYet(answer)),
        Some(ServerErrorKind::TryAgain) => Ok(Reply::Moving(answer)),
        // A script, mostly of somebody else, has kept it from serving for seconds.
        None if error.code() == "BUSY" => Err(RequestError::Known(node.failed(&answer))),
        _ => Err(RequestError::Refused(answer)),
    }
}

/// Until when a command is sent again that nobody has executed, or that does no harm twice.
fn worth_trying_until(
    node: &Node,
    error: &RequestError,
    moving_until: Option<Instant>,
    patience: Patience,
) -> Instant {
    let until = match (error, moving_until) {
        (RequestError::Down(_), Some(until)) => until,
        (RequestError::Lost(_), _) => patience.deadline,
        (RequestError::Late(_), _) if !patience.failover.is_zero() => patience.deadline,
        _ => node.breaker().worth_waiting(patience.failover).unwrap_or_else(Instant::now),
    };
    until.min(patience.deadline)
}

/// The server that an answer like `MOVED 3999 127.0.0.1:6381` names. Without a host it is that of the one
/// that answers.
fn other_server(node: &Node, error: &ServerError) -> Result<Endpoint, RequestError> {
    let unclear = || RequestError::Refused(answer_of(error));
    let details = error.details().ok_or_else(unclear)?;
    let place = details.split_ascii_whitespace().nth(1).ok_or_else(unclear)?;
    // IPv6 addresses come without brackets.
    let (host, port) = place.rsplit_once(':').ok_or_else(unclear)?;
    let port = port.parse().map_err(|_| unclear())?;
    let host = match (host, node.address()) {
        ("", Some(Endpoint::Tcp { host, .. })) => host.clone(),
        _ => host.to_owned(),
    };
    Ok(Endpoint::Tcp { host, port })
}
