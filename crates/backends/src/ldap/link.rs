//! One connection to a directory.
//!
//! Knows: TCP, STARTTLS, bind and search as ldap3 does them. Must not know: how long to wait, who waits.

use super::server::Server;
use super::{Deref, Entry, LdapSettings};
use crate::Secret;
use crate::tls;
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
use tokio::net::{TcpStream, UnixStream};
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

/// Why a search has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection is lost, or could not be made, encrypted or bound.
    Lost(String),
    /// The server refused the search.
    Refused(String),
}

/// What to look for.
pub(super) struct Search<'a> {
    pub base: &'a str,
    pub filter: &'a str,
    pub attributes: &'a [String],
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
    pub fn new(settings: &LdapSettings) -> Result<Opener, String> {
        let servers = Server::parse_list(&settings.host, settings.port)?;
        let doors: Vec<_> =
            servers.into_iter().map(|server| Door::new(server, settings)).collect::<Result<_, _>>()?;
        let tries = u32::try_from(doors.len()).unwrap_or(u32::MAX);
        let binddn = settings.binddn.clone().filter(|dn| !dn.is_empty());
        let (limit, password) = (settings.timeout / tries.max(1), settings.password.clone());
        Ok(Opener { doors, last: AtomicUsize::new(0), limit, binddn, password })
    }

    /// A connection that is encrypted and bound as it should be, and so one that the server has answered on;
    /// or why there is none. Of several servers the one that was used last is tried first, then the others in
    /// their order, each as soon as those before have failed or been silent for a moment.
    pub async fn open(&self) -> Result<Link, String> {
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
                Ok(Some((number, Ok(link)))) => {
                    self.last.store(number, Ordering::Relaxed);
                    return Ok(link);
                }
                Ok(Some((_, Err(why)))) => failures.push(why),
                Ok(None) => return Err(failures.join("; ")),
                Err(_) => {}
            }
        }
    }

    async fn open_door(&self, number: usize) -> (usize, Result<Link, String>) {
        let Some(door) = self.doors.get(number) else { return (number, Err(String::new())) };
        let opened = guarded(door.open(self.binddn.as_deref(), &self.password));
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

impl Door {
    fn new(server: Server, settings: &LdapSettings) -> Result<Door, String> {
        let ca = settings.tls_ca.as_deref();
        let (host, ldaps) = match &server {
            // Nobody else can listen to a socket.
            Server::Unix(_) => {
                return Ok(Door { server, url: "ldapi:///".to_owned(), starttls: false, tls: None });
            }
            Server::Tcp { host, ldaps, .. } => (host.clone(), *ldaps),
        };
        let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
        let tls = if !ldaps && !settings.starttls {
            None
        } else if is_ipv6 {
            // ldap3 can't find the address between the brackets that a URL has around it.
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|_| format!("host: `{host}` is neither a name nor an address"))?;
            Some(tls::client_config_for(ca, name)?)
        } else {
            Some(tls::client_config(ca)?)
        };
        let scheme = if ldaps { "ldaps" } else { "ldap" };
        let url = format!("{scheme}://{}", if is_ipv6 { "localhost" } else { &host });
        Ok(Door { server, url, starttls: !ldaps && settings.starttls, tls })
    }

    fn failed(&self, why: impl std::fmt::Display) -> String {
        match &self.server {
            Server::Tcp { host, .. } => format!("{host}: {why}"),
            Server::Unix(path) => format!("{path}: {why}"),
        }
    }

    async fn open(&self, binddn: Option<&str>, password: &Secret) -> Result<Link, String> {
        let stream = self.connect().await.map_err(|error| self.failed(error))?;
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
        let mut link = Link { handle, driver: driver.abort_handle() };
        link.bind(binddn, password).await?;
        Ok(link)
    }

    async fn connect(&self) -> std::io::Result<StdStream> {
        match &self.server {
            Server::Unix(path) => Ok(StdStream::Unix(UnixStream::connect(path).await?.into_std()?)),
            Server::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(StdStream::Tcp(stream.into_std()?))
            }
        }
    }
}

/// A connection; dropping it closes it, whatever is going on.
pub(super) struct Link {
    handle: ldap3::Ldap,
    driver: AbortHandle,
}

impl Link {
    async fn bind(&mut self, binddn: Option<&str>, password: &Secret) -> Result<(), String> {
        let (dn, password) = binddn.map_or(("", ""), |dn| (dn, &password.0));
        let answer = self.handle.simple_bind(dn, password).await;
        let answer = answer.map_err(|error| format!("bind: {}", cause(error)))?;
        // A connection without a DN is anonymous before and after the bind, whether the server likes to hear
        // it or not.
        if answer.rc == 0 || binddn.is_none() { Ok(()) } else { Err(format!("bind as {dn}: {answer}")) }
    }

    /// The entries that are found.
    pub async fn search(&mut self, search: &Search<'_>) -> Result<Vec<Entry>, Trouble> {
        guarded(self.find(search)).await.unwrap_or_else(|| Err(Trouble::Lost(NOT_LDAP.to_owned())))
    }

    async fn find(&mut self, search: &Search<'_>) -> Result<Vec<Entry>, Trouble> {
        let limit = i32::try_from(search.limit).unwrap_or(i32::MAX);
        let what = || format!("search below `{}` for {}", search.base, search.filter);
        let failed = |error| match error {
            LdapError::FilterParsing => Trouble::Refused(format!("{}: this is not a filter", what())),
            other => Trouble::Lost(format!("search: {}", cause(other))),
        };
        let deref = match search.deref {
            Deref::Never => DerefAliases::Never,
            Deref::Search => DerefAliases::Searching,
            Deref::Find => DerefAliases::Finding,
            Deref::Always => DerefAliases::Always,
        };
        let handle = self.handle.with_search_options(SearchOptions::new().sizelimit(limit).deref(deref));
        let begun = handle.streaming_search(search.base, Scope::Subtree, search.filter, search.attributes);
        let mut answers = begun.await.map_err(failed)?;
        let mut entries = Vec::new();
        while let Some(answer) = answers.next().await.map_err(failed)? {
            // Not every server heeds the limit.
            if entries.len() < search.limit {
                entries.extend(Entry::read(answer.0));
            }
        }
        let end = answers.finish().await;
        match end.rc {
            SUCCESS | SIZE_LIMIT_EXCEEDED => Ok(entries),
            BUSY | UNAVAILABLE => Err(Trouble::Lost(format!("search: {end}"))),
            _ => Err(Trouble::Refused(format!("{}: {end}", what()))),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Waits for a call to ldap3, which panics over answers that are built wrongly: `None` then. Without this a
/// server could end the task that tries it, and so be down forever.
async fn guarded<T>(call: impl Future<Output = T>) -> Option<T> {
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
