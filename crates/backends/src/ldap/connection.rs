//! One connection to a directory.
//!
//! Knows: TCP, STARTTLS, bind and search as ldap3 does them. Must not know: how long to wait, who waits.

use super::server::Server;
use super::{Deref, Entry, LdapSettings};
use crate::tls::{Verification, client_config};
use crate::{Client, Endpoint, OptionError, Secret, Socket};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ldap3::{DerefAliases, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchOptions, StdStream};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::poll_fn;
use std::net::Ipv6Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Codes of results (RFC 4511, appendix A): all is well; there are more entries than were asked for; the
/// server can't look now.
const SUCCESS: u32 = 0;
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const BUSY: u32 = 51;
const UNAVAILABLE: u32 = 52;

/// How long a server may take before the next one is tried beside it. All of them have to be tried within
/// the second that a try of the breaker's may take, if there are not more than three.
const HEAD_START: Duration = Duration::from_millis(250);

/// What to look for.
pub(super) struct Search {
    pub base: String,
    pub filter: String,
    pub attributes: Vec<String>,
    /// Entries, at most.
    pub limit: usize,
    /// Which aliases are followed.
    pub deref: Deref,
}

/// How to open a connection.
pub(super) struct Opener {
    doors: Vec<Door>,
    /// Which of them was opened last, and so is tried first.
    last: AtomicUsize,
    /// How long one may take, where another follows.
    limit: Duration,
    binddn: Option<String>,
    password: Secret,
}

/// One server, and how it is spoken to.
struct Door {
    server: Server,
    /// What ldap3 takes the name in the certificate from.
    url: String,
    starttls: bool,
    /// How to encrypt the connection, if at all.
    tls: Option<Arc<ClientConfig>>,
}

impl Opener {
    /// The error says what is wrong with a setting.
    pub fn new(settings: &LdapSettings) -> Result<Opener, OptionError> {
        let servers = Server::parse_list(&settings.host, settings.port);
        let servers = servers.map_err(|why| OptionError::new("host", why))?;
        let doors: Vec<_> =
            servers.into_iter().map(|server| Door::new(server, settings)).collect::<Result<_, _>>()?;
        let tries = u32::try_from(doors.len()).unwrap_or(u32::MAX);
        let binddn = settings.binddn.clone().filter(|dn| !dn.is_empty());
        let (limit, password) = (settings.timeout / tries.max(1), settings.password.clone());
        Ok(Opener { doors, last: AtomicUsize::new(0), limit, binddn, password })
    }

    async fn open_first(&self) -> Result<Connection, String> {
        let first = self.last.load(Ordering::Relaxed);
        let others = (0..self.doors.len()).filter(|number| *number != first);
        let mut left = std::iter::once(first).chain(others).peekable();
        let mut tries = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            tries.extend(left.next().map(|number| self.open_door(number)));
            let ended = if left.peek().is_some() {
                timeout(HEAD_START, tries.next()).await
            } else {
                Ok(tries.next().await)
            };
            match ended {
                Ok(Some((number, Ok(connection)))) => {
                    self.last.store(number, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Some((_, Err(why)))) => failures.push(why),
                Ok(None) => return Err(failures.join("; ")),
                Err(_) => {}
            }
        }
    }

    async fn open_door(&self, number: usize) -> (usize, Result<Connection, String>) {
        let Some(door) = self.doors.get(number) else { return (number, Err(String::new())) };
        let opened = caught(door.open(self.binddn.as_deref(), &self.password, self.limit));
        let opened = if self.doors.len() == 1 {
            opened.await
        } else {
            let opened = timeout(self.limit, opened).await;
            opened.unwrap_or_else(|_| Some(Err(door.failed("no answer in time"))))
        };
        (number, opened.unwrap_or_else(|| Err(NOT_LDAP.to_owned())))
    }

    /// The server that was used last can't look now: another one is tried first the next time.
    pub fn avoid_last(&self) {
        let last = self.last.load(Ordering::Relaxed);
        self.last.store((last + 1) % self.doors.len(), Ordering::Relaxed);
    }
}

impl Client for Opener {
    type Connection = Connection;
    type Question = Search;
    /// What is found, or why the server refuses the search.
    type Answer = Result<Vec<Entry>, String>;
    /// Why the connection is lost, or could not be made, encrypted or bound.
    type Error = String;

    /// A connection that is encrypted and bound as it should be, and so one that the server has answered on;
    /// or why there is none. Of several servers the one that was used last is tried first, then the others in
    /// their order, each as soon as those before have failed or been silent for a moment.
    async fn open(&self) -> Result<Connection, String> {
        self.open_first().await
    }

    async fn ask(&self, connection: &mut Connection, search: &Search) -> Result<Self::Answer, String> {
        caught(connection.search(search)).await.unwrap_or_else(|| Err(NOT_LDAP.to_owned()))
    }

    fn is_closed(_: &String) -> bool {
        true
    }
}

