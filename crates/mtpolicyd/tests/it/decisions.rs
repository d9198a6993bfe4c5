//! `mtpolicyd decisions`, `explain`, `tail` and `top`: what was decided is found, explained and seen live.
//!
//! Knows: the commands, their options and what they print. Must not know: the daemon's code.

use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::{PATIENCE, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

/// A daemon that decides by the sender, with nested plugins.
const MIXED: &str = "\
<Control>
  socket = \"$DIR/control.sock\"
</Control>
port = \"127.0.0.1:$PORT\"
<VirtualHost $PORT>
  name = \"inbound\"
  <Plugin bad-sender>
    module = \"Condition\"
    key = \"sender\"
    match = \"bad@example.net\"
    <Plugin refuse>
      module = \"Action\"
      action = \"reject go away\"
    </Plugin>
  </Plugin>
  <Plugin slow-sender>
    module = \"Condition\"
    key = \"sender\"
    match = \"slow@example.net\"
    action = \"defer later\"
  </Plugin>
  <Plugin rest>
    module = \"Action\"
    action = \"dunno\"
  </Plugin>
</VirtualHost>
";

/// Runs a command that finds the daemon by its configuration file.
fn command(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("-c").arg(site.config());
    run(&mut command, b"")
}

/// What it printed; it has to end with this code.
#[track_caller]
fn printed(site: &Site, code: i32, arguments: &[&str]) -> String {
    let output = command(site, arguments);
    assert_eq!(output.status.code(), Some(code), "{}{}", output_of(&output), errors_of(&output));
    output_of(&output)
}

/// The rows that a search finds, as JSON; it has to find this many. An answer is recorded after it was sent.
#[track_caller]
fn rows(site: &Site, count: usize, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["decisions", "--format", "json"], arguments].concat();
    eventually(&format!("{count} decisions are found"), || {
        let output = output_of(&command(site, &arguments));
        let rows: Vec<Value> =
            output.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        (rows.len() == count).then_some(rows)
    })
}

#[test]
fn every_request_is_found_with_the_answer_that_its_client_got() {
    const REQUESTS: usize = 1000;
    let daemon = Daemon::start(MIXED);
    let senders = ["bad@example.net", "slow@example.net", "good@example.org"];
    let mut client = daemon.connect();
    let answers: BTreeMap<String, String> = (0..REQUESTS)
        .map(|number| {
            let sender = senders[number % senders.len()];
            let instance = format!("i.{number}");
            let request = format!("sender={sender}\nrecipient=r{number}@example.org\ninstance={instance}");
            (instance, client.ask(&request).action())
        })
        .collect();
    let site = &daemon.site;
    let all = rows(site, REQUESTS, &["--since", "1h"]);
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let ids: Vec<_> = all.iter().map(|row| text(row, "id")).collect();
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "the newest first, and none twice");
    let mut numbers = Vec::new();
    for row in &all {
        let instance = text(&row["request"], "instance");
        assert_eq!(answers[&instance], text(row, "answer"));
        numbers.push(instance[2..].parse::<usize>().unwrap());
    }
    assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]), "later requests have larger identifiers");

    assert_eq!(
        rows(site, 334, &["--from", "BAD@example.net", "--outcome", "reject"])[0]["by"],
        "inbound/bad-sender/refuse"
    );
    assert_eq!(rows(site, 667, &["--refused"]).len(), 667);
    assert_eq!(rows(site, 333, &["--plugin", "slow-sender", "--host", "inbound"]).len(), 333);
    assert_eq!(rows(site, 1, &["--instance", "i.7"]).len(), 1);
    assert_eq!(rows(site, 5, &["--limit", "5"]).len(), 5);
    let id = text(&rows(site, 1, &["--to", "r8@example.org"])[0], "id");
    assert_eq!(text(&rows(site, 1, &["--id", &id])[0], "id"), id);
    assert_eq!(rows(site, 0, &["--until", "1h"]).len(), 0);

    let output = command(site, &["decisions", "--to", "nobody@example.org"]);
    assert_eq!(output.status.code(), Some(1), "nothing is found");
    assert!(output_of(&output).is_empty());
    let said = errors_of(&output);
    assert!(
        said.starts_with("no decisions with to=nobody@example.org (the last 1000, in memory: "),
        "{said}"
    );
    let line = printed(site, 0, &["decisions", "--instance", "i.0", "--utc"]);
    let words = " host=inbound outcome=reject by=inbound/bad-sender/refuse place=";
    assert!(line.contains(words) && line.ends_with(" instance=i.0 answer=reject go away\n"), "{line}");
}

