//! Events: what is told of a limit, a list, a server and a reload, to a web service and to a program.
//!
//! Knows: the configuration file, the commands, HTTP as the receiver sees it. Must not know: when the daemon
//! looks at what.

use crate::fake_dns::{FakeDns, Reply};
use crate::support::daemon::{Daemon, Site, output_of, run};
use crate::support::fake_http::{Asked, FakeHttp, Say};
use crate::support::servers::redis;
use crate::support::{eventually, free_port};
use serde_json::Value;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const CONTROL: &str = "port = \"127.0.0.1:$PORT\"\n<Control>\nsocket = \"$DIR/control.sock\"\n</Control>\n";

/// A limit of 100 messages for each login.
const LIMITED: &str = "<VirtualHost $PORT>\nname = submission\n<Plugin outgoing>\nmodule = RateLimit\n\
                       key = sasl_username\nlimit = 100/1d\n</Plugin>\n</VirtualHost>\n";

/// A host that asks nothing.
const IDLE: &str = "<VirtualHost $PORT>\nname = in\n<Plugin ok>\nmodule = Action\naction = dunno\n</Plugin>\n\
                    </VirtualHost>\n";

fn send(daemon: &Daemon, login: &str, count: usize) {
    let mut client = daemon.connect();
    (0..count).for_each(|_| drop(client.ask(&format!("sasl_username={login}\nsender=a@b.test"))));
}

