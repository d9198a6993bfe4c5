//! What is counted: nothing that a client sends makes a series, nothing falls at a reload, and what calls to
//! servers and limits come to.
//!
//! Knows: the names of the numbers, requests. Must not know: the daemon's code.

use crate::metrics::{HOST, METRICS, ask, series, value};
use crate::support::daemon::{Daemon, PROGRAM, output_of, run};
use crate::support::eventually;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The variable that says how many random requests are sent in place of [`USUAL_REQUESTS`].
const REQUESTS: &str = "MTPOLICYD_RANDOM_REQUESTS";
const USUAL_REQUESTS: u64 = 20_000;
/// The clients that send them.
const CLIENTS: u64 = 4;

/// Two hosts with as much as anybody has.
fn large_configuration() -> String {
    let mut text = format!("{METRICS}<Dns>\nservers = \"127.0.0.1:1\"\n</Dns>\nport = \"127.0.0.1:$PORT\"\n");
    text += "vhost_by_policy_context = 1\n";
    for n in 0..5 {
        let _ = write!(text, "<Connection store{n}>\nmodule = Memory\n</Connection>\n");
    }
    for host in ["inbound", "outbound"] {
        let _ = write!(text, "<VirtualHost $PORT>\nname = {host}\n");
        for n in 0..10 {
            let _ =
                write!(text, "<Plugin bl{n}>\nmodule = RBL\ndomain = bl{n}.test\nenabled = off\n</Plugin>\n");
        }
        for n in 0..20 {
            let _ = write!(text, "<Plugin set{n}>\nmodule = SetField\nkey = k{n}\nvalue = 1\n</Plugin>\n");
        }
        text += "</VirtualHost>\n";
    }
    text
}

/// Numbers that look like chance and are the same each time (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A request of which nothing is as in another one.
    fn request(&mut self) -> String {
        let context =
            ["inbound", "outbound", "nowhere"][usize::try_from(self.next() % 3).expect("it is small")];
        let mut request = format!("policy_context={context}\n");
        for name in ["client_address", "client_name", "helo_name", "sender", "recipient", "sasl_username"] {
            let _ = writeln!(request, "{name}={:x}\"}},\\{:x}", self.next(), self.next());
        }
        let _ = write!(request, "protocol_state=S{:x}\ninstance={:x}", self.next(), self.next());
        request
    }
}

#[test]
fn no_client_makes_a_series() {
    let daemon = Daemon::start(&large_configuration());
    let names = || series(&ask(&daemon.site, "/metrics", "").2);
    let before = names();
    assert!(before.len() < 2_000, "{}", before.len());
    let given = std::env::var(REQUESTS).ok();
    let count = given.map_or(USUAL_REQUESTS, |text| text.parse().expect("a number"));
    thread::scope(|scope| {
        for client in 1..=CLIENTS {
            let mut connection = daemon.connect();
            scope.spawn(move || {
                let mut random = Random(0x2545_F491_4F6C_DD1D * client);
                for _ in 0..count / CLIENTS {
                    connection.ask(&random.request()).action();
                }
            });
        }
    });
    assert_eq!(names(), before);
    let page = ask(&daemon.site, "/metrics", "").2;
    let answered = |host: &str| -> u64 {
        value(&page, &format!("mtpolicyd_request_seconds_count{{host=\"{host}\"}}"))
            .parse()
            .expect("it is a number")
    };
    assert!(answered("inbound") > count / 4 && answered("outbound") > count / 4, "{page}");
}

/// What only grows, with its values.
fn counters(page: &str) -> BTreeMap<&str, f64> {
    let samples = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let grows = |name: &str| {
        let name = name.split('{').next().unwrap_or_default();
        ["_total", "_count", "_sum", "_bucket"].iter().any(|ending| name.ends_with(ending))
    };
    samples
        .filter(|(name, _)| grows(name))
        .map(|(name, value)| (name, value.parse().expect("it is a number")))
        .collect()
}

