//! SPF through the daemon, with a name server on the wire.
//!
//! Knows: answers to Postfix, questions to the name server. Must not know: how a record is evaluated.

use crate::fake_dns::{FakeDns, Query, Reply, wire_name};
use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::sync::Mutex;

const AAAA: u16 = 28;
const MX: u16 = 15;
const PTR: u16 = 12;
const TXT: u16 = 16;
const A: u16 = 1;

/// What the servers of the world say.
fn world(query: &Query) -> Reply {
    let exchange = |host: &str| (MX, [&[0, 10][..], &wire_name(host)].concat());
    match (&*query.name, query.record_type) {
        ("mx.test", TXT) => Reply::text("v=spf1 mx -all exp=why.%{d}"),
        ("mx.test", MX) => Reply::Records(vec![exchange("m1.mx.test"), exchange("m2.mx.test")], 60),
        ("m2.mx.test", A) => Reply::address([192, 0, 2, 10]),
        ("m2.mx.test", AAAA) => Reply::Records(vec![(AAAA, Ipv6Addr::LOCALHOST.octets().to_vec())], 60),
        ("why.mx.test", TXT) => Reply::text("%{i} is no host of %{d}"),
        ("ptr.test", TXT) => Reply::text("v=spf1 ptr -all"),
        ("10.2.0.192.in-addr.arpa", PTR) => Reply::Records(vec![(PTR, wire_name("host.ptr.test"))], 60),
        ("host.ptr.test", A) => Reply::address([192, 0, 2, 10]),
        ("long.test", TXT) => {
            let strings = vec![b"v=spf1 ip4:192.0".to_vec(), b".2.10 -all".to_vec()];
            Reply::Truncated(Box::new(Reply::Texts(vec![strings], 60)))
        }
        ("two.test", TXT) => {
            Reply::Texts(vec![vec![b"v=spf1 +all".to_vec()], vec![b"v=spf1 -all".to_vec()]], 60)
        }
        ("ten.test", TXT) => {
            let includes: String = (0..10).map(|n| format!(" include:i{n}.test")).collect();
            Reply::text(&format!("v=spf1{includes} -all"))
        }
        ("i9.test", TXT) => Reply::text("v=spf1 ip4:192.0.2.10 -all"),
        (name, TXT) if name.len() == "i0.test".len() && name.starts_with('i') => Reply::text("v=spf1 ?all"),
        ("mute.test", TXT) => Reply::text("v=spf1 -all exp=silent.test"),
        ("odd.test", TXT) => Reply::text("v=spf1 exists:%{l}.u.%{d} -all"),
        ("a b.u.odd.test", A) => Reply::address([127, 0, 0, 2]),
        ("down.test", _) => Reply::Code(2),
        ("silent.test", _) => Reply::Silence,
        _ => Reply::NoSuchName(Some(60)),
    }
}

fn start(plugins: &str) -> (FakeDns, Daemon) {
    start_with("", plugins)
}

fn start_with(globals: &str, plugins: &str) -> (FakeDns, Daemon) {
    let server = FakeDns::start(world);
    let daemon = start_at(&server, globals, plugins);
    (server, daemon)
}

fn start_at(server: &FakeDns, globals: &str, plugins: &str) -> Daemon {
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nlog_level = 4\n{globals}\n<Dns>\nservers = \"$DNS\"\n</Dns>\n\
         <SessionCache>\n\
         module = Memory\n</SessionCache>\n<VirtualHost $PORT>\nname = incoming\n{plugins}\n</VirtualHost>\n"
    ));
    site.start()
}

fn ask(daemon: &Daemon, mail: &str, client: &str, sender: &str) -> String {
    let mail = format!(
        "instance={mail}\nclient_address={client}\nsender={sender}\nrecipient=b@rcpt.test\nhelo_name=h.test"
    );
    daemon.ask(&mail).action()
}

#[test]
fn ten_includes_cost_one_round_trip() {
    // None of them is answered before all were asked for. Asked for one after the other, the first is never
    // answered; asked for together, all are answered when they are sent again.
    let asked = Mutex::new(HashSet::new());
    let server = FakeDns::start(move |query| {
        let is_included = query.name.len() == "i0.test".len() && query.name.starts_with('i');
        if !is_included {
            return world(query);
        }
        let mut asked = asked.lock().unwrap();
        asked.insert(query.name.clone());
        if asked.len() < 10 { Reply::Silence } else { world(query) }
    });
    let daemon = start_at(
        &server,
        "",
        "<Plugin spf>\nmodule = SPF\npass_mode = accept\n</Plugin>\n\
         <Plugin z>\nmodule = Action\naction = end\n</Plugin>",
    );
    assert_eq!(ask(&daemon, "m", "192.0.2.10", "joe@ten.test"), "dunno");
}

