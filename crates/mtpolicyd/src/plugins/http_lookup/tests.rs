//! `HttpLookup` on the bench, before small services.

use crate::testing::Bench;
use crate::testing::fake_http::{FakeHttp, Say};
use std::time::Duration;

fn text(server: &FakeHttp, options: &str) -> String {
    let url = format!("http://{}/mail?x=1", server.address());
    format!("<Plugin l>\n module = HttpLookup\n url = \"{url}\"\n {options}\n</Plugin>")
}

fn bench(server: &FakeHttp, options: &str) -> Bench {
    Bench::new(&text(server, options))
        .attribute("sender", "a@sender.example")
        .attribute("recipient", "b@rcpt.example")
        .attribute("client_address", "192.0.2.1")
        .attribute("instance", "1")
}

fn always(body: &'static str) -> FakeHttp {
    FakeHttp::start(move |_| Say::json(body))
}

#[test]
fn attributes_go_there_and_action_score_and_settings_come_back() {
    let server = always(r#"{"action": "reject no", "score": 2.5, "user": {"mode": "x", "score": 9}}"#);
    let mut bench = bench(&server, "");
    assert_eq!(bench.run().as_deref(), Some("reject no"));
    assert_eq!(bench.session.score_detail("score"), Some("l=2.5"));
    assert_eq!((bench.session.text("mode"), bench.session.number("score")), (Some("x"), 2.5));
    let asked = server.asked();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].path.as_str()), (1, "POST", "/mail?x=1"));
    let body = r#"{"client_address":"192.0.2.1","recipient":"b@rcpt.example","sender":"a@sender.example"}"#;
    assert_eq!(asked[0].body, body);
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    assert_eq!(asked[0].header("host"), Some(server.address().to_string().as_str()));
    assert_eq!(asked[0].header("authorization"), None);
}

#[test]
fn an_answer_is_used_again_for_what_it_depends_on() {
    let server = always(r#"{"score": 1}"#);
    let mut bench = bench(&server, "cache_key = \"sender\"");
    for (sender, recipient, asked) in [("a", "x", 1), ("a", "y", 1), ("b", "y", 2), ("a", "z", 2)] {
        bench.attribute_again("sender", sender).attribute_again("recipient", recipient).run_fresh();
        assert_eq!(server.asked().len(), asked, "{sender} {recipient}");
        assert_eq!(bench.session.number("score"), 1.0);
    }
}

#[test]
fn an_answer_is_kept_no_longer_than_both_want() {
    for (options, more, asked) in [
        ("cache_ttl = 0", "", 2),
        ("", "Cache-Control: no-store\r\n", 2),
        ("", "Cache-Control: max-age=60\r\n", 1),
        ("cache_ttl = 0", "Cache-Control: max-age=60\r\n", 2),
    ] {
        let server = FakeHttp::start(move |_| Say::JsonWith(more, "{}".to_owned()));
        let mut bench = bench(&server, options);
        assert_eq!((bench.run(), bench.run()), (None, None));
        assert_eq!(server.asked().len(), asked, "{options} {more}");
    }
    let nothing = FakeHttp::start(|_| Say::Status(204));
    let mut kept = bench(&nothing, "");
    assert_eq!((kept.run(), kept.run()), (None, None));
    assert_eq!(nothing.asked().len(), 1, "that there is nothing is kept too");
    let mut bench = bench(&nothing, "cache_ttl = 1");
    assert_eq!(bench.run(), None);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(bench.run(), None);
    assert_eq!(nothing.asked().len(), 3);
}

#[test]
fn a_score_counts_once_per_message_or_recipient() {
    let server = FakeHttp::start(|asked| {
        let score = if asked.body.contains("first") { 0 } else { 3 };
        Say::json(format!("{{\"score\": {score}, \"user\": {{\"points\": {score}}}}}"))
    });
    for (options, expected) in [("", [None, Some("l=3"), None]), ("attributes = sender", [Some("l=3"); 3])] {
        let mut bench = bench(&server, &format!("score_field = other\n {options}"));
        for (recipient, expected) in ["first", "second", "first"].into_iter().zip(expected) {
            for _ in 0..2 {
                bench.attribute_again("recipient", recipient).run();
                assert_eq!(bench.session.score_detail("other"), expected, "{options} {recipient}");
                let points = expected.map_or("0", |_| "3");
                assert_eq!(bench.session.text("points"), Some(points), "{options} {recipient}");
            }
        }
    }
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_value_that_the_service_refuses_lets_no_message_pass() {
    for status in [400, 413, 414, 422, 431] {
        let server = FakeHttp::start(move |_| Say::Status(status));
        for on_error in ["close", "continue", "dunno"] {
            let answer = bench(&server, &format!("on_error = {on_error}")).run();
            assert_eq!(answer.as_deref(), Some(crate::chain::DEFERRED), "{status} {on_error}");
        }
        assert_eq!(bench(&server, "on_bad_request = continue").run(), None);
    }
}

#[test]
fn a_bad_answer_fails_the_plugin_and_nothing_of_it_counts() {
    for say in [
        Say::json(r#"{"score": 3, "user": {"a": "b"}, "action": 5}"#),
        Say::json("<html>Welcome</html>"),
        Say::json(""),
        Say::Status(404),
        Say::Status(302),
        Say::Status(500),
        Say::Close,
        Say::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        Say::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"score\": 3}".to_vec()),
        Say::Raw([&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'x'; 100_000]].concat()),
        Say::json(format!("{{\"action\": \"{}\"}}", "x".repeat(100_000))),
        Say::Raw([&b"HTTP/1.1 200 OK\r\n\r\n{\"action\": \""[..], &[b'x'; 100_000], b"\"}"].concat()),
    ] {
        let shown = format!("{say:.40?}");
        let server = FakeHttp::start(move |_| say.clone());
        let mut failing = bench(&server, "");
        let error = failing.try_run().expect_err(&shown);
        assert!(error.starts_with("plugin l failed: connection http://127.0.0.1:"), "{error}");
        assert!(!error.contains("/mail") && !error.contains("Welcome"), "{error}");
        assert!(failing.session.is_empty(), "{shown}");
        assert_eq!(bench(&server, "on_error = continue").run(), None, "{shown}");
        // A failure is not kept: it was asked twice, and once more by the next.
        assert!(failing.try_run().is_err());
        assert_eq!(server.asked().len(), 3, "{shown}");
    }
}

#[test]
fn chunks_are_an_answer_too_and_the_type_does_not_matter() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n\
                   8\r\n{\"action\r\n8\r\n\": \"OK\"}\r\n0\r\n\r\n";
    let server = FakeHttp::start(|_| Say::Raw(answer.to_vec()));
    assert_eq!(bench(&server, "").run().as_deref(), Some("OK"));
}

#[test]
fn silence_and_a_slow_drip_end_in_time() {
    for say in [Say::Silence, Say::Drip("{\"action\": \"reject\"}".to_owned(), Duration::from_millis(100))] {
        let server = FakeHttp::start(move |_| say.clone());
        let mut bench = bench(&server, "timeout = 1");
        let error = bench.try_run().unwrap_err();
        assert!(error.ends_with("no answer in time"), "{error}");
    }
}

#[test]
fn a_user_decides_whether_it_is_asked_and_obeyed() {
    let server = always(r#"{"action": "reject", "score": 1}"#);
    let mut bench = bench(&server, "uc_enabled = e\nuc_mode = m");
    bench.session.set_user("e", "off");
    assert_eq!((bench.run(), server.asked().len()), (None, 0));
    bench.session.set_user("e", "on");
    bench.session.set_user("m", "passive");
    assert_eq!((bench.run(), bench.session.number("score")), (None, 1.0));
    bench.session.set_user("m", "active");
    assert_eq!(bench.run().as_deref(), Some("reject"));
}

#[test]
fn a_token_or_a_user_in_the_url_is_sent() {
    let server = always("{}");
    assert_eq!(bench(&server, "token = \"se cret\"").run(), None);
    assert_eq!(server.asked()[0].header("authorization"), Some("Bearer se cret"));
    let url = text(&server, "").replace("http://", "http://me:se%20cret@");
    assert_eq!(Bench::new(&url).run(), None);
    assert_eq!(server.asked()[1].header("authorization"), Some("Basic bWU6c2UgY3JldA=="));
}

#[test]
fn the_host_of_a_socket_is_only_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"action\":\"ok\"}").unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    });
    let options = format!("url = \"http://lookup.test/x\"\n socket_path = \"{}\"", path.display());
    let mut bench = Bench::new(&format!("<Plugin l>\n module = HttpLookup\n {options}\n</Plugin>"));
    assert_eq!(bench.run().as_deref(), Some("ok"));
    let asked = server.join().unwrap();
    assert!(asked.starts_with("POST /x HTTP/1.1\r\n") && asked.contains("host: lookup.test\r\n"), "{asked}");
}

