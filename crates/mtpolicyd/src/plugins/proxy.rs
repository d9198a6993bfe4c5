//! `Proxy`: asks another policy daemon.

use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::session::RECIPIENT;
use crate::value::{Flag, Seconds, Span};
use backends::{Breaker, Failure, call_deadline};
use postfix_policy::Request;
use postfix_policy::client::{ClientError, Connection, Endpoint};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

options! {
    /// Passes the request to another policy daemon and answers with its action.
    ///
    /// The first `action=` of its answer counts, as it does for Postfix. If the daemon is unreachable,
    /// answers too late or without an action, the plugin fails and `on_error` decides. If it has just
    /// answered others, but hangs up on this request or answers nonsense, that is taken for something in the
    /// request: the message is deferred unless another plugin refuses it (`on_bad_request`). After ten such
    /// requests in a row it is the other daemon that fails.
    ///
    /// After a daemon has not answered, requests fail at once, without asking it. Every five seconds one
    /// request is sent to it, to find out whether it answers again.
    ///
    /// ```conf
    /// <Plugin ask-postgrey>
    ///   module = "Proxy"
    ///   host = "127.0.0.1:10023"
    ///   keepalive = 1
    ///   timeout = 5
    ///   on_error = "continue"
    /// </Plugin>
    /// ```
    pub struct ProxyOptions {
        /// The TCP address of the other daemon, with its port.
        host: Option<HostPort>,
        /// The path of its UNIX socket.
        socket_path: Option<String>,
        /// Whether to keep connections open between requests (`1`) or open one for each (`0`).
        keepalive: Flag = Flag(false),
        /// Maximum time for the other daemon to answer, including the connection. The deadline of the
        /// request applies in any case.
        timeout: Span = Span(Seconds(10)),
    }
}

/// `host:port` of a TCP service.
#[derive(Clone, Debug)]
pub struct HostPort(String);

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl crate::value::Value for HostPort {
    const FORM: &'static str = "`HOST:PORT`";
    fn parse(text: &str) -> Result<Self, String> {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
        port.map(|_| HostPort(text.to_owned())).ok_or_else(|| format!("`{text}` has no port"))
    }
}

/// Connections kept open at most; each is idle, so this bounds descriptors, not concurrency.
const MAX_IDLE: usize = 32;

/// Silence for this long says something about the other daemon, where a request has no time for its whole
/// `timeout`.
const SILENCE: Duration = Duration::from_secs(5);

/// Maximum number of requests in a row to blame for an invalid answer. A sender who knows what the other
/// daemon stumbles over must not get past it; one that stumbles over everything must not stop all messages.
const MAX_BLAMED: u32 = 10;

/// See the options.
pub struct Proxy {
    options: ProxyOptions,
    peer: Arc<Peer>,
}

/// The other daemon. A reload forgets nothing of it.
struct Peer {
    endpoint: Endpoint,
    breaker: Arc<Breaker>,
    idle: Mutex<Vec<Connection>>,
    /// Requests since the last answer that had none; at its bound until there is a first answer.
    blamed: AtomicU32,
}

impl Plugin for Proxy {
    const NAME: &'static str = "Proxy";
    type Options = ProxyOptions;

