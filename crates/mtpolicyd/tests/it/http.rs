//! Services that are asked over HTTP: a real web server that closes, restarts and freezes, encryption, and
//! many requests at once.
//!
//! Knows: `backends::http`, HttpLookup. Must not know: what an answer means.

use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, run};
use crate::support::fake_http::{FakeHttp, Say};
use crate::support::servers::certificates::Certificates;
use crate::support::servers::{Server, nginx};
use crate::support::{PATIENCE, eventually};
use backends::http::{HttpAnswer, HttpService, HttpSettings, Post};
use backends::{BackendError, Call, Failure};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const OK: &str = "location / { return 200 '{}'; }\n";

fn settings(url: String) -> HttpSettings {
    HttpSettings {
        url: url.parse().expect("a URL"),
        socket_path: None,
        token: None,
        tls_ca: None,
        timeout: Duration::from_secs(10),
        max_answer_bytes: 1000,
    }
}

fn service(server: &Server) -> HttpService {
    HttpService::new(settings(format!("http://127.0.0.1:{}/", server.port))).expect("it can be asked")
}

async fn ask(service: &HttpService) -> Result<HttpAnswer, BackendError> {
    let post =
        Post { content_type: "text/plain", accept: "*/*", headers: Vec::new(), body: b"question".to_vec() };
    service.post(post, Call::within(Duration::from_secs(20))).await
}

