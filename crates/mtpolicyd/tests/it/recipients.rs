//! What holds for one recipient of a message does not hold for the next, wherever sessions are kept.
//!
//! Knows: configurations, servers. Must not know: how a session is kept.

use crate::support::daemon::{Daemon, PROGRAM, Site, run};
use crate::support::servers::{memcached, postgres, redis};
use std::process::Command;

/// Settings and a score of the recipient, a score of the sender that a recipient may change, and a header.
const CHAIN: &str = "\
  <Plugin uc>
    module = SqlUserConfig
    db = users
  </Plugin>
  <Plugin to-sales>
    module = RegexList
    key = recipient
    regex = ^sales@
    score = 3
  </Plugin>
  <Plugin sender>
    module = RegexList
    key = sender
    regex = .
    score = 5
    uc_enabled = checks
  </Plugin>
  <Plugin client>
    module = RegexList
    key = client_address
    regex = .
    score = 1
  </Plugin>
  <Plugin show>
    module = ScoreAction
    threshold = -99
    action = \"is %SCORE%%SCORE_DETAIL%\"
  </Plugin>
";

const CLIENT: &str = "client_address=192.0.2.1\nsender=a@example.org";

/// What the recipients of a message are answered, in whichever order they are asked about.
const ANSWERS: [(&str, &str); 4] = [
    ("open@ours.test", "is 1, client=1"),
    ("sales@ours.test", "is 9, to-sales=3, sender=5, client=1"),
    ("bob@ours.test", "is 6, sender=5, client=1"),
    ("", "is 6, sender=5, client=1"),
];

fn daemon(connection: &str, cache: &str) -> Daemon {
    let site = Site::new();
    let database = rusqlite::Connection::open(site.path("users.sqlite")).expect("the folder is ours");
    let table = "CREATE TABLE user_config (address TEXT, config TEXT); \
                 INSERT INTO user_config VALUES ('open@ours.test', '{\"checks\": \"off\"}');";
    database.execute_batch(table).expect("the table is new");
    drop(database);
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\n{connection}\n\
         <Connection users>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname=$DIR/users.sqlite\"\n</Connection>\n\
         <SessionCache>\n{cache}\n</SessionCache>\n\
         <VirtualHost $PORT>\nname = incoming\n{CHAIN}</VirtualHost>\n"
    ));
    site.start()
}

fn nothing_follows(connection: &str, cache: &str) {
    let daemon = daemon(connection, cache);
    let mut client = daemon.connect();
    for first in 0..ANSWERS.len() {
        for step in [1, 3] {
            let instance = format!("{first}.{step}");
            // Each of them, and the first ones again.
            for n in 0..ANSWERS.len() + 2 {
                let (recipient, answer) = ANSWERS[(first + n * step) % ANSWERS.len()];
                let request = format!("{CLIENT}\ninstance={instance}\nrecipient={recipient}");
                let got = client.ask(&request);
                // The order in which it was added up depends on who was first.
                assert_eq!(sorted(&got.action()), sorted(answer), "{cache}: {instance} {recipient}");
            }
        }
    }
}

fn sorted(answer: &str) -> Vec<&str> {
    let mut parts: Vec<_> = answer.split(", ").collect();
    parts.sort_unstable();
    parts
}

#[test]
fn nothing_follows_without_a_cache() {
    nothing_follows("", "module = None");
}

#[test]
fn nothing_follows_in_memory() {
    nothing_follows("", "module = Memory");
}

#[test]
fn nothing_follows_in_memcached() {
    let server = memcached::start();
    let connection = format!(
        "<Connection memcached>\nmodule = Memcached\nservers = \"127.0.0.1:{}\"\n</Connection>",
        server.port
    );
    nothing_follows(&connection, "module = Memcached");
}

#[test]
fn nothing_follows_in_redis() {
    let server = redis::start();
    let connection =
        format!("<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:{}\"\n</Connection>", server.port);
    nothing_follows(&connection, "module = Redis");
}

#[test]
fn nothing_follows_in_a_table() {
    let server = postgres::start();
    let connection = format!(
        "<Connection db>\nmodule = Sql\ndsn = \"{}\"\nuser = {name}\npassword = {name}\n</Connection>",
        postgres::dsn(&server),
        name = postgres::NAME
    );
    nothing_follows(&connection, "module = Sql");
}

#[test]
fn a_lock_that_requests_may_outlive_is_warned_of() {
    let site = Site::new();
    let text = |lock_timeout: &str| {
        format!(
            "port = \"127.0.0.1:$PORT\"\nrequest_timeout = 20\n\
             <Connection memcached>\nmodule = Memcached\n</Connection>\n\
             <SessionCache>\nmodule = Memcached\n{lock_timeout}\n</SessionCache>\n\
             <VirtualHost $PORT>\nname = incoming\n\
             <Plugin ok>\nmodule = Action\naction = OK\n</Plugin>\n</VirtualHost>\n"
        )
    };
    for (lock_timeout, warned) in [("", false), ("lock_timeout = 21", false), ("lock_timeout = 20", true)] {
        site.configure(&text(lock_timeout));
        let checked = run(Command::new(PROGRAM).arg("check").arg(site.config()), b"");
        let said =
            String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{said}");
        let warning = "lock_timeout: 20 is not longer than a request may take, 20 s (request_timeout)";
        assert_eq!(said.contains(warning), warned, "{lock_timeout}: {said}");
    }
}