#[test]
fn mistakes_are_found_when_the_file_is_read() {
    let block = |options: &str| format!("<Plugin l>\n module = HttpLookup\n{options}\n</Plugin>");
    let good = "url = \"http://127.0.0.1:1/\"\n";
    for (options, mistake) in [
        (String::new(), "1:1 Plugin l needs the option `url`"),
        ("url = \"lookup.example\"".to_owned(), "3:7 url: a URL begins with http:// or https://"),
        ("url = \"ftp://u:pw@host/\"".to_owned(), "3:7 url: a URL begins with http:// or https://"),
        (format!("{good}attributes = \",\""), "4:14 attributes: there is no name"),
        (format!("{good}token = \"\""), "4:9 token: it is empty"),
        (format!("{good}timeout = 0"), "4:11 timeout: `0` is not a valid time"),
        (
            "url = \"http://u:pw@localhost/\"\ntoken = x".to_owned(),
            "4:9 token: there is a user in the URL already",
        ),
        ("url = \"https://localhost/\"\ntls_ca = /no/such/file".to_owned(), "4:10 tls_ca: /no/such/file: "),
    ] {
        let mistakes = Bench::mistakes(&block(&options));
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(mistake), "{options}: {mistakes:?}");
        assert!(!mistakes[0].contains("pw"), "{mistakes:?}");
    }
    for (options, warning) in [
        (format!("{good}attributes = \"sender, recepient\""), "did you mean `recipient`?"),
        (format!("{good}cache_key = \"helo\""), "4:13 cache_key: Postfix sends no attribute `helo`"),
        (format!("{good}attributes = \"*\""), "name a `cache_key`"),
        (format!("{good}tls_ca = /no/such/file"), "no effect without `https://`"),
        ("url = \"http://lookup.example/\"\ntoken = x".to_owned(), "token: the secret goes over the network"),
        ("url = \"http://u:pw@lookup.example/\"".to_owned(), "3:7 url: the secret goes over the network"),
    ] {
        let warnings = Bench::warnings(&block(&options));
        assert!(warnings.len() == 1 && warnings[0].contains(warning), "{options}: {warnings:?}");
    }
    for fine in ["attributes = \"*\"\ncache_ttl = 0", "attributes = \"*\"\ncache_key = sender", "token = x"] {
        assert_eq!(Bench::warnings(&block(&format!("{good}{fine}"))), Vec::<String>::new());
    }
}