async fn is_back(service: &HttpService) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = ask(service).await {
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn connections_are_kept_and_replaced_when_the_server_closes_them() {
    let server = nginx::start(None, &format!("keepalive_requests 3;\n{OK}"));
    let service = service(&server);
    for _ in 0..9 {
        assert_eq!(ask(&service).await.unwrap().body, b"{}");
    }
    eventually("three connections with three requests each", || {
        (nginx::connections(&server) == 3).then_some(())
    });
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_fails_nobody() {
    let server = nginx::start(None, &format!("keepalive_timeout 1s;\n{OK}"));
    let service = service(&server);
    for _ in 0..2 {
        assert_eq!(ask(&service).await.unwrap().status, 200);
        sleep(Duration::from_millis(1500)).await;
    }
    // Others close without having said so.
    let hasty = FakeHttp::start(|_| Say::ThenClose(Box::new(Say::json("{}"))));
    let service = HttpService::new(settings(format!("http://{}/", hasty.address()))).unwrap();
    for number in 1..=20 {
        assert_eq!(ask(&service).await.unwrap().body, b"{}");
        eventually("it is closed", || (hasty.closed() == number).then_some(()));
        // This side is told at its next look.
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(hasty.connections(), 20);
}

#[tokio::test]
async fn an_error_is_an_answer_and_a_redirection_is_not_followed() {
    let locations = "location /moved { return 302 /ok; }\nlocation /busy { return 503 busy; }\n\
                     location /nothing { return 204; }\nlocation /old { return 200 old; }\n\
                     location /long { return 200 '$request_id$request_id$request_id'; }\n\
                     location /small { client_max_body_size 1; proxy_pass http://127.0.0.1:1; }\n";
    let server = nginx::start(None, locations);
    for (path, status, body) in
        [("moved", 302, ""), ("busy", 503, ""), ("nothing", 204, ""), ("old", 200, "old"), ("small", 413, "")]
    {
        let url = format!("http://localhost:{}/{path}", server.port);
        let answer = ask(&HttpService::new(settings(url)).unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (status, body.as_bytes()), "{path}");
    }
    let long = settings(format!("http://127.0.0.1:{}/long", server.port));
    let long = HttpService::new(HttpSettings { max_answer_bytes: 95, ..long }).unwrap();
    let error = ask(&long).await.unwrap_err();
    assert_eq!(error.failure, Failure::Refused("the answer is longer than 95 bytes".to_owned()));
}

#[tokio::test]
async fn a_certificate_has_to_be_trusted_and_for_this_server() {
    let certificates = Certificates::new();
    let server = nginx::start_on("127.0.0.2", Some(&certificates), OK);
    let stranger = Certificates::new();
    for (host, authority, refusal) in [
        ("127.0.0.1", &certificates, None),
        ("localhost", &certificates, None),
        ("127.0.0.1", &stranger, Some("certificate")),
        // It is this machine too, but the certificate is not for it.
        ("127.0.0.2", &certificates, Some("not valid for name")),
    ] {
        let tls_ca = Some(authority.authority().display().to_string());
        let url = format!("https://{host}:{}/", server.port);
        let service = HttpService::new(HttpSettings { tls_ca, ..settings(url) }).unwrap();
        match (ask(&service).await, refusal) {
            (Ok(answer), None) => assert_eq!(answer.body, b"{}"),
            (Err(error), Some(refusal)) => {
                assert!(matches!(error.failure, Failure::Down(_)), "{error}");
                assert!(error.to_string().contains(refusal), "{error}");
            }
            (other, _) => panic!("{host}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_started_again_under_load_is_found() {
    let mut server = nginx::start(None, OK);
    let service = Arc::new(service(&server));
    let (ends, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (service, ends, answers) = (service.clone(), ends.clone(), answers.clone());
        clients.spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                match ask(&service).await {
                    Ok(_) => drop(answers.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => assert_ne!(error.failure, Failure::TimedOut),
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
    for _ in 0..3 {
        sleep(Duration::from_millis(200)).await;
        server = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        })
        .await
        .unwrap();
        is_back(&service).await;
    }
    ends.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(answers.load(Ordering::Relaxed) > 20, "{answers:?}");
}

#[tokio::test]
async fn a_frozen_server_costs_one_request_its_time() {
    let server = nginx::start(None, OK);
    let url = format!("http://127.0.0.1:{}/", server.port);
    let timeout = Duration::from_millis(500);
    let service = HttpService::new(HttpSettings { timeout, ..settings(url) }).unwrap();
    is_back(&service).await;
    server.freeze();
    let first = ask(&service).await.unwrap_err().failure;
    assert!(matches!(first, Failure::TimedOut | Failure::Down(_)), "{first}");
    // The trial that follows finds it dead; from then on nobody waits.
    let until = Instant::now() + PATIENCE;
    while !matches!(ask(&service).await.unwrap_err().failure, Failure::Down(_)) {
        assert!(Instant::now() < until, "it is not found dead");
    }
    server.thaw();
    is_back(&service).await;
}

#[tokio::test]
async fn a_service_that_knows_nothing_but_its_questions_is_found_back() {
    let first = AtomicBool::new(true);
    let server = FakeHttp::start(move |asked| {
        let is_slow = asked.method == "POST" && first.swap(false, Ordering::SeqCst);
        if is_slow || asked.method == "HEAD" { Say::Silence } else { Say::json("{}") }
    });
    let url = format!("http://{}/", server.address());
    let settings = HttpSettings { timeout: Duration::from_millis(500), ..settings(url) };
    let service = HttpService::new(settings).unwrap();
    assert_eq!(ask(&service).await.unwrap_err().failure, Failure::TimedOut);
    // Nobody asks until the trial has failed, which so is believed.
    sleep(Duration::from_millis(1500)).await;
    is_back(&service).await;
}

/// A daemon that asks this server.
fn daemon(server: &FakeHttp, options: &str) -> Daemon {
    let mut site = Site::new();
    site.replace("$HTTP", server.address());
    site.configure(&configuration(options));
    site.start()
}

fn configuration(options: &str) -> String {
    format!(
        "port = \"127.0.0.1:$PORT\"\nlog_level = 4\n<VirtualHost $PORT>\nname = incoming\n\
         <Plugin look>\nmodule = HttpLookup\nlog_level = 0\n{options}\n</Plugin>\n</VirtualHost>\n"
    )
}

#[test]
fn requests_that_ask_the_same_share_one_question() {
    let server = FakeHttp::start(|asked| {
        let number = asked.body.split_once("sender-").expect("it is named").1.split('"').next().unwrap();
        let answer = Say::json(format!("{{\"action\": \"hold {number}\"}}"));
        Say::Late(Duration::from_millis(500), Box::new(answer))
    });
    let daemon = daemon(&server, "url = \"http://$HTTP/\"\nattributes = \"sender\"");
    std::thread::scope(|scope| {
        for number in 0..100 {
            let daemon = &daemon;
            scope.spawn(move || {
                let key = number % 5;
                let action = daemon.ask(&format!("instance={number}\nsender=sender-{key}")).action();
                assert_eq!(action, format!("hold {key}"));
            });
        }
    });
    assert_eq!(server.asked().len(), 5);
}

#[test]
fn answers_outlive_a_reload() {
    let server = FakeHttp::start(|_| Say::json("{\"action\": \"hold\"}"));
    let options = "url = \"http://$HTTP/\"\nattributes = \"sender\"";
    let daemon = daemon(&server, options);
    for (more, asked) in [("", 1), ("\nmode = passive", 1), ("\ncache_key = \"sender\"", 2)] {
        daemon.reload(&configuration(&format!("{options}{more}")));
        let expected = if more.contains("passive") { "dunno" } else { "hold" };
        assert_eq!(daemon.ask("instance=1\nsender=a").action(), expected);
        assert_eq!(server.asked().len(), asked, "{more}");
    }
}

#[test]
fn a_question_that_is_given_up_is_asked_by_the_next() {
    let first = AtomicBool::new(true);
    let server = FakeHttp::start(move |_| match first.swap(false, Ordering::SeqCst) {
        true => Say::Silence,
        false => Say::json("{\"action\": \"hold\"}"),
    });
    let daemon = daemon(&server, "url = \"http://$HTTP/\"\ntimeout = 1\non_error = continue");
    assert_eq!(daemon.ask("instance=1\nsender=a").action(), "dunno");
    eventually("the service is asked again", || {
        (daemon.ask("instance=2\nsender=a").action() == "hold").then_some(())
    });
}

#[test]
fn a_silent_service_costs_few_requests_their_time() {
    let server = FakeHttp::start(|_| Say::Silence);
    let daemon = daemon(&server, "url = \"http://$HTTP/\"\ntimeout = 1\non_error = continue");
    let early = Instant::now() + Duration::from_millis(900);
    assert_eq!(daemon.ask("instance=1\nsender=a").action(), "dunno");
    assert!(Instant::now() >= early, "the first one waits");
    daemon.logged(&format!("connection http://{} is down: no answer in time", server.address()));
    daemon.logged(&format!("lookup: http http://{}: a body of ", server.address()));
    let asked = server.asked().len();
    for number in 0..20 {
        assert_eq!(daemon.ask(&format!("instance=2\nsender={number}")).action(), "dunno");
    }
    // One request in five seconds is let through, which a slow machine may come to.
    assert!(server.asked().len() <= asked + 2, "nobody asks a service that is known to be down");
}

#[test]
fn no_secret_reaches_the_log() {
    let server = FakeHttp::start(|asked| match asked.body.contains("bad") {
        true => Say::Status(500),
        false => Say::json("{\"action\": \"hold\", \"acton\": 1, \"score\": 1}"),
    });
    for options in [
        "url = \"http://$HTTP/s3cr3t-path?s3cr3t-query\"\ntoken = s3cr3t-token",
        "url = \"http://user:s3cr3t-word@$HTTP/\"",
    ] {
        let mut daemon = daemon(&server, &format!("{options}\non_error = continue"));
        for sender in ["good", "bad", "good"] {
            let expected = if sender == "bad" { "dunno" } else { "hold" };
            assert_eq!(daemon.ask(&format!("instance=1\nsender={sender}")).action(), expected);
        }
        daemon.logged("the answer has status 500");
        let warning = daemon.logged("which is unknown and ignored");
        assert!(warning.contains("`acton`"), "{warning}");
        assert!(daemon.terminate().success());
        let log = daemon.log();
        assert!(!log.contains("s3cr3t"), "{log}");
        assert_eq!(log.matches("which is unknown and ignored").count(), 1, "{log}");
    }
    let wrong = "url = \"http//user:s3cr3t-word@host/\"\ntoken = s3cr3t-token\ntoken = s3cr3t-token\nkey = x";
    let site = Site::with(&configuration(wrong));
    let checked = run(Command::new(PROGRAM).arg("check").arg(site.config()), b"");
    let said = errors_of(&checked);
    assert!(!checked.status.success() && said.contains("url: ") && said.contains("token"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}
