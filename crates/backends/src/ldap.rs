//! A directory that answers LDAP (RFC 4511).
//!
//! Knows: binding, searching, deadlines. Must not know: what an attribute means.

mod entry;
mod filter;
mod link;
mod server;

pub use entry::Entry;
pub use filter::{escape, is_filter, without_blanks};
pub use server::ignored_path;

use crate::{BackendError, Breaker, Failure, Probe, Secret, call_deadline};
use link::{Link, Opener, Search, Trouble};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// What a `<Connection>` of module Ldap says.
#[derive(Clone, PartialEq)]
pub struct LdapSettings {
    /// The servers, in the forms that the option `host` has.
    pub host: String,
    /// The port of those that name none.
    pub port: Option<u16>,
    /// Whether to keep the connection open for the next request.
    pub keepalive: bool,
    /// How long one call may take.
    pub timeout: Duration,
    /// Who to bind as; anonymous if none.
    pub binddn: Option<String>,
    /// The password for it.
    pub password: Secret,
    /// Whether to encrypt the connection with StartTLS and verify the server's certificate before anything
    /// else is sent.
    pub starttls: bool,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
    /// Which aliases are followed.
    pub deref: Deref,
}

/// Which aliases a search follows (RFC 4511, section 4.5.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deref {
    /// None.
    Never,
    /// Those below the base.
    Search,
    /// The base.
    Find,
    /// All.
    Always,
}

/// Maximum number of searches at the same time; others wait. slapd has 16 threads by default for all clients.
const MAX_CONNECTIONS: usize = 10;

/// How long a connection may have been unused: servers and firewalls close idle ones, the latter
/// without a word.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// A directory of the configuration.
///
/// A connection does one search at a time, so that a call which is given up takes no other with it.
pub struct Ldap {
    timeout: Duration,
    deref: Deref,
    breaker: Arc<Breaker>,
    directory: Arc<Directory>,
}

struct Directory {
    opener: Opener,
    permits: Semaphore,
    keepalive: bool,
    /// Connections that nobody uses, and since when; the one used last is at the end.
    kept: Mutex<Vec<(Link, Instant)>>,
}

impl Ldap {
    /// A directory; nothing is opened yet. The error says what is wrong with a setting.
    pub fn new(name: &str, settings: LdapSettings) -> Result<Ldap, String> {
        let directory = Directory {
            opener: Opener::new(&settings)?,
            permits: Semaphore::new(MAX_CONNECTIONS),
            keepalive: settings.keepalive,
            kept: Mutex::default(),
        };
        let breaker = Breaker::new(name);
        Ok(Ldap { timeout: settings.timeout, deref: settings.deref, breaker, directory: Arc::new(directory) })
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        self.breaker.connection()
    }

    /// The entries at and below `base` that the filter (RFC 4515) finds, no more than `limit`. Of each the
    /// attributes that are named. Referrals are not followed.
    ///
    /// [`Failure::Refused`] is about this search; a directory that refuses the bind is down for everybody, so
    /// that a wrong password is tried twice a second and not at each message.
    pub async fn search(
        &self,
        base: &str,
        filter: &str,
        attributes: &[String],
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Entry>, BackendError> {
        let search = Search { base, filter, attributes, limit, deref: self.deref };
        self.call(self.directory.search(&search), deadline).await
    }

    /// Whether the directory answers. For the log at the start.
    pub async fn ping(&self, deadline: Instant) -> Result<(), BackendError> {
        self.call(self.directory.open_one(), deadline).await
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, Trouble>>,
        deadline: Instant,
    ) -> Result<T, BackendError> {
        self.breaker.check()?;
        match timeout_at(call_deadline(deadline, self.timeout), call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble::Refused(answer))) => Err(self.breaker.error(Failure::Refused(answer))),
            Ok(Err(Trouble::Lost(cause))) => Err(self.breaker.failed(&cause, self.probe())),
            Err(_) => {
                // The others may have been cut by the same silent firewall.
                self.directory.forget();
                Err(self.breaker.suspect(self.probe()))
            }
        }
    }

    /// Tries the directory with a connection of its own.
    fn probe(
        &self,
    ) -> impl FnMut() -> std::pin::Pin<Box<dyn Future<Output = Probe> + Send>> + Send + 'static {
        let directory = Arc::downgrade(&self.directory);
        move || {
            let directory = directory.clone();
            Box::pin(async move {
                let Some(directory) = directory.upgrade() else { return Probe::Dropped };
                if directory.opener.open().await.is_ok() { Probe::Alive } else { Probe::Dead }
            })
        }
    }
}