/// A chain that asks a database in a file, a store that is not there, and two limits.
fn with_backends(timeout: u32) -> String {
    let backends = format!(
        "on_error = continue\n<Journal>\nfile = \"$DIR/journal.sqlite\"\n</Journal>\n\
         <Connection db>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname=$DIR/db.sqlite\"\ntimeout = {timeout}\n\
         </Connection>\n<Connection store>\nmodule = Redis\nserver = \"127.0.0.1:1\"\ntimeout = {timeout}\n\
         failover_wait = 0\n</Connection>\n"
    );
    let plugins = "<Plugin list>\nmodule = SqlList\nsql_query = \"SELECT 1 WHERE ? = ''\"\n</Plugin>\n\
                   <Plugin pot>\nmodule = Honeypot\nstore = store\nrecipients = trap@x.test\n</Plugin>\n\
                   <Plugin rate>\nmodule = RateLimit\nstore = memory\nkey = client_address\nlimit = 1/1h\n\
                   mode = passive\n</Plugin>\n</VirtualHost>\n";
    format!("{METRICS}{backends}{}", HOST.replace("</VirtualHost>\n", plugins))
}

/// Ends the clients also when the test fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_counter_falls_while_the_configuration_is_read_again() {
    let daemon = Daemon::start(&with_backends(3));
    let page = || ask(&daemon.site, "/metrics", "").2;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetAtEnd(&is_over);
        for client in 0..2 {
            let (mut connection, is_over) = (daemon.connect(), &is_over);
            scope.spawn(move || {
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let last = if number % 3 == 0 { 66 } else { client };
                    connection.ask(&format!("client_address=192.0.2.{last}")).action();
                }
            });
        }
        let mut known = page();
        for round in 0..4 {
            // Every second time the connections are others than before.
            daemon.reload(&with_backends(3 + round / 2));
            for _ in 0..3 {
                let now = page();
                let after = counters(&now);
                for (name, before) in counters(&known) {
                    let after = after.get(name).copied();
                    assert!(after.is_some_and(|after| after >= before), "{name}: {before}, then {after:?}");
                }
                known = now;
            }
        }
    });
    assert_eq!(value(&page(), "mtpolicyd_reloads_total{result=\"reloaded\"}"), "4");
}

#[test]
fn calls_to_servers_and_hits_of_limits_are_counted() {
    let daemon = Daemon::start(&with_backends(3));
    for instance in 0..3 {
        daemon.ask(&format!("client_address=192.0.2.1\ninstance={instance}"));
    }
    let page = || ask(&daemon.site, "/metrics", "").2;
    let number = |page: &str, series: &str| -> f64 { value(page, series).parse().expect("it is a number") };
    let known = page();
    let of = |name: &str, connection: &str| {
        number(&known, &format!("mtpolicyd_backend_{name}{{connection=\"{connection}\"}}"))
    };
    assert!(of("seconds_count", "db") >= 3.0 && of("seconds_sum", "db") > 0.0, "{known}");
    let errors = |connection: &str, kind: &str| {
        let series = format!("mtpolicyd_backend_errors_total{{connection=\"{connection}\",kind=\"{kind}\"}}");
        number(&known, &series)
    };
    assert!(errors("store", "down") >= 3.0 && errors("db", "down") < 1.0, "{known}");
    let hits = "mtpolicyd_limit_hits_total{host=\"inbound\",plugin=\"rate\"}";
    assert_eq!(value(&known, hits), "2");
    assert!(!known.contains("mtpolicyd_limit_hits_total{host=\"inbound\",plugin=\"list\"}"));
    // An explanation counts nothing.
    let explain = |request: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["explain", request, "-c"]).arg(daemon.site.config());
        let output = run(&mut command, b"");
        assert!(output.status.success(), "{}", output_of(&output));
        output_of(&output)
    };
    let said = explain("client_address=192.0.2.1");
    assert!(said.contains("rate"), "{said}");
    assert_eq!(value(&page(), hits), "2");
    eventually("the journal has a decision, which grows older", || {
        let page = page();
        (number(&page, "mtpolicyd_journal_oldest_seconds") > 0.0
            && number(&page, "mtpolicyd_journal_decisions") >= 3.0)
            .then_some(())
    });
}
