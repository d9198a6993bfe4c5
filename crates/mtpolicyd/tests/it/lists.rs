//! DNS lists through the daemon, with a name server on the wire: lists that do not answer.
//!
//! Knows: answers to Postfix, questions to the name server. Must not know: how an answer is judged.

use crate::fake_dns::{FakeDns, Query, Reply};
use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const A: u16 = 1;

/// A daemon that asks two lists: `dead.test`, which says nothing until it is revived, and `alive.test`. Both
/// list 192.0.2.4. `time_limit` is that of the first, in seconds: what a busy machine may take to answer once
/// the list is revived.
fn start(globals: &str, time_limit: u32) -> (FakeDns, Daemon, Arc<AtomicBool>) {
    let is_alive = Arc::new(AtomicBool::new(false));
    let says = is_alive.clone();
    let server = FakeDns::start(move |query: &Query| match (&*query.name, query.record_type) {
        (name, _) if name.ends_with("dead.test") && !says.load(Ordering::SeqCst) => Reply::Silence,
        ("4.2.0.192.dead.test" | "4.2.0.192.alive.test", A) => Reply::address([127, 0, 0, 2]),
        ("v.test", 16) => Reply::text("v=spf1 include:silent.test -all"),
        ("silent.test", _) => Reply::Silence,
        _ => Reply::NoSuchName(Some(60)),
    });
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nlog_level = 4\n{globals}\n<Dns>\nservers = \"$DNS\"\n</Dns>\n\
         <VirtualHost $PORT>\nname = incoming\n\
         <Plugin spf>\nmodule = SPF\ntemperror_mode = passive\n</Plugin>\n\
         <Plugin dead>\nmodule = RBL\ndomain = dead.test\ntime_limit = {time_limit}\n\
         test = off\nreject_message = dead\n</Plugin>\n\
         <Plugin alive>\nmodule = RBL\ndomain = alive.test\nlookahead = off\nreject_message = alive\n\
         time_limit = 15\n</Plugin>\n</VirtualHost>\n"
    ));
    (server, site.start(), is_alive)
}

fn ask(daemon: &Daemon, client: &str, sender: &str) -> String {
    daemon.ask(&format!("client_address={client}\nsender={sender}\nrecipient=b@rcpt.test")).action()
}

#[test]
fn a_list_that_does_not_answer_costs_one_request_and_comes_back() {
    let (server, daemon, is_alive) = start("", 6);
    assert_eq!(ask(&daemon, "192.0.2.4", ""), "reject alive");
    for last in 10..20 {
        assert_eq!(ask(&daemon, &format!("192.0.2.{last}"), ""), "dunno");
    }
    let of_clients = |query: &Query| query.name.ends_with(".2.0.192.dead.test");
    let waited_for = server.queries().into_iter().filter(of_clients).map(|query| query.name);
    let mut waited_for: Vec<_> = waited_for.collect();
    waited_for.dedup();
    assert_eq!(waited_for, ["4.2.0.192.dead.test"], "nobody waits for it again");
    daemon.logged("DNS list dead.test gave no usable answer, so nothing is listed: no answer in time");

    // It is tried at once, and after that from time to time. By the third time the first has failed.
    eventually("the list is tried again", || {
        ask(&daemon, "192.0.2.10", "");
        let queries = server.queries().into_iter().map(|query| query.name);
        let trials: HashSet<_> = queries.filter(|name| name.ends_with(".127.dead.test")).collect();
        (trials.len() > 2).then_some(())
    });
    is_alive.store(true, Ordering::SeqCst);
    eventually("the list is asked again", || {
        ask(&daemon, "192.0.2.10", "");
        daemon.log().contains("DNS list dead.test answers again, after ").then_some(())
    });
    // The failure of this name is remembered for ten seconds, and is not said again.
    eventually("it counts again", || (ask(&daemon, "192.0.2.4", "") == "reject dead").then_some(()));
    let lines = daemon.log();
    assert_eq!(lines.matches("DNS list dead.test").count(), 2, "{lines}");
}