#[test]
fn a_decision_is_explained_with_its_place_in_the_file() {
    let daemon = Daemon::start(MIXED);
    let site = &daemon.site;
    daemon.ask(
        "sender=bad@example.net\nrecipient=bob@example.org\nclient_address=203.0.113.7\n\
         client_name=mail.example.net\nhelo_name=mail.example.net\nprotocol_state=RCPT\ninstance=6a1.67.1",
    );
    let row = rows(site, 1, &[]).remove(0);
    let id = row["id"].as_str().unwrap();
    let text = printed(site, 0, &["explain", id, "--utc"]);
    let config = fs::read_to_string(site.config()).unwrap();
    let line = 1 + config.lines().position(|line| line.contains("<Plugin refuse>")).unwrap();
    let decided = format!(
        "  decided by inbound/bad-sender/refuse, {}:{line}  action = reject go away",
        site.config().display()
    );
    for words in [
        &format!("{id}  20"),
        "+00:00  host inbound  RCPT  queue -  instance 6a1.67.1\n",
        "  client 203.0.113.7 (mail.example.net)  helo mail.example.net  from bad@example.net  \
         to bob@example.org\n",
        ": reject go away\n",
        &decided,
        "    ms  step",
        "bad-sender ",
        "  refuse ",
        "STOPPED",
        "     -  slow-sender, rest ",
        "not reached",
    ] {
        assert!(text.contains(words), "no `{words}`:\n{text}");
    }
    // As it is read aloud: lower case, no dash.
    assert_eq!(printed(site, 0, &["explain", &id.to_lowercase().replace('-', ""), "--utc"]), text);
    let with_options = printed(site, 0, &["explain", id, "--options"]);
    assert!(with_options.contains("action") && with_options.contains("reject go away"), "{with_options}");
    let json: Value = serde_json::from_str(&printed(site, 0, &["explain", id, "--format", "json"])).unwrap();
    assert_eq!(json["steps"].as_array().map(Vec::len), Some(4));

    for (id, words) in [
        (
            "00000-00000",
            "no decision 00000-00000: those that are kept (the last 1000, in memory) begin at 20",
        ),
        ("9F3KQ", "`9F3KQ` is not the identifier of a decision, which looks like 9F3KQ-2M7TX"),
        ("\u{1b}[2J", "is not the identifier of a decision"),
    ] {
        let output = command(site, &["explain", id]);
        let said = errors_of(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(words) && !said.contains('\u{1b}'), "{said}");
    }
}

#[test]
fn what_strangers_send_does_not_reach_the_terminal() {
    let daemon = Daemon::start(MIXED);
    let helo = format!("<script>\u{1b}[2J\u{202e}\u{9b}31m{}", "x".repeat(10_000));
    let sender = "=cmd|'/C calc'!A0\u{1b}]0;title\u{7}@example.org";
    daemon.ask(&format!(
        "sender={sender}\nhelo_name={helo}\nrecipient=\u{2066}a@example.org\ninstance=1.\u{1b}c"
    ));
    let site = &daemon.site;
    let id = rows(site, 1, &[])[0]["id"].as_str().unwrap().to_owned();
    for arguments in [
        &["decisions"][..],
        &["decisions", "--format", "json"],
        &["explain", &id],
        &["explain", &id, "--format", "json"],
        &["explain", &id, "--options"],
        &["decisions", "--text", "\u{1b}[2J\u{202e}"],
        &["top", "--once"],
    ] {
        let output = command(site, arguments);
        let text = output_of(&output) + &errors_of(&output);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}");
        let harms = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{2069}').contains(&c);
        assert!(!text.contains(harms), "{arguments:?}: {:?}", text.escape_debug().to_string());
    }
    let shown = printed(site, 0, &["explain", &id]);
    assert!(shown.contains("helo <script>\\x1b[2J\\xe2\\x80\\xae\\xc2\\x9b31mxxx"), "{shown}");
    assert!(shown.len() < 4_000, "a value is cut: {}", shown.len());
    let json: Value = serde_json::from_str(&printed(site, 0, &["explain", &id, "--format", "json"])).unwrap();
    assert_eq!(json["request"]["helo_name"].as_str(), Some(&*helo), "JSON has it as it came");
}