    fn new(options: ProxyOptions, setup: &mut Setup<'_, '_>) -> Option<Proxy> {
        let endpoint = match (&options.host, &options.socket_path) {
            (Some(host), None) => Endpoint::Tcp(host.to_string()),
            (host, Some(path)) => {
                if host.is_some() {
                    setup.warn("host", "host: has no effect beside `socket_path`".to_owned());
                }
                Endpoint::Unix(PathBuf::from(path))
            }
            (None, None) => {
                let help = "write `host = \"127.0.0.1:10023\"` or `socket_path = \"/path\"`".to_owned();
                setup
                    .section
                    .refuse(format!("Plugin {} needs a host or a socket_path", setup.name), Some(help));
                return None;
            }
        };
        let peer = setup.carried_over(endpoint, |endpoint| Arc::new(Peer::new(endpoint.clone())));
        Some(Proxy { options, peer })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        // The other daemon sees all of the request.
        cx.session.depend_on(RECIPIENT);
        let peer = &self.peer;
        peer.breaker.admit()?;
        let begun = Instant::now();
        let limit = self.options.timeout.0.duration();
        let asked = peer.ask(cx.request, self.options.keepalive.0);
        match timeout_at(call_deadline(cx.deadline.backends, limit), asked).await {
            Ok(Ok(action)) => {
                peer.breaker.answered();
                peer.blamed.store(0, Ordering::Relaxed);
                Ok(Verdict::Stop(action))
            }
            // The system has waited for it without success.
            Ok(Err(ClientError::Io(error)))
                if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::TimedOut) =>
            {
                Err(peer.breaker.silent(begun, &error.to_string()).into())
            }
            Ok(Err(error)) if error.is_about_the_answer() && peer.may_blame() => {
                Err(peer.breaker.error(Failure::BadValue(error.to_string())).into())
            }
            Ok(Err(error)) => Err(peer.failed(error.to_string())),
            Err(_) if begun.elapsed() >= limit.min(SILENCE) => {
                Err(peer.breaker.silent(begun, "no answer in time").into())
            }
            // The rest of the request's time was short, which is not its fault.
            Err(_) => Err(peer.failed("no answer in time".to_owned())),
        }
    }
}

impl Peer {
    fn new(endpoint: Endpoint) -> Peer {
        let breaker = Breaker::new(&endpoint.to_string());
        Peer { endpoint, breaker, idle: Mutex::default(), blamed: AtomicU32::new(MAX_BLAMED) }
    }