#[test]
fn the_senders_name_server_leaves_time_for_the_plugins_behind() {
    let (_server, daemon, _) = start("request_timeout = 12", 1);
    assert_eq!(ask(&daemon, "192.0.2.4", "joe@silent.test"), "reject alive");
    assert_eq!(ask(&daemon, "192.0.2.4", "joe@v.test"), "reject alive");
}

#[test]
fn the_queries_of_a_request_share_a_port_unless_each_has_its_own() {
    for (option, expected) in [("", 1), ("fresh_ports = on\n", 4)] {
        let server = FakeDns::start(|_| Reply::NoSuchName(Some(60)));
        let mut site = Site::new();
        site.replace("$DNS", server.address());
        site.configure(&format!(
            "port = \"127.0.0.1:$PORT\"\n<Dns>\nservers = \"$DNS\"\n{option}</Dns>\n<VirtualHost $PORT>\n\
             name = incoming\n<Plugin rbl>\nmodule = RBL\ndomain = bl.test\n</Plugin>\n\
             <Plugin dbl>\nmodule = DBL\ndomain = dbl.test\n</Plugin>\n</VirtualHost>\n"
        ));
        let daemon = site.start();
        let names = "reverse_client_name=a.example.com\nhelo_name=b.example.com";
        daemon.ask(&format!("client_address=192.0.2.4\nsender=x@c.example.com\n{names}"));
        let queries = server.queries();
        let asked: HashSet<_> = queries.iter().map(|query| &query.name).collect();
        let ports: HashSet<_> = queries.iter().map(|query| query.port).collect();
        assert_eq!((asked.len(), ports.len()), (4, expected), "{option}");
    }
}

#[test]
fn level_4_shows_what_a_request_asked_without_keys_and_values() {
    let server = FakeDns::start(|query: &Query| match query.record_type {
        A => Reply::address([127, 0, 0, 4]),
        _ => Reply::NoSuchName(Some(60)),
    });
    let key = "abcdefghij0123456789abcdef";
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nlog_level = 4\n<Dns>\nservers = \"$DNS\"\n</Dns>\n\
         <Connection db>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname=$DIR/list.sqlite\"\n</Connection>\n\
         <VirtualHost $PORT>\nname = incoming\n\
         <Plugin zen>\nmodule = RBL\ndomain = {key}.zen.dq.spamhaus.net\nmode = passive\n</Plugin>\n\
         <Plugin late>\nmodule = RBL\ndomain = bl.test\nlookahead = off\nmode = passive\n</Plugin>\n\
         <Plugin sql>\nmodule = SqlList\nconnection = db\non_error = continue\n\
         sql_query = \"SELECT 'secret' WHERE ? <> ''\"\n</Plugin>\n\
         <Plugin pot>\nmodule = Honeypot\nstore = memory\nrecipients = trap@rcpt.test\n</Plugin>\n\
         </VirtualHost>\n"
    ));
    let daemon = site.start();
    ask(&daemon, "192.0.2.4", "joe@example.com");
    daemon.logged("incoming: instance=");
    daemon.logged("lookup: dns: A 4.2.0.192.***.zen.dq.spamhaus.net: 127.0.0.4 (");
    daemon.logged("lookup: dns: A 4.2.0.192.bl.test: 127.0.0.4 (");
    daemon.logged("lookup: sql db: SELECT 'secret' WHERE ? <> '' (192.0.2.4): rows: 1 (");
    daemon.logged("lookup: store: get ");
    let log = daemon.log();
    assert!(!log.contains(key), "{log}");
    let asked = |name: &str, how: &str| {
        log.lines().any(|line| line.contains(name) && line.ends_with(&format!("{how})")))
    };
    assert!(asked(".zen.dq.spamhaus.net:", "asked ahead") && asked(".bl.test:", "asked"), "{log}");
}
