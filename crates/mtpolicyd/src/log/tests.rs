//! What the log writes, and where.
//!
//! Knows: events and files. Must not know: who logs.

use super::*;
use decisions::DecisionId;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

fn settings(path: &Path, level: u8, format: Format) -> LogSettings {
    LogSettings { level, internals: true, destination: Destination::File(path.to_owned()), format }
}

/// What `work` logs to a file; without the times if they are in front.
fn logged(level: u8, format: Format, work: impl FnOnce(&LogHandle)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (subscriber, handle) = open(&settings(&path, level, format)).unwrap().subscriber().unwrap();
    tracing::subscriber::with_default(subscriber, || work(&handle));
    assert!(handle.flush());
    let text = std::fs::read_to_string(&path).unwrap();
    if format == Format::Json {
        return text;
    }
    let without_time = |line: &str| {
        let (time, line) = line.split_once(' ').unwrap();
        assert!(time.len() == "2026-11-25T02:01:46.123456Z".len() && time.ends_with('Z'), "{time}");
        line.to_owned() + "\n"
    };
    text.lines().map(without_time).collect()
}

const RECORD: RequestRecord<'_> = RequestRecord {
    host: "test",
    instance: b"abc.1",
    request_type: b"smtpd_access_policy",
    elapsed: Duration::from_micros(12_345),
    plugin: Some("one"),
    result: "reject it",
    envelope: Envelope {
        client: None,
        sender: None,
        recipient: None,
        login: None,
        queue_id: None,
        addresses: LogAddresses::Full,
    },
    id: None,
};

const ENVELOPE: Envelope<'_> = Envelope {
    client: Some(b"192.0.2.1"),
    sender: Some(b"alice@example.org"),
    recipient: Some(b"bob@example.net"),
    login: Some(b"alice"),
    queue_id: Some(b""),
    addresses: LogAddresses::Full,
};

fn logged_lines(record: &RequestRecord<'_>) -> String {
    logged(1, Format::Text, |_| request(record))
}

#[test]
fn the_line_of_a_request_names_the_message() {
    let logged = |envelope: Envelope<'_>| {
        let text = logged(1, Format::Text, |_| request(&RequestRecord { envelope, ..RECORD }));
        text.trim_end().split_once(", result=reject it").unwrap().1.to_owned()
    };
    assert_eq!(
        logged(ENVELOPE),
        ", client=192.0.2.1, sender=alice@example.org, recipient=bob@example.net, login=alice"
    );
    let queued =
        Envelope { sender: Some(b""), recipient: None, login: None, queue_id: Some(b"4Abc"), ..ENVELOPE };
    assert_eq!(logged(queued), ", client=192.0.2.1, sender=<>, queue_id=4Abc");
    let domains = Envelope { addresses: LogAddresses::Domain, ..ENVELOPE };
    assert_eq!(logged(domains), ", client=192.0.2.1, sender=@example.org, recipient=@example.net");
    assert_eq!(logged(Envelope { addresses: LogAddresses::Off, ..ENVELOPE }), ", client=192.0.2.1");
    assert_eq!(logged(Envelope::default()), "");
    let id = Some(DecisionId::from_number(1));
    let text = logged_lines(&RequestRecord { id, envelope: ENVELOPE, ..RECORD });
    assert!(text.ends_with(", login=alice, id=00000-00001\n"), "{text}");
    let forged =
        Envelope { sender: Some(b"\"a, recipient=b\\\"@c"), recipient: None, login: None, ..ENVELOPE };
    assert_eq!(logged(forged), ", client=192.0.2.1, sender=\"\\x22a, recipient=b\\\\\\x22@c\"");
}

#[test]
fn so_do_its_fields_in_json() {
    let text = logged(1, Format::Json, |_| request(&RequestRecord { envelope: ENVELOPE, ..RECORD }));
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fields = ["client", "sender", "recipient", "login"].map(|name| line[name].as_str().unwrap());
    assert_eq!(fields, ["192.0.2.1", "alice@example.org", "bob@example.net", "alice"]);
    assert!(line.get("queue_id").is_none());
}

#[test]
fn notes_name_their_request_and_plugins_have_their_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let work = |level| {
        logged(level, Format::Text, |_| {
            runtime.block_on(within(
                "test",
                b"a.1",
                pin!(async {
                    let outer = Stopwatch::start("outer", 0);
                    let inner = Stopwatch::start("inner", 1);
                    let mut label = String::new();
                    write_label(&mut label).unwrap();
                    tracing::info!("{label}inner: found");
                    inner.stop();
                    outer.stop();
                    // It is cut off.
                    Stopwatch::start("last", 0);
                }),
            ));
        })
    };
    assert_eq!(work(3), "test: instance=a.1, inner: found\n");
    let text = work(4);
    let times = text.lines().nth(1).unwrap();
    assert!(times.starts_with("test: instance=a.1, times: outer 0."), "{times}");
    assert!(
        times.contains(" ms, outer > inner 0.") && times.contains(" ms, last not finished, in all "),
        "{times}"
    );
}