#[test]
fn every_kind_of_record_is_read() {
    let (server, daemon) = start(
        "<Plugin spf>\nmodule = SPF\npass_mode = accept\nreject_message = \"no: %AUTH_EXPL%\"\n</Plugin>\n\
         <Plugin z>\nmodule = Action\naction = end\n</Plugin>",
    );
    let answer = |client: &str, sender: &str| ask(&daemon, &format!("{client}{sender}"), client, sender);
    assert_eq!(answer("192.0.2.10", "joe@mx.test"), "dunno");
    assert_eq!(answer("192.0.2.11", "joe@mx.test"), "reject no: 192.0.2.11 is no host of mx.test");
    assert_eq!(answer("192.0.2.10", "joe@ptr.test"), "dunno");
    assert_eq!(answer("192.0.2.10", "joe@long.test"), "dunno");
    assert_eq!(answer("192.0.2.10", "joe@ten.test"), "dunno");
    assert_eq!(answer("192.0.2.10", "a b@odd.test"), "dunno");
    assert!(answer("192.0.2.10", "a c@odd.test").starts_with("reject "));
    assert_eq!(answer("192.0.2.10", "joe@nobody.test"), "end");
    let two = "reject spf mfrom check failed: two.test: there is more than one SPF record";
    assert_eq!(answer("192.0.2.10", "joe@two.test"), two);
    let down = answer("192.0.2.10", "joe@down.test");
    assert!(down.starts_with("defer spf mfrom check failed: down.test: the TXT records can't be"), "{down}");
    let asked = (0..10).map(|n| server.count(&format!("i{n}.test"))).collect::<Vec<_>>();
    assert_eq!(asked, [1; 10], "no question is asked twice");
    daemon.logged("SPF mfrom: fail, mx.test (-all): 192.0.2.11 may not send mail as joe@mx.test");
}

#[test]
fn a_server_that_says_nothing_costs_the_time_limit_once_a_mail() {
    let (server, daemon) = start("<Plugin spf>\nmodule = SPF\ntime_limit = 1\n</Plugin>");
    for _ in 0..2 {
        let answer = ask(&daemon, "m", "192.0.2.10", "joe@silent.test");
        assert!(answer.starts_with("defer spf mfrom check failed: silent.test"), "{answer}");
    }
    let asked = server.count("silent.test");
    let again = ask(&daemon, "m", "192.0.2.10", "joe@silent.test");
    assert!(again.starts_with("defer spf "), "{again}");
    assert!(server.count("silent.test") - asked <= 1, "only what was sent before is repeated");
}

#[test]
fn an_explanation_that_does_not_come_in_time_is_the_default() {
    let (_server, daemon) = start(
        "<Plugin spf>\nmodule = SPF\ntime_limit = 1\nreject_message = \"%AUTH_EXPL%\"\n\
         default_authority_explanation = \"%{i} may not\"\n</Plugin>",
    );
    assert_eq!(ask(&daemon, "m", "192.0.2.10", "joe@mute.test"), "reject 192.0.2.10 may not");
}

#[test]
fn greylisting_goes_on_while_the_name_service_says_nothing() {
    let (_server, daemon) = start_with(
        "request_timeout = 4\n<Connection db>\nmodule = Sql\n\
         dsn = \"dbi:SQLite:dbname=$DIR/db\"\n</Connection>",
        "<Plugin g>\nmodule = Greylist\nclient_key = spf\nuse_autowl = 0\n<Ticket>\n\
         module = Sql\n</Ticket>\n</Plugin>",
    );
    assert_eq!(ask(&daemon, "1", "192.0.2.10", "joe@silent.test"), "defer greylisting is active");
}

#[test]
fn the_header_comes_once_a_mail() {
    let (_server, daemon) = start(
        "<Plugin spf>\nmodule = SPF\nheader = \"Authentication-Results\"\nhostname = mx.example.org\n\
         </Plugin>",
    );
    let answers = [1, 2].map(|_| ask(&daemon, "m", "192.0.2.10", "joe@mx.test"));
    let header = "PREPEND Authentication-Results: mx.example.org; spf=none smtp.helo=h.test; \
                  spf=pass smtp.mailfrom=mx.test";
    assert_eq!(answers, [header, "dunno"]);
}

#[test]
fn greylisting_by_spf_lets_another_host_come_back() {
    let (_server, daemon) = start(
        "<Plugin g>\nmodule = Greylist\nclient_key = spf\nmin_retry_wait = 1\nuse_autowl = 0\n<Ticket>\n\
         module = Memory\n</Ticket>\n</Plugin>\n<Plugin z>\nmodule = Action\naction = passed\n</Plugin>",
    );
    assert_eq!(ask(&daemon, "1", "192.0.2.10", "joe@mx.test"), "defer greylisting is active");
    let mut mail = 1;
    eventually("another host of the domain passes", || {
        mail += 1;
        (ask(&daemon, &mail.to_string(), "::1", "joe@mx.test") == "passed").then_some(())
    });
}
