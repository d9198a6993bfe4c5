//! The client of a directory: connections that are kept, behind a breaker.
//!
//! Knows: deadlines, the breaker. Must not know: how an answer is read.

pub use super::server::ignored_path;

use super::connection::{Opener, Search};
use super::{Deref, Entry, LdapSettings, noted};
use crate::{
    BackendError, Breaker, Call, CallError, CallNumbers, Failure, Guarded, OptionError, Pool, PoolLimits,
};
use lookups::LookupKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Maximum number of searches at the same time; others wait. slapd has 16 threads by default for all clients.
const MAX_CONNECTIONS: usize = 10;

/// How long a connection may have been unused: servers and firewalls close idle ones, the latter
/// without a word.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// Whether a text is a filter.
pub fn is_filter(text: &str) -> bool {
    ldap3::parse_filter(text).is_ok()
}

/// A directory of the configuration.
pub struct Ldap {
    deref: Deref,
    numbers: Arc<CallNumbers>,
    directory: Guarded<Pool<Opener>>,
}

impl Ldap {
    /// A directory; nothing is opened yet.
    ///
    /// # Errors
    /// What is wrong with which option.
    pub fn new(name: &str, settings: LdapSettings) -> Result<Ldap, OptionError> {
        let limits = PoolLimits {
            calls: MAX_CONNECTIONS,
            idle: if settings.keepalive { MAX_CONNECTIONS } else { 0 },
            idle_time: MAX_IDLE,
        };
        let pool = Pool::new(Opener::new(&settings)?, limits);
        let directory = Guarded::new(Breaker::new(name), settings.timeout, pool);
        Ok(Ldap { deref: settings.deref, numbers: CallNumbers::of(name), directory })
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        self.directory.connection()
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
        call: Call<'_>,
    ) -> Result<Vec<Entry>, BackendError> {
        let question = || format!("{filter} below `{base}` for {}", attributes.join(", "));
        if let Some(replay) = call.replay() {
            return noted::replayed(replay, self.name(), &question());
        }
        let search = Search {
            base: base.to_owned(),
            filter: filter.to_owned(),
            attributes: attributes.to_vec(),
            limit,
            deref: self.deref,
        };
        let asked = async {
            match self.directory.ask(&search).await {
                Ok(answer) => answer.map_err(|why| CallError::Failed(Failure::Refused(why))),
                Err(cause) => {
                    self.directory.client().avoid_last();
                    Err(CallError::Down(cause))
                }
            }
        };
        let (begun, start) = (call.begin(), Instant::now());
        let found = self.directory.call(asked, call).await;
        self.numbers.note(start, &found);
        begun.note_texts(LookupKind::Ldap, self.name(), question, &found, |found| noted::entries(found));
        found
    }

    /// Whether the directory answers. For the log at the start.
    pub async fn ping(&self, call: Call<'_>) -> Result<(), BackendError> {
        let opened = async { self.directory.open().await.map_err(CallError::Down) };
        self.directory.call(opened, call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Secret, Server};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn nobody_listening_is_down() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ldap = Ldap::new("ldap", settings(port)).unwrap();
        let soon = || Call::within(Duration::from_secs(5));
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
            let error = ldap.ping(Call::within(Duration::from_secs(10))).await.unwrap_err();
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
        // The breaker's try, before anybody knows which one does not answer.
        assert!(ldap.directory.answers().await);
        ldap.directory.client().avoid_last();
        ldap.directory.client().avoid_last();
        ldap.ping(Call::within(timeout)).await.unwrap();
        // It is tried first from now on, and a call that waited for the silent one would not end in time.
        ldap.ping(Call::within(timeout)).await.unwrap();
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
