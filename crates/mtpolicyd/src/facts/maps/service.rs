//! Tables that other programs look into: `socketmap:`, and Postfix's own proxymap for `proxy:`.
//!
//! Knows: connections, both protocols. Must not know: what is looked up.

use backends::{BackendError, Breaker, Failure, Probe, call_deadline};
use postfix_maps::{proxymap, socketmap};
use postfix_policy::client::Endpoint;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

/// Connections kept open at most; each is idle, so this bounds descriptors, not concurrency.
const MAX_IDLE: usize = 8;

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
pub(super) struct Service {
    endpoint: Endpoint,
    protocol: Protocol,
    timeout: Duration,
    breaker: Arc<Breaker>,
    idle: Mutex<Vec<Stream>>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Stream = Box<dyn Duplex>;

/// The value of a key if there is one, or why the service can't say.
type Answer = Result<Option<Vec<u8>>, String>;

/// What became of a question.
enum Asked {
    Answered(Answer),
    /// The connection ended before the first byte of an answer.
    HungUp(String),
    Broken(String),
}

impl Service {
    pub fn new(
        name: &str,
        endpoint: &str,
        protocol: Protocol,
        timeout: Duration,
    ) -> Result<Arc<Service>, String> {
        let endpoint = endpoint.parse().map_err(|error| format!("`{endpoint}`: {error}"))?;
        let breaker = Breaker::new(name);
        Ok(Arc::new(Service { endpoint, protocol, timeout, breaker, idle: Mutex::default() }))
    }

    /// Says what keeps the service from being asked, as far as its socket shows without a connection.
    pub fn trouble(&self) -> Option<String> {
        let Endpoint::Unix(path) = &self.endpoint else { return None };
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
    pub async fn get(
        self: &Arc<Self>,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, BackendError> {
        self.breaker.check()?;
        let deadline = call_deadline(deadline, self.timeout);
        match timeout_at(deadline, self.ask(key)).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(refusal))) => Err(self.breaker.error(Failure::Refused(refusal))),
            Ok(Err(cause)) => Err(self.breaker.failed(&cause, self.probe())),
            Err(_) => Err(self.breaker.suspect(self.probe())),
        }
    }

    /// The value, or what the service says instead; the outer error is that it can't be asked. A connection
    /// that failed, or was given up in the middle, is dropped.
    async fn ask(&self, key: &[u8]) -> Result<Answer, String> {
        let question = match &self.protocol {
            Protocol::Socketmap(map) => socketmap::request(map, key),
            Protocol::Proxymap(table) => match proxymap::request(table, key) {
                Some(question) => question,
                // No table has such a key.
                None => return Ok(Ok(None)),
            },
        };
        while let Some(kept) = self.take_idle() {
            match self.exchange(kept, &question).await {
                Asked::Answered(answer) => return Ok(answer),
                // It was closed meanwhile, which says nothing about a new one.
                Asked::HungUp(_) => {}
                Asked::Broken(cause) => return Err(cause),
            }
        }
        let stream = connect(&self.endpoint).await.map_err(|error| error.to_string())?;
        match self.exchange(stream, &question).await {
            Asked::Answered(answer) => Ok(answer),
            Asked::HungUp(cause) | Asked::Broken(cause) => Err(cause),
        }
    }

    async fn exchange(&self, mut stream: Stream, question: &[u8]) -> Asked {
        if let Err(error) = stream.write_all(question).await {
            return Asked::HungUp(error.to_string());
        }
        let mut answer = Vec::new();
        loop {
            let start = answer.len();
            answer.resize(start + READ_BYTES, 0);
            let count = match stream.read(&mut answer[start..]).await {
                Ok(0) if start == 0 => return Asked::HungUp("closed without an answer".to_owned()),
                Ok(0) => return Asked::Broken("closed within an answer".to_owned()),
                Ok(count) => count,
                Err(error) if start == 0 => return Asked::HungUp(error.to_string()),
                Err(error) => return Asked::Broken(error.to_string()),
            };
            answer.truncate(start + count);
            match self.read(&answer) {
                Ok(None) => {}
                Ok(Some(value)) => {
                    self.keep(stream);
                    return Asked::Answered(value);
                }
                Err(cause) => return Asked::Broken(cause),
            }
        }
    }

    /// What has come so far: the bounds of an answer are those of its protocol.
    fn read(&self, answer: &[u8]) -> Result<Option<Answer>, String> {
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

    fn take_idle(&self) -> Option<Stream> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, stream: Stream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(stream);
        }
    }

    /// Finds out whether the service answers, whatever it says. Idle connections are closed before: a server
    /// with one place would wait for a question on them.
    fn probe(
        self: &Arc<Self>,
    ) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = Probe> + Send>> + Send + 'static {
        let service = Arc::downgrade(self);
        move || {
            let service = service.clone();
            Box::pin(async move {
                let Some(service) = service.upgrade() else { return Probe::Dropped };
                while service.take_idle().is_some() {}
                match service.ask(PROBE_KEY).await {
                    Ok(_) => Probe::Alive,
                    Err(_) => Probe::Dead,
                }
            })
        }
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<Stream> {
    Ok(match endpoint {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}