impl Door {
    fn new(server: Server, settings: &LdapSettings) -> Result<Door, OptionError> {
        let ca = settings.tls_ca.as_deref();
        let Endpoint::Tcp { host, .. } = &server.endpoint else {
            // Nobody else can listen to a socket.
            return Ok(Door { server, url: "ldapi:///".to_owned(), starttls: false, tls: None });
        };
        let (host, ldaps) = (host.clone(), server.ldaps);
        let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
        let tls = if !ldaps && !settings.starttls {
            None
        } else if is_ipv6 {
            // ldap3 can't find the address between the brackets that a URL has around it.
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|_| {
                OptionError::new("host", format!("`{host}` is neither a name nor an address"))
            })?;
            let mut config = client_config(Verification::FullFor(name), ca, None)?;
            // The name that the library would send is not the server's.
            config.enable_sni = false;
            Some(Arc::new(config))
        } else {
            Some(Arc::new(client_config(Verification::Full, ca, None)?))
        };
        let scheme = if ldaps { "ldaps" } else { "ldap" };
        let url = format!("{scheme}://{}", if is_ipv6 { "localhost" } else { &host });
        Ok(Door { server, url, starttls: !ldaps && settings.starttls, tls })
    }

    fn failed(&self, why: impl std::fmt::Display) -> String {
        match &self.server.endpoint {
            Endpoint::Tcp { host, .. } => format!("{host}: {why}"),
            Endpoint::Unix(path) => format!("{}: {why}", path.display()),
        }
    }

    async fn open(
        &self,
        binddn: Option<&str>,
        password: &Secret,
        limit: Duration,
    ) -> Result<Connection, String> {
        let stream = self.connect(limit).await.map_err(|error| self.failed(error))?;
        let mut settings = LdapConnSettings::new().set_std_stream(stream);
        if let Some(tls) = &self.tls {
            settings = settings.set_starttls(self.starttls).set_config(tls.clone());
        }
        let opened = LdapConnAsync::with_settings(settings, &self.url).await;
        let (connection, handle) = opened.map_err(|error| format!("encryption: {}", cause(error)))?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer learns of the end too.
            let _ = connection.drive().await;
        });
        let mut connection = Connection { handle, driver: driver.abort_handle() };
        connection.bind(binddn, password).await?;
        Ok(connection)
    }

    async fn connect(&self, limit: Duration) -> std::io::Result<StdStream> {
        Ok(match Socket::connect(&self.server.endpoint, limit).await? {
            Socket::Tcp(stream) => StdStream::Tcp(stream.into_std()?),
            Socket::Unix(stream) => StdStream::Unix(stream.into_std()?),
        })
    }
}

/// A connection; dropping it closes it, whatever is going on.
pub(super) struct Connection {
    handle: ldap3::Ldap,
    driver: AbortHandle,
}

impl Connection {
    async fn bind(&mut self, binddn: Option<&str>, password: &Secret) -> Result<(), String> {
        let (dn, password) = binddn.map_or(("", ""), |dn| (dn, &password.0));
        let answer = self.handle.simple_bind(dn, password).await;
        let answer = answer.map_err(|error| format!("bind: {}", cause(error)))?;
        // A connection without a DN is anonymous before and after the bind, whether the server likes to hear
        // it or not.
        if answer.rc == 0 || binddn.is_none() { Ok(()) } else { Err(format!("bind as {dn}: {answer}")) }
    }

    /// The entries that are found, or why the server refuses the search; or why the connection is lost.
    async fn search(&mut self, search: &Search) -> Result<Result<Vec<Entry>, String>, String> {
        let limit = i32::try_from(search.limit).unwrap_or(i32::MAX);
        let what = || format!("search below `{}` for {}", search.base, search.filter);
        let lost = |error| format!("search: {}", cause(error));
        let deref = match search.deref {
            Deref::Never => DerefAliases::Never,
            Deref::Search => DerefAliases::Searching,
            Deref::Find => DerefAliases::Finding,
            Deref::Always => DerefAliases::Always,
        };
        let handle = self.handle.with_search_options(SearchOptions::new().sizelimit(limit).deref(deref));
        let begun = handle.streaming_search(&search.base, Scope::Subtree, &search.filter, &search.attributes);
        let mut answers = match begun.await {
            Err(LdapError::FilterParsing) => return Ok(Err(format!("{}: this is not a filter", what()))),
            begun => begun.map_err(lost)?,
        };
        let mut entries = Vec::new();
        while let Some(answer) = answers.next().await.map_err(lost)? {
            // Not every server heeds the limit.
            if entries.len() < search.limit {
                entries.extend(Entry::read(answer.0));
            }
        }
        let end = answers.finish().await;
        match end.rc {
            SUCCESS | SIZE_LIMIT_EXCEEDED => Ok(Ok(entries)),
            BUSY | UNAVAILABLE => Err(format!("search: {end}")),
            _ => Ok(Err(format!("{}: {end}", what()))),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Waits for a call to ldap3, which panics over answers that are built wrongly: `None` then. Without this a
/// server could end the task that tries it, and so be down forever.
async fn caught<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

const NOT_LDAP: &str = "the server's answer is not LDAP";

fn cause(error: LdapError) -> String {
    match error {
        LdapError::Io { source } => source.to_string(),
        LdapError::LdapResult { result } => result.to_string(),
        LdapError::EndOfStream | LdapError::OpSend { .. } | LdapError::ResultRecv { .. } => {
            "the connection was closed".to_owned()
        }
        other => other.to_string(),
    }
}
