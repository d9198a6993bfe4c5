//! One call: to the right server, by its deadline, once more where that does no harm.
//!
//! Knows: which failures leave a command undone. Must not know: what the commands mean.

use super::cluster::Cluster;
use super::link::Address;
use super::node::Node;
use super::trouble::{Trouble, answer_of, text_of};
use redis::{Cmd, Pipeline, ServerError, ServerErrorKind, Value, cmd};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// How often a call goes to a server at most: while a cluster moves a key it may be sent on a few times.
const MAX_TRIES: usize = 5;

/// The servers of a connection.
pub(super) enum Servers {
    /// One has everything.
    One(Arc<Node>),
    /// Each has a part.
    Cluster(Arc<Cluster>),
}

/// Commands that go to the server of one key, in one round trip.
pub(super) struct Call<'a> {
    /// The key.
    key: &'a [u8],
    commands: Pipeline,
    /// Whether it does no harm to execute them twice.
    repeatable: bool,
}

impl<'a> Call<'a> {
    /// A call that may be made again when its connection broke.
    pub(super) fn repeatable(key: &'a [u8], commands: impl IntoIterator<Item = Cmd>) -> Call<'a> {
        Call { key, commands: pipeline(commands), repeatable: true }
    }

    /// A call that must not be executed twice.
    pub(super) fn once(key: &'a [u8], commands: impl IntoIterator<Item = Cmd>) -> Call<'a> {
        Call { key, commands: pipeline(commands), repeatable: false }
    }
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(2);
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// What a server says.
enum Reply {
    /// These are the replies.
    Values(Vec<Value>),
    /// The key is at another one.
    Moved(Address),
    /// The key may be at another one already, which has to be told that we know.
    Ask(Address),
    /// It is a replica, and changes nothing.
    ReadOnly(String),
    /// It can't serve yet: it reads its data, or has lost its master.
    NotYet(String),
}

impl Servers {
    /// The replies to a call; of the server's errors only NOSCRIPT is among them.
    pub(super) async fn call(&self, call: &Call<'_>, deadline: Instant) -> Result<Vec<Value>, Trouble> {
        let mut node = self.owner(call.key, deadline).await?;
        let (mut asking, mut repeated) = (false, false);
        for _ in 0..MAX_TRIES {
            let reply = send(&node, call, asking, deadline).await;
            asking = false;
            match (reply, self) {
                (Ok(Reply::Values(values)), _) => return Ok(values),
                (Ok(Reply::Moved(address)), Servers::Cluster(cluster)) => {
                    cluster.is_outdated();
                    node = cluster.node(&address);
                }
                (Ok(Reply::Ask(address)), Servers::Cluster(cluster)) => {
                    node = cluster.node(&address);
                    asking = true;
                }
                (Ok(Reply::Moved(address) | Reply::Ask(address)), Servers::One(_)) => {
                    let text =
                        format!("the key is at {address}: this is a cluster; name its nodes in `cluster`");
                    return Err(Trouble::Refused(text));
                }
                (Ok(Reply::NotYet(answer)), Servers::Cluster(cluster)) => {
                    let error = Trouble::Known(node.failed(&answer));
                    node = cluster.successor(&node, call.key, deadline).await.ok_or(error)?;
                }
                (Ok(Reply::ReadOnly(answer)), _) if repeated => return Err(Trouble::Refused(answer)),
                (Ok(Reply::NotYet(answer)), _) if repeated => {
                    return Err(Trouble::Known(node.failed(&answer)));
                }
                (Err(Trouble::Lost(cause)), _) if repeated || !call.repeatable => {
                    return Err(Trouble::Lost(cause));
                }
                // Nothing was done. Behind the same address there may be another server by now.
                (Ok(Reply::ReadOnly(_) | Reply::NotYet(_)) | Err(Trouble::Lost(_)), _) => {
                    repeated = true;
                    node = self.owner_now(call.key, deadline).await?;
                }
                (Err(Trouble::Known(error)), Servers::Cluster(cluster)) => {
                    // Perhaps a replica has taken its place.
                    node = cluster.successor(&node, call.key, deadline).await.ok_or(Trouble::Known(error))?;
                }
                (Err(trouble), _) => return Err(trouble),
            }
        }
        Err(Trouble::Down("the key is sent from server to server".to_owned()))
    }

    async fn owner(&self, key: &[u8], deadline: Instant) -> Result<Arc<Node>, Trouble> {
        match self {
            Servers::One(node) => Ok(node.clone()),
            Servers::Cluster(cluster) => cluster.owner(key, deadline).await,
        }
    }

    /// The server of a key after one has shown that it is not.
    async fn owner_now(&self, key: &[u8], deadline: Instant) -> Result<Arc<Node>, Trouble> {
        if let Servers::Cluster(cluster) = self {
            cluster.is_outdated();
        }
        self.owner(key, deadline).await
    }
}

/// Sends a call to a server.
async fn send(node: &Arc<Node>, call: &Call<'_>, asking: bool, deadline: Instant) -> Result<Reply, Trouble> {
    let late = |_| Trouble::Late(node.suspect());
    let in_use = timeout_at(deadline, node.use_link()).await.map_err(late)??;
    let replies = if asking {
        let commands = pipeline(std::iter::once(cmd("ASKING")).chain(call.commands.cmd_iter().cloned()));
        let replies = timeout_at(deadline, in_use.link.send(&commands)).await;
        replies.map(|replies| replies.map(|replies| replies.into_iter().skip(1).collect()))
    } else {
        timeout_at(deadline, in_use.link.send(&call.commands)).await
    };
    // Without replies, the connection goes with `in_use`.
    let replies = replies.map_err(late)?.map_err(|error| Trouble::Lost(text_of(&error)))?;
    let reply = judge(node, replies);
    // A connection to what has become a replica, or can't serve, is of no further use.
    if !matches!(reply, Ok(Reply::ReadOnly(_) | Reply::NotYet(_)) | Err(Trouble::Known(_))) {
        in_use.answered();
    }
    reply
}

/// What the replies say, of which the first error counts.
fn judge(node: &Arc<Node>, replies: Vec<Value>) -> Result<Reply, Trouble> {
    let error = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(error),
        _ => None,
    });
    let Some(error) = error else { return Ok(Reply::Values(replies)) };
    let answer = answer_of(error);
    match error.kind() {
        Some(ServerErrorKind::NoScript) => Ok(Reply::Values(replies)),
        Some(ServerErrorKind::Moved) => other_server(node, error).map(Reply::Moved),
        Some(ServerErrorKind::Ask) => other_server(node, error).map(Reply::Ask),
        Some(ServerErrorKind::ReadOnly) => Ok(Reply::ReadOnly(answer)),
        Some(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => Ok(Reply::NotYet(answer)),
        // A script, mostly of somebody else, has kept it from serving for seconds.
        None if error.code() == "BUSY" => Err(Trouble::Known(node.failed(&answer))),
        Some(ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain) => Err(Trouble::Down(answer)),
        _ => Err(Trouble::Refused(answer)),
    }
}

/// The server that an answer like `MOVED 3999 127.0.0.1:6381` names. Without a host it is that of the one
/// that answers.
fn other_server(node: &Node, error: &ServerError) -> Result<Address, Trouble> {
    let unclear = || Trouble::Refused(answer_of(error));
    let details = error.details().ok_or_else(unclear)?;
    let place = details.split_ascii_whitespace().nth(1).ok_or_else(unclear)?;
    // IPv6 addresses come without brackets.
    let (host, port) = place.rsplit_once(':').ok_or_else(unclear)?;
    let port = port.parse().map_err(|_| unclear())?;
    let host = match (host, node.address()) {
        ("", Some(Address::Tcp { host, .. })) => host.clone(),
        _ => host.to_owned(),
    };
    Ok(Address::Tcp { host, port })
}
