//! Sessions that daemons share: the requests of one message see one another's results, wherever they are
//! asked.
//!
//! Knows: configurations, servers, the keys of the original. Must not know: how a session is kept.

use crate::support::client::Answer;
use crate::support::cutter::{Cut, cut};
use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use crate::support::servers::{Server, memcached, postgres, redis};
use std::sync::atomic::Ordering;
use std::thread;

/// A chain that shows the score, which each request of a message raises by one.
const CHAIN: &str = "\
  <Plugin c>
    module = Condition
    key = sender
    re_match = .
    score = 1
  </Plugin>
  <Plugin s>
    module = ScoreAction
    threshold = 0
    action = \"score %SCORE%\"
  </Plugin>
";

fn daemon(connection: &str, cache: &str) -> Daemon {
    let site = Site::new();
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\n{connection}\n<SessionCache>\n{cache}\n</SessionCache>\n\
         <VirtualHost $PORT>\nname = incoming\n{CHAIN}</VirtualHost>\n"
    ));
    site.start()
}

fn request(instance: &str) -> String {
    format!("instance={instance}\nsender=a@example.org")
}

/// Many requests of one message at once, at two daemons: each is counted, none twice.
fn no_result_is_lost(connection: &str, cache: &str) {
    const CLIENTS: usize = 8;
    const EACH: usize = 5;
    let cache = format!("{cache}\nlock_wait = 2\nlock_max_retry = 200");
    let daemons = [daemon(connection, &cache), daemon(connection, &cache)];
    let mut scores = thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|n| {
            let daemon = &daemons[n % 2];
            scope.spawn(move || {
                let mut client = daemon.connect();
                (0..EACH).map(|_| client.ask(&request("mail")).action().to_owned()).collect::<Vec<_>>()
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().flat_map(|client| client.join().expect("it got its answers")).collect::<Vec<_>>()
    });
    let mut expected: Vec<_> = (1..=CLIENTS * EACH).map(|n| format!("score {n}")).collect();
    scores.sort();
    expected.sort();
    assert_eq!(scores, expected, "{connection}");
    assert_eq!(daemons[1].connect().ask(&request("another")).action(), "score 1");
}

#[test]
fn daemons_share_sessions_in_memcached() {
    let server = memcached::start();
    let connection = format!(
        "<Connection memcached>\nmodule = Memcached\nservers = \"127.0.0.1:{}\"\n</Connection>",
        server.port
    );
    no_result_is_lost(&connection, "module = Memcached");
}

#[test]
fn daemons_share_sessions_in_redis() {
    let server = redis::start();
    let connection =
        format!("<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:{}\"\n</Connection>", server.port);
    no_result_is_lost(&connection, "module = Redis");
}

#[test]
fn daemons_share_sessions_in_a_cluster() {
    let nodes = redis::start_cluster();
    let connection = format!(
        "<Connection redis>\nmodule = Redis\ncluster = \"127.0.0.1:{}\"\n</Connection>",
        nodes[0].port
    );
    no_result_is_lost(&connection, "module = Redis");
}

#[test]
fn daemons_share_sessions_in_a_table() {
    let server = postgres::start();
    let connection = format!(
        "<Connection db>\nmodule = Sql\ndsn = \"{}\"\nuser = {name}\npassword = {name}\n</Connection>",
        postgres::dsn(&server),
        name = postgres::NAME
    );
    no_result_is_lost(&connection, "module = Sql");
}

#[test]
fn a_lock_of_somebody_else_closes_the_connection_and_stays() {
    let server = redis::start();
    let connection =
        format!("<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:{}\"\n</Connection>", server.port);
    let daemon = daemon(&connection, "module = Redis\nlock_wait = 5\nlock_max_retry = 3");
    redis::command(server.port, &["SET", "lock_mail", "somebody"]);
    assert_eq!(daemon.connect().ask(&request("mail")), Answer::Closed);
    assert_eq!(daemon.connect().ask(&request("other")).action(), "score 1");
    assert_eq!(redis::command(server.port, &["GET", "lock_mail"]), "$8\r\nsomebody\r\n");
    redis::command(server.port, &["DEL", "lock_mail"]);
    assert_eq!(daemon.connect().ask(&request("mail")).action(), "score 1");
}

#[test]
fn without_its_store_the_block_decides() {
    let nowhere = "<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:1\"\n</Connection>";
    // What this daemon knows of the message stands in for the session.
    let in_memory = [Some("score 1"), Some("score 2")];
    for (on_error, expected) in [
        ("continue", in_memory),
        ("dunno", [Some("dunno"); 2]),
        ("defer", [Some("defer"); 2]),
        ("close", [None; 2]),
    ] {
        let daemon = daemon(nowhere, &format!("module = Redis\non_error = {on_error}"));
        for expected in expected {
            let got = daemon.connect().ask(&request("mail"));
            match expected {
                Some(begin) => assert!(got.clone().action().starts_with(begin), "{on_error}: {got:?}"),
                None => assert_eq!(got, Answer::Closed, "{on_error}"),
            }
        }
    }
}

/// A daemon with its sessions in PostgreSQL, reached at this port.
fn daemon_at_postgres(server: &Server, port: u16) -> Daemon {
    let dsn = postgres::dsn(server).replace(&server.port.to_string(), &port.to_string());
    let name = postgres::NAME;
    let connection = format!(
        "request_timeout = 100\n<Connection db>\nmodule = Sql\ndsn = \"{dsn}\"\nuser = {name}\n\
         password = {name}\ntimeout = 60\n</Connection>"
    );
    daemon(&connection, "module = Sql")
}

#[test]
fn a_crash_of_postgresql_loses_no_session_that_was_saved() {
    // What is acknowledged before it is written is not written for a long time.
    let mut server = postgres::start_with(&["wal_writer_delay=10s"]);
    let mut first = daemon_at_postgres(&server, server.port);
    assert_eq!(first.connect().ask(&request("mail")).action(), "score 1");
    assert!(first.terminate().success(), "it saves its sessions");
    server.restart();
    let second = daemon_at_postgres(&server, server.port);
    assert_eq!(second.connect().ask(&request("mail")).action(), "score 2");
}

#[test]
fn a_session_is_saved_once_more_where_nobody_knows_whether_it_was() {
    let server = postgres::start();
    let direct = daemon_at_postgres(&server, server.port);
    // `AS held` is what the statement that saves has and no other.
    for (message, when) in [("lost", Cut::Before), ("done", Cut::AfterReply(b'C'))] {
        let (port, cuts) = cut(server.port, "AS held", when);
        let daemon = daemon_at_postgres(&server, port);
        assert_eq!(daemon.connect().ask(&request(message)).action(), "score 1");
        // A request of this daemon begins when the one before has been saved.
        assert_eq!(daemon.connect().ask(&request(message)).action(), "score 2");
        let cuts = cuts.load(Ordering::Relaxed);
        assert!(cuts > 1, "{message}: {cuts}\n{}", daemon.log());
        assert_eq!(direct.connect().ask(&request(message)).action(), "score 3");
        let log = daemon.log();
        assert!(!log.contains("discarded") && !log.contains("not saved"), "{message}:\n{log}");
    }
}

/// A daemon whose Redis may die without anybody waiting for another one.
fn daemon_at(server: &Server) -> Daemon {
    let connection = format!(
        "<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:{}\"\nfailover_wait = 0\n</Connection>",
        server.port
    );
    daemon(&connection, "module = Redis")
}

#[test]
fn a_message_keeps_its_session_while_the_store_is_away_and_afterwards() {
    let mut server = redis::start();
    let daemon = daemon_at(&server);
    let score = |daemon: &Daemon| daemon.connect().ask(&request("mail")).action();
    assert_eq!(score(&daemon), "score 1");
    server.stop();
    assert_eq!(score(&daemon), "score 2", "it is known here");
    daemon.hang_up();
    assert_eq!(score(&daemon), "score 3");
    // It comes back with nothing, since it keeps nothing on a disk.
    server.start();
    eventually("the daemon notices", || daemon.log().contains("is back").then_some(()));
    assert_eq!(score(&daemon), "score 4", "what the store does not know is handed in");
    let other = daemon_at(&server);
    assert_eq!(score(&other), "score 5");
}

#[test]
fn a_request_is_closed_as_long_as_its_part_of_a_cluster_may_come_back() {
    let nodes = redis::start_cluster();
    let connection = format!(
        "request_timeout = 3\n<Connection redis>\nmodule = Redis\ncluster = \"127.0.0.1:{}\"\n\
         failover_wait = 60\n</Connection>",
        nodes[0].port
    );
    let daemon = daemon(&connection, "module = Redis");
    let ask = || daemon.connect().ask(&request("mail"));
    let score = |answer: Answer| answer.action();
    assert_eq!(score(ask()), "score 1");
    let slot = redis::command(nodes[0].port, &["CLUSTER", "KEYSLOT", "mail"]);
    let slot: usize = slot.trim_start_matches(':').trim().parse().expect("a number");
    let owner = &nodes[slot * nodes.len() / 16_384];
    owner.freeze();
    // Another daemon would not know what is found here, and find it once more.
    assert_eq!(ask(), Answer::Closed);
    assert_eq!(ask(), Answer::Closed);
    owner.thaw();
    let answer = eventually("the cluster is whole", || {
        let answer = ask();
        (answer != Answer::Closed).then_some(answer)
    });
    assert_eq!(score(answer), "score 2");
}

#[test]
fn the_lock_of_a_daemon_that_died_is_soon_nobodys() {
    let server = redis::start();
    let daemon = daemon_at(&server);
    assert_eq!(daemon.connect().ask(&request("mail")).action(), "score 1");
    // What a daemon leaves behind that is killed while it has the session: `lock_timeout` is 30 s here.
    eventually("the session is saved", || {
        redis::command(server.port, &["EXISTS", "mail"]).starts_with(":1").then_some(())
    });
    redis::command(server.port, &["SET", "lock_mail", "somebody", "PX", "1000"]);
    assert_eq!(daemon.connect().ask(&request("mail")).action(), "score 2");
    // A daemon that is stopped with the session in its hands: its own lock is as short.
    let slow = slow_daemon(&server);
    let mut client = slow.connect();
    client.send(&request("slow"));
    let lock = || redis::command(server.port, &["PTTL", "lock_slow"]);
    let left = eventually("it has the session", || {
        lock().trim_start_matches(':').trim().parse::<i64>().ok().filter(|left| *left > 0)
    });
    assert!(left <= 2000, "{left} ms");
    slow.signal("KILL");
    assert_eq!(daemon.connect().ask(&request("slow")).action(), "score 1");
}

/// A daemon that keeps a session for as long as the test needs: its chain waits for a server that does not
/// answer.
fn slow_daemon(server: &Server) -> Daemon {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("there is a port");
    let port = silent.local_addr().expect("it has one").port();
    let site = Site::new();
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\n<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:{}\"\n\
         </Connection>\n<SessionCache>\nmodule = Redis\n</SessionCache>\n<VirtualHost $PORT>\n\
         name = incoming\n<Plugin p>\nmodule = Proxy\nhost = \"127.0.0.1:{port}\"\ntimeout = 60\n</Plugin>\n\
         </VirtualHost>\n",
        server.port
    ));
    // It is open as long as the tests run.
    std::mem::forget(silent);
    site.start()
}

#[test]
fn a_lock_is_renewed_as_long_as_its_request_goes_on() {
    let server = redis::start();
    let slow = slow_daemon(&server);
    let mut client = slow.connect();
    client.send(&request("slow"));
    eventually("the lock was renewed twice", || (redis::calls(server.port, "pexpire") >= 2).then_some(()));
    assert!(redis::command(server.port, &["GET", "lock_slow"]).contains('-'), "it still has an owner");
}