impl Directory {
    async fn search(&self, search: &Search<'_>) -> Result<Vec<Entry>, Trouble> {
        let _permit = self.permits.acquire().await;
        if let Some(mut link) = self.take() {
            match link.search(search).await {
                // The server has closed it meanwhile, perhaps with all others since it was started again.
                Err(Trouble::Lost(_)) => self.forget(),
                answer => {
                    self.keep(link);
                    return answer;
                }
            }
        }
        let mut link = self.opener.open().await.map_err(Trouble::Lost)?;
        let answer = link.search(search).await;
        match answer {
            Err(Trouble::Lost(_)) => self.opener.avoid_last(),
            _ => self.keep(link),
        }
        answer
    }

    async fn open_one(&self) -> Result<(), Trouble> {
        let _permit = self.permits.acquire().await;
        let link = self.opener.open().await.map_err(Trouble::Lost)?;
        self.keep(link);
        Ok(())
    }

    fn take(&self) -> Option<Link> {
        let (link, since) = self.lock().pop()?;
        if since.elapsed() > MAX_IDLE {
            // The others have been unused for even longer.
            self.forget();
            return None;
        }
        Some(link)
    }

    fn keep(&self, link: Link) {
        if self.keepalive {
            self.lock().push((link, Instant::now()));
        }
    }

    fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Link, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn nobody_listening_is_down() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ldap = Ldap::new("ldap", settings(port)).unwrap();
        let soon = || Instant::now() + Duration::from_secs(5);
        let error = ldap.search("", "(uid=a)", &[], 1, soon()).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Down(_)), "{error}");
        // Nobody tries again for the next request.
        assert_eq!(ldap.ping(soon()).await.unwrap_err().to_string(), error.to_string());
    }

    #[tokio::test]
    async fn an_answer_that_is_built_wrongly_is_no_more_than_a_lost_connection() {
        // Answers to a bind: without a result; with a text that is not UTF-8; something that is not LDAP.
        for answer in [
            &[0x30, 5, 2, 1, 1, 0x61, 0][..],
            &[0x30, 13, 2, 1, 1, 0x61, 8, 10, 1, 0, 4, 1, 0xff, 4, 0],
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 64]).await;
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
            });
            let ldap = Ldap::new("ldap", settings(port)).unwrap();
            let error = ldap.ping(Instant::now() + Duration::from_secs(10)).await.unwrap_err();
            assert!(matches!(error.failure, Failure::Down(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn another_server_takes_the_place_of_one_that_is_down() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = |listener: &tokio::net::TcpListener| listener.local_addr().unwrap().to_string();
        let host = format!("127.0.0.1:{port} {}, {}", at(&silent), at(&answers));
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = answers.accept().await.unwrap();
                let _ = stream.read(&mut [0; 64]).await;
                // The bind has succeeded.
                let _ = stream.write_all(&[0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0]).await;
                open.push(stream);
            }
        });
        let timeout = Duration::from_secs(60);
        let ldap = Ldap::new("ldap", LdapSettings { host, timeout, ..settings(389) }).unwrap();
        let begun = Instant::now();
        // The breaker's try, before anybody knows which one does not answer.
        assert_eq!((ldap.probe())().await, Probe::Alive);
        ldap.directory.opener.avoid_last();
        ldap.directory.opener.avoid_last();
        ldap.ping(Instant::now() + timeout).await.unwrap();
        // It is tried first from now on.
        ldap.ping(Instant::now() + timeout).await.unwrap();
        assert!(begun.elapsed() < timeout / 3, "{:?}", begun.elapsed());
    }

    fn settings(port: u16) -> LdapSettings {
        LdapSettings {
            host: "127.0.0.1".to_owned(),
            port: Some(port),
            keepalive: true,
            timeout: Duration::from_secs(5),
            binddn: None,
            password: Secret::default(),
            starttls: false,
            tls_ca: None,
            deref: Deref::Find,
        }
    }
}
