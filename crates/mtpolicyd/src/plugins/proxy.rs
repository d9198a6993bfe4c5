//! `Proxy`: asks another policy daemon.

use crate::options::options;
use crate::plugin::{Cx, Error, Passes, Plugin, Setup, Verdict};
use crate::session::RECIPIENT;
use crate::value::{Flag, NonZeroSeconds, Seconds};
use backends::policy::PolicyServer;
use backends::{BackendError, Endpoint, Failure};
use std::path::PathBuf;
use std::sync::Arc;

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
        host: Option<Endpoint>,
        /// The path of its UNIX socket.
        socket_path: Option<String>,
        /// Whether to keep connections open between requests (`1`) or open one for each (`0`).
        keepalive: Flag = Flag(false),
        /// Maximum time for the other daemon to answer, including the connection. The deadline of the
        /// request applies in any case.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(10)),
    }
    rules {
        AnyOf(host, socket_path),
        Overrides(socket_path, host),
    }
}

pub struct Proxy {
    options: ProxyOptions,
    /// The other daemon. A reload forgets nothing of it.
    server: Arc<PolicyServer>,
}

impl Plugin for Proxy {
    const NAME: &'static str = "Proxy";
    type Options = ProxyOptions;

    fn new(options: ProxyOptions, setup: &mut Setup<'_, '_>) -> Option<Proxy> {
        let endpoint = match (&options.host, &options.socket_path) {
            (Some(host), None) => host.clone(),
            (_, Some(path)) => Endpoint::Unix(PathBuf::from(path)),
            // The rules of the options exclude it.
            (None, None) => return None,
        };
        let server = setup.carried_over((endpoint, options.keepalive.0), |(endpoint, keepalive)| {
            Arc::new(PolicyServer::new(endpoint.clone(), *keepalive))
        });
        Some(Proxy { options, server })
    }

    fn passes(&self) -> Passes {
        Passes::IfItFails
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        // The other daemon sees all of the request.
        cx.session.depend_on(RECIPIENT);
        let limit = self.options.timeout.0.duration();
        match self.server.action(cx.request, limit, cx.call).await {
            Ok(action) => Ok(Verdict::Stop(action)),
            Err(BackendError { connection, failure: Failure::Refused(cause) }) => {
                Err(Error::service(&*connection, cause))
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use backends::policy::MAX_BLAMED;
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
        assert!(bench.try_run().unwrap_err().ends_with("no answer in time"));
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
        assert_eq!(mistakes, ["1:1 Plugin p needs `host` or `socket_path`"]);
        for host in ["nowhere", "nowhere:0", ":10023"] {
            let mistakes =
                Bench::mistakes(&format!("<Plugin p>\n module = Proxy\n host = {host}\n</Plugin>"));
            let [mistake] = mistakes.as_slice() else { panic!("{mistakes:?}") };
            assert!(mistake.starts_with(&format!("3:9 host: `{host}` has no ")), "{mistake}");
            assert!(mistake.contains("write HOST:PORT"), "{mistake}");
        }
    }
}
