//! The numbers of the daemon: over HTTP, by the command, in the formats of Prometheus, and after a reload.
//!
//! Knows: HTTP as bytes, promtool, the parsers of python3-prometheus-client. Must not know: the daemon's
//! code.

use crate::support::daemon::{Daemon, KilledById, PROGRAM, Site, loopback, output_of, run, signal};
use crate::support::{PATIENCE, eventually};
use mtpolicyd::metrics::{FAMILIES, Type};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

/// The block, at the second port of a test, and a control socket.
pub const METRICS: &str = "<Metrics>\n  listen = \"127.0.0.1:$OTHER\"\n</Metrics>\n\
                       <Control>\n  socket = \"$DIR/control.sock\"\n</Control>\n";

/// A chain that rejects one client, by a list, and lets the others through.
pub const HOST: &str = "port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\n  name = \"inbound\"\n\
    <Plugin bad-client>\n    module = Condition\n    key = client_address\n    match = 192.0.2.66\n\
    <Plugin no>\n      module = Action\n      action = \"reject no (%ID%)\"\n    </Plugin>\n  </Plugin>\n\
    <Plugin count>\n    module = SetField\n    key = x\n    value = 1\n  </Plugin>\n</VirtualHost>\n";

/// What a reader of OpenMetrics sends.
const OPEN: &str = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n";

/// The answer of the second port: its status, its head and its body. It is `None` while nobody listens there.
fn try_ask(site: &Site, method: &str, path: &str, headers: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(loopback(site.other_port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let mut answer = Vec::new();
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).ok()?;
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).expect("it is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_lowercase(), body.to_owned()))
}

#[track_caller]
pub fn ask(site: &Site, path: &str, headers: &str) -> (u16, String, String) {
    try_ask(site, "GET", path, headers).expect("the daemon answers")
}

/// The value of a time series, as it is written.
#[track_caller]
pub fn value(page: &str, series: &str) -> String {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series}: {page}")).split(' ').next().unwrap_or_default().to_owned()
}

/// The names and labels of all time series.
pub fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned()).collect()
}

/// Runs a program with this on its standard input, which has to be satisfied with it.
#[track_caller]
fn accepts(program: &str, arguments: &[&str], input: &str) {
    let output = run(Command::new(program).args(arguments), input.as_bytes());
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &output_of(&output);
    assert!(output.status.success() && said.is_empty(), "{program}: {said}\n{input}");
}

#[test]
fn the_numbers_are_those_of_what_happened() {
    let daemon = Daemon::start(&format!("{METRICS}{HOST}"));
    let mut client = daemon.connect();
    let mut rejection = String::new();
    for last in [66, 67, 68, 66] {
        let action = client.ask(&format!("client_address=192.0.2.{last}\nsender=a@b.test")).action();
        if last == 66 {
            rejection = action;
        }
    }
    let turns =
        "mtpolicyd_plugin_outcomes_total{host=\"inbound\",plugin=\"bad-client/no\",outcome=\"stopped\"}";
    // What a decision tells is counted behind its answer.
    let page = eventually("all are counted", || {
        let (_, _, page) = ask(&daemon.site, "/metrics", OPEN);
        (value(&page, turns) == "2").then_some(page)
    });
    let requests = |outcome| format!("mtpolicyd_requests_total{{host=\"inbound\",outcome=\"{outcome}\"}}");
    assert_eq!(
        (value(&page, &requests("reject")), value(&page, &requests("pass"))),
        ("2".into(), "2".into())
    );
    assert_eq!(value(&page, "mtpolicyd_request_seconds_count{host=\"inbound\"}"), "4");
    assert_eq!(value(&page, "mtpolicyd_connections"), "1");
    assert_eq!(value(&page, "mtpolicyd_config_warnings"), "0");
    assert!(page.ends_with("# EOF\n"));
    // An example is the last decision of its bucket, which can be explained.
    let example = page.split("# {id=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an example");
    let mut explain = Command::new(PROGRAM);
    let explained = run(explain.args(["explain", example, "-c"]).arg(daemon.site.config()), b"");
    assert!(explained.status.success(), "{example}: {}", output_of(&explained));
    let id = rejection.rsplit('(').next().and_then(|rest| rest.strip_suffix(')')).unwrap_or_default();
    let examples = page.matches("# {id=").count();
    assert!(page.contains(&format!("# {{id=\"{id}\"}} ")) || examples > 0, "{rejection}");
}