#[test]
fn a_request_leaves_the_line_of_the_original() {
    let nobody = RequestRecord { plugin: None, result: "", ..RECORD };
    let text = logged(1, Format::Text, |_| [RECORD, nobody].iter().for_each(request));
    let expected = [
        "test: instance=abc.1, type=smtpd_access_policy, t=12ms, plugin=one, result=reject it",
        "test: instance=abc.1, type=smtpd_access_policy, t=12ms, plugin=, result=",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(logged(0, Format::Text, |_| request(&RECORD)), "");
}

#[test]
fn a_request_as_json_has_types() {
    let nobody = RequestRecord { plugin: None, instance: b"a\"\xff\n", ..RECORD };
    let text = logged(1, Format::Json, |_| [RECORD, nobody].iter().for_each(request));
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["event"], "request");
    assert_eq!(lines[0]["host"], "test");
    assert_eq!(lines[0]["elapsed_ms"], 12.345);
    assert_eq!(lines[0]["plugin"], "one");
    assert_eq!(lines[1]["plugin"], serde_json::Value::Null);
    assert_eq!(lines[1]["instance"], "a\"\\xff\n");
    assert!(text.starts_with("{\"time\":\"2"), "{text}");
}

#[test]
fn no_sender_forges_a_line() {
    let evil = b"a\r\nFORGED: instance=1\x1b[2J\x00\xff\xc2\x85\\n";
    let forged = RequestRecord { instance: evil, request_type: evil, ..RECORD };
    let work = |_: &LogHandle| {
        request(&forged);
        let text = String::from_utf8_lossy(evil);
        tracing::warn!("broken request from {text}");
        tracing::warn!(sender = &*text, sender_shown = %text, sender_bytes = &evil[..], "trouble");
        tracing::warn!("{}", escape(evil));
    };
    for format in [Format::Text, Format::Json] {
        let text = logged(4, format, work);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
    }
    let last = "warning: a\\x0d\\x0aFORGED: instance=1\\x1b[2J\\x00\\xff\\xc2\\x85\\\\n\n";
    assert!(logged(4, Format::Text, work).ends_with(last));
}

#[test]
fn a_line_is_bounded() {
    let long = "x".repeat(1 << 20);
    let text = logged(4, Format::Text, |_| {
        tracing::info!("{long}");
        request(&RequestRecord { result: &long, instance: long.as_bytes(), ..RECORD });
    });
    assert!(text.lines().all(|line| line.len() < 8000 && line.ends_with("...")));
}

#[test]
fn levels_are_those_of_the_original_and_can_change() {
    let all = || {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("n");
        tracing::debug!(count = 3, "i");
        tracing::trace!("d");
    };
    let lines = ["error: e\n", "warning: w\n", "n\n", "i count=3\n", "d\n"];
    for level in 0..=MAX_LEVEL {
        assert_eq!(logged(level, Format::Text, |_| all()), lines[..=usize::from(level)].concat());
    }
    let text = logged(0, Format::Text, |handle| {
        all();
        handle.set_level(1, false);
        all();
    });
    assert_eq!(text, "error: e\nerror: e\nwarning: w\n");
}

#[test]
fn what_libraries_tell_is_for_debugging() {
    let library = || {
        tracing::event!(target: "rustls::conn", Level::WARN, "no answer");
        tracing::event!(target: "rustls::conn", Level::TRACE, "noise");
    };
    assert_eq!(logged(3, Format::Text, |_| library()), "");
    assert_eq!(logged(4, Format::Text, |_| library()), "warning: no answer\n");
    let switched_off = |handle: &LogHandle| {
        handle.set_level(4, false);
        library();
    };
    assert_eq!(logged(4, Format::Text, switched_off), "");
}

#[test]
fn what_the_clients_of_servers_tell_is_for_everybody() {
    let down = |_: &LogHandle| backends::messages::down("db", "refused");
    assert_eq!(logged(0, Format::Text, down), "error: connection db is down: refused\n");
}

#[test]
fn the_file_is_opened_again_after_logrotate() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
    let (subscriber, handle) = open(&settings(&path, 2, Format::Text)).unwrap().subscriber().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("before");
        assert!(handle.flush());
        std::fs::rename(&path, &moved).unwrap();
        handle.reopen();
        assert!(handle.flush());
        tracing::info!("after");
        assert!(handle.flush());
        assert!(std::fs::read_to_string(&moved).unwrap().ends_with("before\n"));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("after\n"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        handle.reopen();
        assert!(handle.flush());
        std::fs::remove_dir(&path).unwrap();
    });
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(&settings(&directory.path().join("none/log"), 2, Format::Text)).unwrap_err();
    assert!(error.to_string().contains("none/log: No such file or directory"), "{error}");
}

#[test]
fn what_syslog_loses_is_counted_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let destination = Destination::Syslog(path.clone());
    let settings = LogSettings { level: 2, internals: true, destination, format: Format::Text };
    let (subscriber, handle) = open(&settings).unwrap().subscriber().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("one");
        tracing::info!("two");
        assert!(handle.flush());
        let daemon = UnixDatagram::bind(&path).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        handle.reopen();
        assert!(handle.flush());
        tracing::info!("three");
        let mut texts = Vec::new();
        let mut buffer = [0; 1024];
        while texts.len() < 2 {
            let length = daemon.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            texts.push(text.split_once(": ").unwrap().1.to_owned());
        }
        texts.sort();
        assert_eq!(
            texts,
            ["three", "warning: 2 log lines were lost: the log took them too slowly or not at all"]
        );
    });
}

#[test]
fn many_threads_lose_nothing_that_fits() {
    let text = logged(2, Format::Text, |_| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let dispatch = dispatch.clone();
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        (0..500).for_each(|line| tracing::info!("{thread} {line}"));
                    });
                });
            }
        });
    });
    for thread in ["0", "1", "2", "3"] {
        let of_thread = text.lines().filter_map(|line| line.strip_prefix(thread)?.trim().parse::<u32>().ok());
        assert!(of_thread.eq(0..500), "in order and complete");
    }
}
