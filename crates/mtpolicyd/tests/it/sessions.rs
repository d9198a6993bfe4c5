//! Sessions that daemons share: the requests of one message see one another's results, wherever they are
//! asked.
//!
//! Knows: configurations, servers, the keys of the original. Must not know: how a session is kept.

use crate::support::client::Answer;
use crate::support::daemon::{Daemon, Site};
use crate::support::servers::{memcached, postgres, redis};
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
    for (on_error, expected) in
        [("continue", Some("score 1")), ("dunno", Some("dunno")), ("defer", Some("defer")), ("close", None)]
    {
        let daemon = daemon(nowhere, &format!("module = Redis\non_error = {on_error}"));
        for _ in 0..2 {
            let got = daemon.connect().ask(&request("mail"));
            match expected {
                Some(begin) => assert!(got.clone().action().starts_with(begin), "{on_error}: {got:?}"),
                None => assert_eq!(got, Answer::Closed, "{on_error}"),
            }
        }
    }
}