#[test]
fn readers_get_the_format_that_they_ask_for() {
    let daemon = Daemon::start(&format!("{METRICS}{HOST}"));
    daemon.ask("client_address=192.0.2.1");
    let (status, head, open) = ask(&daemon.site, "/metrics", OPEN);
    assert!(
        status == 200 && head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    let (status, head, plain) = ask(&daemon.site, "/metrics", "Accept: */*\r\n");
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(!plain.contains("# EOF") && !plain.contains("# {id"));
    assert_eq!(series(&plain).len(), series(&open).len());
    accepts("promtool", &["check", "metrics"], &plain);
    let reads = |module: &str| {
        format!(
            "import sys; from {module} import text_string_to_metric_families as read; \
             families = list(read(sys.stdin.read())); assert len(families) > 20, len(families)"
        )
    };
    accepts("/usr/bin/python3", &["-c", &reads("prometheus_client.openmetrics.parser")], &open);
    accepts("/usr/bin/python3", &["-c", &reads("prometheus_client.parser")], &plain);
}

#[test]
fn the_port_has_three_paths_and_changes_nothing() {
    let daemon = Daemon::start(&format!("{METRICS}{HOST}"));
    let site = &daemon.site;
    assert_eq!(ask(site, "/healthz", "").2, "ok\n");
    assert_eq!((ask(site, "/readyz", "").0, ask(site, "/readyz", "").2), (200, "ready\n".to_owned()));
    for path in ["/", "/metrics/", "/v1/status", "/v1/reload", "/../metrics"] {
        assert_eq!(ask(site, path, "").0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, head, _) =
            try_ask(site, method, "/metrics", "Content-Length: 0\r\n").expect("it answers");
        assert!(status == 405 && head.contains("allow: get, head"), "{method}: {head}");
    }
    let (status, head, body) = try_ask(site, "HEAD", "/metrics", "").expect("it answers");
    assert!(status == 200 && body.is_empty() && head.contains("content-length: "), "{head}");
    let long = format!("X: {}\r\n", "x".repeat(64 << 10));
    // The head is too long: an error or a closed connection.
    assert!(try_ask(site, "GET", "/metrics", &long).is_none_or(|(status, _, _)| status == 431));
    // More than may be connected at once, which say nothing: they are closed, and others have their turn.
    let idle: Vec<_> = (0..40).map(|_| TcpStream::connect(loopback(site.other_port)).unwrap()).collect();
    assert_eq!(ask(site, "/healthz", "").2, "ok\n");
    drop(idle);
}

#[test]
fn ready_is_who_can_do_its_work() {
    let backend = |on_error: &str| {
        let store = "<Connection store>\n  module = Redis\n  server = \"127.0.0.1:1\"\n</Connection>\n";
        format!("on_error = {on_error}\n{METRICS}{store}{HOST}")
    };
    let daemon = Daemon::start(&backend("close"));
    let (status, _, text) = ask(&daemon.site, "/readyz", "");
    assert_eq!((status, &*text), (503, "not ready\nstore does not answer\n"));
    assert_eq!(ask(&daemon.site, "/healthz", "").0, 200);
    assert_eq!(
        value(&ask(&daemon.site, "/metrics", "").2, "mtpolicyd_backend_up{connection=\"store\"}"),
        "0"
    );
    daemon.reload(&backend("defer"));
    eventually("it can do its work", || (ask(&daemon.site, "/readyz", "").0 == 200).then_some(()));
}

#[test]
fn nothing_falls_over_a_reload_and_the_port_follows_the_file() {
    let daemon = Daemon::start(&format!("{METRICS}{HOST}"));
    for _ in 0..3 {
        daemon.ask("client_address=192.0.2.66");
    }
    let rejected = "mtpolicyd_requests_total{host=\"inbound\",outcome=\"reject\"}";
    let page = || ask(&daemon.site, "/metrics", "").2;
    let stopped =
        "mtpolicyd_plugin_outcomes_total{host=\"inbound\",plugin=\"bad-client/no\",outcome=\"stopped\"}";
    eventually("they are counted", || (value(&page(), stopped) == "3").then_some(()));
    daemon.reload(&format!("{METRICS}{HOST}").replace("<Plugin count>", "<Plugin other>"));
    daemon.ask("client_address=192.0.2.66");
    eventually("counting goes on", || (value(&page(), stopped) == "4").then_some(()));
    assert_eq!(value(&page(), rejected), "4");
    assert!(!page().contains("plugin=\"count\"") && page().contains("plugin=\"other\""));
    daemon.reload("port = nonsense");
    let page_after = page();
    assert_eq!(value(&page_after, "mtpolicyd_reloads_total{result=\"refused\"}"), "1");
    assert_eq!(value(&page_after, "mtpolicyd_reloads_total{result=\"reloaded\"}"), "1");
    daemon.reload(HOST);
    eventually("the port is closed", || {
        TcpStream::connect(loopback(daemon.site.other_port)).is_err().then_some(())
    });
    daemon.reload(&format!("{METRICS}{HOST}"));
    eventually("it is open again", || try_ask(&daemon.site, "GET", "/healthz", ""));
    assert_eq!(value(&page(), rejected), "4");
}

#[test]
fn a_port_in_use_is_logged_and_requests_are_answered() {
    let site = Site::with(&format!("{METRICS}{HOST}"));
    let _in_use = std::net::TcpListener::bind(loopback(site.other_port)).expect("it is free");
    let daemon = site.start();
    daemon.logged("error: no metrics: ");
    assert_eq!(daemon.ask("client_address=192.0.2.1").action(), "dunno");
}

#[test]
fn a_successor_takes_the_port_over() {
    let mut daemon = Daemon::start(&format!("pid_file = \"$DIR/d.pid\"\n{METRICS}{HOST}"));
    let started = |page: &str| value(page, "process_start_time_seconds");
    let before = started(&ask(&daemon.site, "/metrics", "").2);
    signal(daemon.id(), "USR2");
    eventually("the new process answers", || {
        let (_, _, page) = try_ask(&daemon.site, "GET", "/metrics", "")?;
        (started(&page) != before).then_some(())
    });
    daemon.logged("has taken over the ports");
    let pid = fs::read_to_string(daemon.site.path("d.pid")).unwrap();
    let _new = KilledById(pid.trim().parse().unwrap());
    assert!(daemon.wait().success());
    assert!(!daemon.log().contains("no metrics"), "{}", daemon.log());
    assert_eq!(ask(&daemon.site, "/healthz", "").2, "ok\n");
}

#[test]
fn the_command_prints_them_without_a_port() {
    let control = METRICS.split("</Metrics>\n").nth(1).unwrap();
    let daemon = Daemon::start(&format!("{control}{HOST}"));
    daemon.ask("client_address=192.0.2.1");
    let metrics = |arguments: &[&str]| {
        let output = run(
            Command::new(PROGRAM).arg("metrics").args(arguments).arg("-c").arg(daemon.site.config()),
            b"",
        );
        (output.status.code(), output_of(&output))
    };
    let (code, text) = metrics(&["requests"]);
    assert_eq!(code, Some(0));
    let is_row = |line: &str| line.split_whitespace().eq(["inbound", "pass", "1"]);
    assert!(text.starts_with("mtpolicyd_requests_total\n") && text.lines().any(is_row), "{text}");
    assert_eq!(metrics(&["nothing-like-it"]), (Some(1), String::new()));
    let (_, json) = metrics(&["request_seconds", "--format", "json"]);
    let family: serde_json::Value = serde_json::from_str(&json).expect("one object");
    assert_eq!((&family["type"], &family["series"][0]["value"]), (&"histogram".into(), &1.0.into()));
    assert!(metrics(&[]).1.contains("mtpolicyd_build_info"));
}

/// The names of all time series that there can be.
fn known_names() -> BTreeSet<String> {
    let names = FAMILIES.iter().flat_map(|family| {
        let name = family.sample_name();
        match family.kind {
            Type::Histogram => ["_bucket", "_sum", "_count"].map(|ending| format!("{name}{ending}")).to_vec(),
            _ => vec![name],
        }
    });
    names.collect()
}

#[test]
fn the_dashboard_and_the_rules_name_numbers_that_there_are() {
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib");
    let known = known_names();
    for file in ["grafana-dashboard.json", "prometheus-rules.yml"] {
        let text = fs::read_to_string(contrib.join(file)).expect("the file is there");
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words: BTreeSet<_> = text.split(|c| !is_name(c)).collect();
        let named =
            words.into_iter().filter(|word| word.starts_with("mtpolicyd_") || word.starts_with("process_"));
        let named: Vec<_> = named.collect();
        assert!(named.len() > 5, "{file}");
        let unknown: Vec<_> = named.into_iter().filter(|name| !known.contains(*name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    let dashboard = fs::read_to_string(contrib.join("grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("it is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    let rules = contrib.join("prometheus-rules.yml");
    let checked = run(Command::new("promtool").args(["check", "rules"]).arg(rules), b"");
    assert!(checked.status.success(), "{}", output_of(&checked));
}