/// What a command prints, as JSON, one value a line.
fn json(site: &Site, words: &[&str]) -> Vec<Value> {
    let output = run(&mut site.command_after(&[words, &["--format", "json"]].concat()), b"");
    output_of(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The events of the daemon, the oldest first: `KIND STATE SOURCE`.
fn events(site: &Site) -> Vec<String> {
    let of = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let shown = |event: &Value| ["kind", "state", "source"].map(|name| of(event, name)).join(" ");
    json(site, &["events", "--limit", "1000"]).iter().rev().map(shown).collect()
}

/// How a receiver does: its name, its way, and the events that were taken, wait, were given up and dropped.
fn receiver(site: &Site, name: &str) -> Vec<String> {
    let list = output_of(&run(&mut site.command_after(&["events"]), b""));
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_default();
    line.split_whitespace().take(6).map(str::to_owned).collect()
}

/// The events that a web service was sent, each with what it was asked.
fn posted(server: &FakeHttp) -> Vec<(Value, Asked)> {
    let posts = server.asked().into_iter().filter(|asked| asked.method == "POST");
    posts.map(|asked| (serde_json::from_str(&asked.body).expect("JSON"), asked)).collect()
}

/// The code of a request by another program.
fn code_of(asked: &Asked, secret: &str) -> String {
    let script = "import hmac, hashlib, sys\n\
                  text = sys.argv[2].encode() + b'.' + sys.stdin.buffer.read()\n\
                  print('sha256=' + hmac.new(sys.argv[1].encode(), text, hashlib.sha256).hexdigest())";
    let time = asked.header("x-mtpolicyd-time").expect("the time");
    let output = run(Command::new("python3").args(["-c", script, secret, time]), asked.body.as_bytes());
    output_of(&output).trim().to_owned()
}

#[test]
fn a_limit_is_told_once_each_to_a_receiver_that_was_down() {
    let port = free_port();
    let notify = format!(
        "<Notify ops>\nwebhook = http://127.0.0.1:{port}/hook\nsecret = s3cret-of-ops\n\
         events = \"limit-near, limit-reached\"\n</Notify>\n\
         <Journal>\nfile = \"$DIR/journal.db\"\n</Journal>\n"
    );
    let daemon = Daemon::start(&format!("{CONTROL}{notify}{LIMITED}"));
    send(&daemon, "alice@example.org", 79);
    assert!(events(&daemon.site).is_empty());
    send(&daemon, "alice@example.org", 22);
    // What the first event finds nobody to take waits.
    daemon.logged("notify ops: an event was not taken");
    let reset = daemon.site.command_after(&["limits", "reset", "outgoing", "alice@example.org"]).output();
    assert!(reset.expect("it can be run").status.success());
    send(&daemon, "alice@example.org", 1);
    let all = ["limit-near begins outgoing", "limit-reached begins outgoing", "limit-reached ends outgoing"];
    eventually("three events", || (events(&daemon.site) == all).then_some(()));
    let server = FakeHttp::start_on(port, |_| Say::json("{}"));
    daemon.logged("notify ops: events are taken again");
    let numbers = || receiver(&daemon.site, "ops");
    eventually("all are taken", || (numbers() == ["ops", "webhook", "3", "0", "0", "0"]).then_some(()));
    let posted = posted(&server);
    let told: Vec<_> =
        posted.iter().map(|(event, _)| format!("{} {}", event["kind"], event["state"])).collect();
    let expected = [r#""limit-near" "begins""#, r#""limit-reached" "begins""#, r#""limit-reached" "ends""#];
    assert_eq!(told, expected);
    for (event, asked) in &posted {
        assert_eq!((&event["key"], asked.path.as_str()), (&"alice@example.org".into(), "/hook"));
        assert_eq!(asked.header("x-mtpolicyd-signature"), Some(&*code_of(asked, "s3cret-of-ops")));
    }
    let advice = posted[1].0["advice"].as_str().unwrap_or_default();
    assert!(advice.contains("mtpolicyd limits reset outgoing alice@example.org"), "{advice}");
    assert!(!daemon.log().contains("s3cret-of-ops"));
    // They are in the journal, also for the next daemon, until somebody wants to be forgotten.
    let mut daemon = daemon;
    assert!(daemon.terminate().success());
    let daemon = daemon.into_site().start();
    assert_eq!(events(&daemon.site), all);
    let forget = ["decisions", "forget", "--address", "alice@example.org", "--yes"];
    let forgotten = run(&mut daemon.site.command_after(&forget), b"");
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert!(events(&daemon.site).is_empty());
}

#[test]
fn a_thousand_logins_at_once_are_a_digest() {
    let server = FakeHttp::start(|_| Say::json("{}"));
    let notify = format!("<Notify ops>\nwebhook = http://{}/\n</Notify>\n", server.address());
    let limited = LIMITED.replace("100/1d", "1/1d");
    let daemon = Daemon::start(&format!("{CONTROL}{notify}{limited}"));
    let mut client = daemon.connect();
    for n in 0..1_000 {
        client.ask(&format!("sasl_username=u{n}@example.org\nsender=a@b.test"));
    }
    eventually("all are known", || (events(&daemon.site).len() == 1_000).then_some(()));
    eventually("the first ones are sent", || (posted(&server).len() >= 20).then_some(()));
    // A slow machine may have sent a digest already.
    let states = posted(&server).into_iter().map(|(event, _)| event["state"].clone());
    assert_eq!(states.filter(|state| state == "begins").count(), 20);
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children_and_the_next_event_gets_through() {
    let site = Site::new();
    let script = site.path("notify");
    let text = "#!/bin/sh\ncd \"$2\" || exit 1\nif [ $MTPOLICYD_EVENT_KIND = limit-near ]; then\n  \
                sleep 1000 &\n  echo $$ $! > pids\n  sleep 1000\nfi\n\
                cat > input\nenv > environment\necho \"$1\" > argument\ntouch done\n";
    fs::write(&script, text).expect("it is writable");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let notify = "<Notify page>\ncommand = $DIR/notify\nargument = \"one argument; touch x\"\n\
                  argument = $DIR\ntimeout = 10\n</Notify>\n";
    site.configure(&format!("{CONTROL}{notify}{LIMITED}"));
    let daemon = site.start();
    send(&daemon, "alice@example.org", 100);
    daemon.logged("notify page: event limit-near is given up: killed, since it took longer than 10 s");
    let pids = fs::read_to_string(daemon.site.path("pids")).expect("the program was run");
    let is_gone = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    eventually("all processes are gone", || pids.split_whitespace().all(is_gone).then_some(()));
    eventually("the second event", || daemon.site.path("done").exists().then_some(()));
    let read = |name: &str| fs::read_to_string(daemon.site.path(name)).expect("the program wrote it");
    let input: Value = serde_json::from_str(&read("input")).expect("JSON");
    assert_eq!((&input["kind"], &input["key"]), (&"limit-reached".into(), &"alice@example.org".into()));
    let environment = read("environment");
    let has = |line: &str| environment.lines().any(|known| known == line);
    assert!(has("MTPOLICYD_EVENT_KIND=limit-reached") && has("MTPOLICYD_EVENT_KEY=alice@example.org"));
    assert!(!environment.contains("HOME="), "{environment}");
    assert_eq!(read("argument"), "one argument; touch x\n");
    assert!(!daemon.site.path("x").exists());
}

#[test]
fn a_list_is_told_once_when_it_is_quarantined_and_once_when_it_is_well() {
    let is_well = Arc::new(AtomicBool::new(false));
    let says = is_well.clone();
    let dns = FakeDns::start(move |query| {
        let is_point = query.name.starts_with("2.0.0.127.");
        let is_listed = is_point || !says.load(Ordering::SeqCst);
        let is_asked = query.record_type == 1 && is_listed;
        if is_asked {
            Reply::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2)], 0)
        } else {
            Reply::NoSuchName(None)
        }
    });
    let mut site = Site::new();
    site.replace("$DNS", dns.address());
    let host = "<Dns>\nservers = \"$DNS\"\n</Dns>\n<VirtualHost $PORT>\nname = in\n<Plugin everybody>\n\
                module = RBL\ndomain = everybody.test\n</Plugin>\n</VirtualHost>\n";
    site.configure(&format!("{CONTROL}{host}"));
    let daemon = site.start();
    let test = || drop(run(&mut daemon.site.command_after(&["lists", "--test"]), b""));
    let quarantined = "list-quarantined begins everybody.test";
    (0..3).for_each(|_| test());
    eventually("it is told", || (events(&daemon.site) == [quarantined]).then_some(()));
    is_well.store(true, Ordering::SeqCst);
    test();
    let all = [quarantined, "list-quarantined ends everybody.test"];
    eventually("it is told", || (events(&daemon.site) == all).then_some(()));
}

#[test]
fn a_server_is_told_once_when_it_is_down_and_once_when_it_is_up() {
    let mut server = redis::start();
    let receiver = FakeHttp::start(|_| Say::json("{}"));
    let text = format!(
        "<Connection db>\nmodule = Redis\nserver = 127.0.0.1:{}\n</Connection>\n<Notify ops>\nwebhook = \
         http://{}/\nmin_level = error\n</Notify>\n",
        server.port,
        receiver.address()
    );
    let daemon = Daemon::start(&format!("{CONTROL}{text}{IDLE}"));
    server.stop();
    eventually("it is told", || (events(&daemon.site) == ["backend-down begins db"]).then_some(()));
    server.start();
    let all = ["backend-down begins db", "backend-down ends db"];
    eventually("it is told", || (events(&daemon.site) == all).then_some(()));
    eventually("the receiver has both", || (posted(&receiver).len() == 2).then_some(()));
}

#[test]
fn a_reload_that_is_refused_is_told_until_one_is_not() {
    let good = format!("{CONTROL}{IDLE}");
    let daemon = Daemon::start(&good);
    daemon.reload(&good.replace("name = in", "nome = in"));
    let name = daemon.site.config().display().to_string();
    let begins = format!("reload-refused begins {name}");
    eventually("it is told", || (events(&daemon.site) == [begins.as_str()]).then_some(()));
    daemon.reload(&good);
    let ends = format!("reload-refused ends {name}");
    eventually("it is told", || (events(&daemon.site) == [begins.as_str(), &ends]).then_some(()));
}

#[test]
fn a_journal_that_fails_is_told_until_it_is_written() {
    let journal = "<Journal>\nfile = \"$DIR/later/journal.db\"\n</Journal>\n";
    let daemon = Daemon::start(&format!("{CONTROL}{journal}{IDLE}"));
    let name = daemon.site.path("later/journal.db").display().to_string();
    let begins = format!("journal-failing begins {name}");
    // As long as it can't be read, the events are those in memory.
    eventually("it is told", || (events(&daemon.site) == [begins.as_str()]).then_some(()));
    fs::create_dir(daemon.site.path("later")).expect("the folder is ours");
    let ends = format!("journal-failing ends {name}");
    daemon.logged("event journal-failing ends: ");
    eventually("both are in the journal", || {
        (events(&daemon.site) == [begins.as_str(), &ends]).then_some(())
    });
}

#[test]
fn requests_that_take_too_long_are_told_once() {
    // It answers only whoever wants to know whether it is there, so that it is not taken for dead.
    let slow = FakeHttp::start(|asked| if asked.method == "HEAD" { Say::Status(405) } else { Say::Silence });
    let host = format!(
        "request_timeout = 1\n<VirtualHost $PORT>\nname = in\n<Plugin slow>\nmodule = HttpLookup\n\
         url = http://{}/\nattributes = sender\non_error = continue\n</Plugin>\n</VirtualHost>\n",
        slow.address()
    );
    let daemon = Daemon::start(&format!("{CONTROL}{host}"));
    let ask_at_once = || {
        let mut clients: Vec<_> = (0..12).map(|_| daemon.connect()).collect();
        std::thread::scope(|scope| {
            for (n, client) in clients.iter_mut().enumerate() {
                scope.spawn(move || drop(client.ask(&format!("sender=a{n}@b.test"))));
            }
        });
    };
    eventually("it is told", || {
        ask_at_once();
        (events(&daemon.site) == ["deadline-missed begins "]).then_some(())
    });
}

#[test]
fn a_test_says_who_has_taken_it() {
    let (taking, refusing) = (FakeHttp::start(|_| Say::json("{}")), FakeHttp::start(|_| Say::Status(503)));
    let block = |name: &str, server: &FakeHttp| {
        format!("<Notify {name}>\nwebhook = http://{}/\nmin_level = error\n</Notify>\n", server.address())
    };
    let blocks = block("good", &taking) + &block("bad", &refusing);
    let daemon = Daemon::start(&format!("{CONTROL}{blocks}{IDLE}"));
    let test = |words: &[&str]| run(&mut daemon.site.command_after(words), b"");
    let all = test(&["events", "test"]);
    assert_eq!(
        (all.status.code(), output_of(&all).as_str()),
        (Some(1), "bad: NOT taken: status 503\ngood: taken\n")
    );
    let good = test(&["events", "test", "good"]);
    assert_eq!((good.status.code(), output_of(&good).as_str()), (Some(0), "good: taken\n"));
    assert_eq!(test(&["events", "test", "nobody"]).status.code(), Some(2));
    assert_eq!(posted(&taking).len(), 2);
    assert_eq!(posted(&taking)[0].0["kind"], "test");
}