/// `mtpolicyd tail` that runs; it is killed when this is dropped.
struct Tail(Child);

impl Tail {
    fn start(site: &Site, arguments: &[&str]) -> Tail {
        let mut command = Command::new(PROGRAM);
        command.arg("tail").args(arguments).arg("-c").arg(site.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Tail(command.spawn().expect("the program can be run"))
    }

    fn lines(&mut self) -> impl Iterator<Item = String> {
        let output = self.0.stdout.take().expect("it is piped");
        BufReader::new(output).lines().map(|line| line.expect("it is text"))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tail_shows_decisions_as_they_are_made() {
    let daemon = Daemon::start(MIXED);
    let mut tail =
        Tail::start(&daemon.site, &["--from", "bad@example.net", "--format", "json", "--limit", "2"]);
    let mut walk = Tail::start(&daemon.site, &["--walk", "--refused", "--limit", "1"]);
    let mut client = daemon.connect();
    // Until both watch, and then some.
    let asking = std::sync::atomic::AtomicBool::new(true);
    let (seen, walked) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while asking.load(std::sync::atomic::Ordering::Relaxed) {
                client.ask("sender=good@example.org");
                client.ask("sender=bad@example.net\nrecipient=bob@example.org");
            }
        });
        let seen: Vec<_> = tail.lines().collect();
        let walked: Vec<_> = walk.lines().collect();
        asking.store(false, std::sync::atomic::Ordering::Relaxed);
        (seen, walked.join("\n"))
    });
    assert_eq!(seen.len(), 2);
    for line in &seen {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&row["outcome"], &row["request"]["sender"]),
            (&"reject".into(), &"bad@example.net".into())
        );
    }
    assert!(walked.contains("decided by inbound/bad-sender") && walked.contains("STOPPED"), "{walked}");
    assert!(tail.0.wait().unwrap().success() && walk.0.wait().unwrap().success());
}

#[test]
fn a_watcher_that_does_not_read_is_told_what_it_missed() {
    let mut daemon = Daemon::start(MIXED);
    let mut stream = UnixStream::connect(daemon.site.path("control.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /v1/tail?walk=1 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut head = [0; 64];
    stream.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let mut client = daemon.connect();
    let helo = "h".repeat(2_000);
    for number in 0..2_000 {
        client.ask(&format!("instance={number}\nhelo_name={helo}")).action();
    }
    // Now it reads.
    let (mut text, mut chunk) = (String::new(), [0; 65_536]);
    let missed = loop {
        let length = stream.read(&mut chunk).unwrap();
        assert!(length > 0, "the stream goes on");
        text += &String::from_utf8_lossy(&chunk[..length]);
        if let Some((_, rest)) = text.split_once("event: lagged\ndata: ")
            && let Some((count, _)) = rest.split_once('\n')
        {
            break count.parse::<u32>().unwrap();
        }
    };
    assert!(missed > 0 && missed < 2_000, "{missed}");
    assert!(daemon.terminate().success(), "a watcher does not keep it from ending");
}

#[test]
fn watchers_have_a_bound() {
    let daemon = Daemon::start(MIXED);
    let watch = || {
        let mut stream = UnixStream::connect(daemon.site.path("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /v1/tail HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    let watchers: Vec<_> = (0..32).map(|_| watch()).collect();
    assert!(watchers.iter().all(|(_, head)| head == "HTTP/1.1 200"));
    assert_eq!(watch().1, "HTTP/1.1 503");
    assert_eq!(daemon.ask("a=b").action(), "dunno");
    drop(watchers);
    eventually("there is room again", || (watch().1 == "HTTP/1.1 200").then_some(()));
}

#[test]
fn top_shows_what_the_daemon_does() {
    let daemon = Daemon::start(MIXED);
    let mut client = daemon.connect();
    (0..10).for_each(|_| drop(client.ask("sender=bad@example.net").action()));
    rows(&daemon.site, 10, &[]);
    let text = printed(&daemon.site, 0, &["top", "--once"]);
    for words in ["mtpolicyd 3.", "req/s", "reject ", "p99 ", "inbound/bad-sender"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json: Value = serde_json::from_str(&printed(&daemon.site, 0, &["top", "--format", "json"])).unwrap();
    assert_eq!(
        (&json["activity"]["requests"], &json["activity"]["outcomes"]["reject"]),
        (&10.into(), &10.into())
    );
}