    /// Whether the request is to blame, since the other daemon has answered others.
    fn may_blame(&self) -> bool {
        let more = |blamed: u32| (blamed < MAX_BLAMED).then_some(blamed + 1);
        self.blamed.try_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn failed(&self, cause: String) -> Error {
        Error::service(self.endpoint.to_string(), cause)
    }

    /// The action of the other daemon. A connection that failed, or was given up in the middle, is dropped.
    async fn ask(&self, request: &Request, keep: bool) -> Result<String, ClientError> {
        if keep && let Some(kept) = self.take_idle() {
            match self.exchange(kept, request, keep).await {
                // It was closed meanwhile, which says nothing about a new one.
                Err(error) if error.is_hang_up() => {}
                answered => return answered,
            }
        }
        let connection = Connection::open(&self.endpoint).await?;
        self.exchange(connection, request, keep).await
    }

    /// One question and its answer, and the connection among the idle ones if it is to be kept.
    async fn exchange(
        &self,
        mut connection: Connection,
        request: &Request,
        keep: bool,
    ) -> Result<String, ClientError> {
        let answer = connection.ask(request).await?;
        let action = answer.action().ok_or(ClientError::NoAction)?;
        let action = String::from_utf8_lossy(action).into_owned();
        if keep {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MAX_IDLE {
                idle.push(connection);
            }
        }
        Ok(action)
    }

    /// A kept connection that is still good, as far as one can tell without asking.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut kept = idle.pop()?;
            if kept.is_usable() {
                return Some(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MAX_BLAMED;
    use crate::testing::Bench;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// A daemon that answers each connection with these replies and then closes it, and counts connections.
    fn upstream(replies: &'static [&'static str]) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::Relaxed);
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                for reply in replies {
                    if !lines.any(|line| line.is_empty()) || (&stream).write_all(reply.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        (address, connections)
    }

    fn bench(host: &str, extra: &str) -> Bench {
        let text = format!("<Plugin p>\n module = Proxy\n host = \"{host}\"\n {extra}\n</Plugin>");
        Bench::new(&text).attribute("sender", "a@example.org")
    }

    #[test]
    fn the_first_action_of_the_answer_counts() {
        let (host, _) = upstream(&["action=defer x\naction=ok\nother=1\n\n"]);
        assert_eq!(bench(&host, "").run().as_deref(), Some("defer x"));
    }

    #[test]
    fn kept_connections_are_used_again_and_replaced_when_closed() {
        let (host, connections) = upstream(&["action=one\n\n", "action=two\n\n"]);
        let mut bench = bench(&host, "keepalive = 1");
        let answers: Vec<_> = (0..3).map(|_| bench.run().unwrap()).collect();
        assert_eq!(answers, ["one", "two", "one"]);
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_useless_answer_fails_the_plugin() {
        let (host, _) = upstream(&["foo=bar\n\n"]);
        assert!(bench(&host, "").try_run().is_err());
        assert_eq!(bench(&host, "on_error = continue").run(), None);
    }

    #[test]
    fn a_request_that_the_daemon_stumbles_over_does_not_pass() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        // Hangs up on a sender, and answers all others.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                if lines.iter().all(|line| line != "sender=evil@example.org") {
                    (&stream).write_all(b"action=dunno\n\n").unwrap();
                }
            }
        });
        let (evil, good) = ("evil@example.org", "a@example.org");
        let mut bench = bench(&host, "").attribute("sender", evil);
        assert!(bench.try_run().is_err(), "nothing is known of the daemon yet");
        assert_eq!(bench.attribute_again("sender", good).run().as_deref(), Some("dunno"));
        bench.attribute_again("sender", evil);
        for _ in 0..MAX_BLAMED {
            let answer = bench.try_run().unwrap().unwrap();
            assert!(answer.starts_with("defer"), "{answer}");
        }
        assert!(bench.try_run().is_err(), "it stumbles over everything");
        assert_eq!(bench.attribute_again("sender", good).run().as_deref(), Some("dunno"));
        assert!(bench.attribute_again("sender", evil).try_run().is_ok());
    }

    #[test]
    fn a_silent_daemon_fails_the_plugin_in_time() {
        let (host, _) = upstream(&[]);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let failure = bench(&address, "timeout = 1").try_run().unwrap_err();
        assert!(failure.ends_with("no answer in time"), "{failure}");
        assert!(bench(&host, "").try_run().is_err());
    }

    #[test]
    fn a_silent_daemon_costs_one_request_its_time_until_it_answers_again() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let mut bench = bench(&address.to_string(), "timeout = 1");
        let begun = Instant::now();
        assert!(bench.try_run().unwrap_err().ends_with("no answer in time"));
        assert!(begun.elapsed() >= Duration::from_millis(900));
        let failure = bench.try_run().unwrap_err();
        assert!(failure.contains("down: no answer in time"), "{failure}");
        // What it did not accept is closed with it.
        drop(silent);
        let awake = TcpListener::bind(address).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = awake.accept().unwrap();
            stream.write_all(b"action=ok\n\n").unwrap();
            stream
        });
        let until = Instant::now() + Duration::from_secs(60);
        while bench.try_run().as_ref().map(Option::as_deref) != Ok(Some("ok")) {
            assert!(Instant::now() < until, "nobody is let through");
            std::thread::sleep(Duration::from_millis(50));
        }
        answering.join().unwrap();
    }

    #[test]
    fn one_address_is_needed() {
        let mistakes = Bench::mistakes("<Plugin p>\n module = Proxy\n</Plugin>");
        assert_eq!(mistakes, ["1:1 Plugin p needs a host or a socket_path"]);
        for host in ["nowhere", "nowhere:0", ":10023"] {
            let mistakes =
                Bench::mistakes(&format!("<Plugin p>\n module = Proxy\n host = {host}\n</Plugin>"));
            assert_eq!(mistakes, [format!("3:9 host: `{host}` has no port")]);
        }
    }
}
