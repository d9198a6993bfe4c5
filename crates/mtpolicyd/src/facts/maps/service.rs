//! Tables that other programs look into: `socketmap:`, and Postfix's own proxymap for `proxy:`.
//!
//! Knows: connections, both protocols. Must not know: what is looked up.

use backends::replay::{self, Replay};
use backends::{
    BackendError, Breaker, Call, CallError, Client, Endpoint, Failure, Guarded, Pool, PoolLimits, Socket,
};
use lookups::LookupKind;
use postfix_maps::{proxymap, socketmap};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Connections kept open at most; each is idle, so this bounds descriptors, not concurrency.
const MAX_IDLE: usize = 8;

/// How long a connection may have been idle.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// What is noted where there is no value.
const NOTHING: &str = "nothing";

/// How much is read at once.
const READ_BYTES: usize = 4096;

/// What a service is asked to find out whether it answers: no table needs to have it.
const PROBE_KEY: &[u8] = b"mtpolicyd";

/// How a service is spoken to.
pub(super) enum Protocol {
    /// The map of that name, at a socketmap server.
    Socketmap(String),
    /// The table of that name, at Postfix's proxymap.
    Proxymap(String),
}

/// A service, and connections to it.
pub(super) struct Service(Guarded<Pool<Connector>>);

/// How a service is spoken to, and where it is.
struct Connector {
    endpoint: Endpoint,
    protocol: Protocol,
    timeout: Duration,
}

/// The value of a key if there is one, or why the service can't say.
type LookupResult = Result<Option<Vec<u8>>, String>;

/// Why there is no answer.
enum Broken {
    /// The connection ended before the first byte of an answer.
    HungUp(String),
    /// It could not be made, or ended within an answer, or what came is not an answer.
    Failed(String),
}

impl Service {
    pub fn new(name: &str, endpoint: &str, protocol: Protocol, timeout: Duration) -> Result<Service, String> {
        let endpoint = endpoint.parse().map_err(|error| format!("{error}"))?;
        let limits = PoolLimits { calls: usize::MAX, idle: MAX_IDLE, idle_time: IDLE_TIME };
        let pool = Pool::new(Connector { endpoint, protocol, timeout }, limits);
        Ok(Service(Guarded::new(Breaker::new(name), timeout, pool)))
    }

    /// Says what keeps the service from being asked, as far as its socket shows without a connection.
    pub fn trouble(&self) -> Option<String> {
        let Endpoint::Unix(path) = &self.0.client().endpoint else { return None };
        let why = match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_socket() => return None,
            Ok(_) => "this is not a socket",
            Err(error) if error.kind() == io::ErrorKind::NotFound => "no such socket",
            // The user of the daemon may be allowed to.
            Err(_) => return None,
        };
        Some(format!("{}: {why}", path.display()))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], call: Call<'_>) -> Result<Option<Vec<u8>>, BackendError> {
        let question = || String::from_utf8_lossy(key).into_owned();
        if let Some(replay) = call.replay() {
            return replayed(replay, self.0.connection(), &question());
        }
        let asked = async {
            // No table has a key that can't be asked for.
            let Some(question) = self.0.client().question(key) else { return Ok(None) };
            match self.0.ask(&question).await {
                Ok(answer) => answer.map_err(|refusal| CallError::Failed(Failure::Refused(refusal))),
                Err(Broken::HungUp(cause) | Broken::Failed(cause)) => Err(CallError::Down(cause)),
            }
        };
        let begun = call.begin();
        let value = self.0.call(asked, call).await;
        begun.note_texts(LookupKind::Map, self.0.connection(), question, &value, |value| {
            value.as_deref().map_or(NOTHING.into(), String::from_utf8_lossy).into_owned()
        });
        value
    }
}

/// What was recorded of a key.
fn replayed(replay: &Replay, name: &str, key: &str) -> Result<Option<Vec<u8>>, BackendError> {
    let Some(answer) = replay.answer(LookupKind::Map, name, key) else {
        replay.miss(format!("the table {name}"));
        return Ok(None);
    };
    match replay::failure(name, &answer) {
        Some(error) => Err(error),
        None if answer == NOTHING => Ok(None),
        None => Ok(Some(answer.into_bytes())),
    }
}

impl Connector {
    fn question(&self, key: &[u8]) -> Option<Vec<u8>> {
        match &self.protocol {
            Protocol::Socketmap(map) => Some(socketmap::request(map, key)),
            Protocol::Proxymap(table) => proxymap::request(table, key),
        }
    }

    /// What has come so far: the bounds of an answer are those of its protocol.
    fn read(&self, answer: &[u8]) -> Result<Option<LookupResult>, String> {
        Ok(match self.protocol {
            Protocol::Socketmap(_) => {
                let reply = socketmap::reply(answer).map_err(|error| error.to_string())?;
                reply.map(|reply| match reply {
                    socketmap::Reply::Found(value) => Ok(Some(value)),
                    socketmap::Reply::NotFound => Ok(None),
                    socketmap::Reply::Failed(why) => Err(why),
                })
            }
            Protocol::Proxymap(_) => {
                let reply = proxymap::reply(answer).map_err(|error| error.to_string())?;
                reply.map(|reply| match reply {
                    proxymap::Reply::Found(value) => Ok(Some(value)),
                    proxymap::Reply::NotFound => Ok(None),
                    proxymap::Reply::Failed(why) => Err(why.to_owned()),
                })
            }
        })
    }
}

impl Client for Connector {
    type Connection = Socket;
    type Question = [u8];
    type Answer = LookupResult;
    type Error = Broken;

    async fn open(&self) -> Result<Socket, Broken> {
        let connected = Socket::connect(&self.endpoint, self.timeout).await;
        connected.map_err(|error| Broken::Failed(error.to_string()))
    }

    async fn ask(&self, socket: &mut Socket, question: &[u8]) -> Result<LookupResult, Broken> {
        socket.write_all(question).await.map_err(|error| Broken::HungUp(error.to_string()))?;
        let mut answer = Vec::new();
        loop {
            let start = answer.len();
            answer.resize(start + READ_BYTES, 0);
            let count = match socket.read(&mut answer[start..]).await {
                Ok(0) if start == 0 => return Err(Broken::HungUp("closed without an answer".to_owned())),
                Ok(0) => return Err(Broken::Failed("closed within an answer".to_owned())),
                Ok(count) => count,
                Err(error) if start == 0 => return Err(Broken::HungUp(error.to_string())),
                Err(error) => return Err(Broken::Failed(error.to_string())),
            };
            answer.truncate(start + count);
            if let Some(value) = self.read(&answer).map_err(Broken::Failed)? {
                return Ok(value);
            }
        }
    }

    fn is_closed(error: &Broken) -> bool {
        matches!(error, Broken::HungUp(_))
    }

    /// Whether the service answers, whatever it says.
    async fn answers(&self, socket: &mut Socket) -> bool {
        match self.question(PROBE_KEY) {
            Some(question) => self.ask(socket, &question).await.is_ok(),
            None => true,
        }
    }
}
