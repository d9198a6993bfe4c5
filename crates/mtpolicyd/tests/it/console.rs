//! The console, from outside: who gets in and how, what is refused, what the pages look like as text.
//!
//! Knows: HTTP as bytes, the commands. Must not know: the daemon's code.

use crate::support::browser::{Browser, Page, Place};
use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, loopback, output_of, run};
use crate::support::{eventually, is_root_or_leaves_out};
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output};

/// A console at the second port, a control socket, and a journal for the audit.
const CONSOLE: &str = "<Console>\n  listen = \"127.0.0.1:$OTHER\"\n  tokens = \"$DIR/tokens\"\n</Console>\n\
    <Control>\n  socket = \"$DIR/control.sock\"\n</Control>\n\
    <Journal>\n  file = \"$DIR/journal.db\"\n</Journal>\n";

/// A chain that rejects one client and lets the others through.
const HOST: &str = "port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\n  name = \"inbound\"\n\
    <Plugin bad-client>\n    module = Condition\n    key = client_address\n    match = 192.0.2.66\n\
    <Plugin no>\n      module = Action\n      action = \"reject no, thanks\"\n    </Plugin>\n  </Plugin>\n\
    <Plugin count>\n    module = SetField\n    key = x\n    value = 1\n  </Plugin>\n</VirtualHost>\n";

fn start() -> Daemon {
    Daemon::start(&format!("{CONSOLE}{HOST}"))
}

fn browser(site: &Site) -> Browser {
    Browser::at(Place::Tcp(loopback(site.other_port)))
}

fn command(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("-c").arg(site.config());
    run(&mut command, b"")
}

/// What a command prints, which has to succeed.
#[track_caller]
fn printed(site: &Site, arguments: &[&str]) -> String {
    let output = command(site, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors_of(&output));
    output_of(&output).trim().to_owned()
}

/// The path of a new link.
#[track_caller]
fn link(site: &Site, arguments: &[&str]) -> String {
    let url = printed(site, &[&["console", "open"], arguments].concat());
    let path = url.strip_prefix(&format!("http://127.0.0.1:{}", site.other_port));
    path.unwrap_or_else(|| panic!("{url}")).to_owned()
}

/// A browser that is signed in as root.
#[track_caller]
fn signed_in(site: &Site) -> Browser {
    let mut browser = browser(site);
    let page = browser.follow(&link(site, &[]));
    assert_eq!((page.status, page.header("location")), (303, "../"), "{page:?}");
    browser
}

/// The notes of the audit, once one of them has these words.
#[track_caller]
fn audited(site: &Site, words: &str) -> String {
    eventually(&format!("`{words}` is in the audit"), || {
        let notes = output_of(&command(site, &["audit"]));
        notes.contains(words).then_some(notes)
    })
}

#[test]
fn a_link_signs_in_once() {
    let daemon = start();
    let site = &daemon.site;
    let mut browser = browser(site);
    assert_eq!(browser.get("/decisions").header("location"), "./login?to=decisions");
    assert_eq!(browser.get("/").header("location"), "./login");
    let link_path = link(site, &[]);
    let page = browser.follow(&link_path);
    let cookie = page.header("set-cookie");
    for word in ["mtpolicyd=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{word}: {cookie}");
    }
    assert_eq!(browser.get("/decisions").status, 200);
    let again = self::browser(site).get(&link_path);
    assert_eq!((again.status, again.header("set-cookie")), (403, ""));
    let mut other = self::browser(site);
    other.cookie = Some(format!("mtpolicyd={}", "0".repeat(64)));
    assert_eq!(other.get("/decisions").status, 303);
    let form = browser.get("/decisions").form_token();
    let page = browser.post("/logout", &format!("form={form}"));
    assert_eq!((page.status, page.header("location")), (303, "./login"));
    assert_eq!(browser.get("/decisions").status, 303);
    let notes = audited(site, "signed out of the console");
    for words in
        ["made a link to the console, level admin", "(console)  signed in to the console from 127.0.0.1"]
    {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    assert!(daemon.log().contains("signed in from 127.0.0.1, level admin"), "{}", daemon.log());
}

#[test]
fn of_two_who_follow_a_link_at_once_one_is_signed_in() {
    let daemon = start();
    let link = link(&daemon.site, &[]);
    let browser = browser(&daemon.site);
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..4).map(|_| scope.spawn(|| browser.get(&link).status)).collect();
        tries.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(303), count(403)), (1, 3), "{statuses:?}");
}

#[test]
fn a_token_signs_in_until_it_is_removed() {
    let daemon = start();
    let site = &daemon.site;
    let token = printed(site, &["console", "token", "add", "alice", "--level", "read"]);
    assert!(token.len() >= 64 && !fs::read_to_string(site.path("tokens")).unwrap().contains(&token));
    let mut browser = browser(site);
    let page = browser.post("/login", &format!("token={token}&to=decisions%3Fsince%3D1d"));
    assert_eq!((page.status, page.header("location")), (303, "./decisions?since=1d"));
    browser.keep_cookie(&page);
    let page = browser.get("/decisions");
    assert!(page.status == 200 && page.body.contains("alice") && page.body.contains(">read<"), "{page:?}");
    let list = printed(site, &["console", "token", "list"]);
    assert!(list.starts_with("alice  read  since "), "{list}");
    let output = command(site, &["console", "token", "add", "alice", "--level", "read"]);
    assert!(output.status.code() == Some(2) && errors_of(&output).contains("a token `alice` already"));
    assert_eq!(printed(site, &["console", "token", "remove", "alice"]), "token alice removed");
    assert_eq!(browser.get("/decisions").status, 303, "whoever used it is signed out");
    assert_eq!(browser.post("/login", &format!("token={token}")).status, 403);
    assert_eq!(command(site, &["console", "token", "list"]).status.code(), Some(1));
    audited(site, "removed token alice of the console");
}

#[test]
fn a_daemon_that_can_not_keep_tokens_says_so() {
    let text = CONSOLE.replace("$DIR/tokens", "$DIR/nowhere/tokens");
    let daemon = Daemon::start(&format!("{text}{HOST}"));
    let output = command(&daemon.site, &["console", "token", "add", "alice", "--level", "read"]);
    let said = errors_of(&output);
    assert!(output.status.code() == Some(2) && said.contains("the tokens can't be kept in"), "{said}");
    signed_in(&daemon.site);
    daemon.reload(
        HOST.replace("port =", "<Control>\n socket = \"$DIR/control.sock\"\n</Control>\nport =").as_str(),
    );
    let output = command(&daemon.site, &["console", "open"]);
    assert!(errors_of(&output).contains("no block <Console>"), "{}", errors_of(&output));
    assert!(browser(&daemon.site).try_send("GET", "/login", "", "").is_none(), "its port is closed");
    daemon.reload(&format!("{CONSOLE}{HOST}"));
    assert_eq!(browser(&daemon.site).get("/login").status, 200, "and open again");
}

#[test]
fn whoever_fails_five_times_has_to_wait() {
    let daemon = start();
    let token = printed(&daemon.site, &["console", "token", "add", "bob", "--level", "read"]);
    let browser = browser(&daemon.site);
    for _ in 0..5 {
        assert_eq!(browser.post("/login", "token=guessed").status, 403);
    }
    assert_eq!(browser.post("/login", "token=guessed").status, 429);
    assert_eq!(
        browser.post("/login", &format!("token={token}")).status,
        429,
        "the right one has to wait, too"
    );
    assert_eq!(browser.get(&link(&daemon.site, &[])).status, 429);
    audited(&daemon.site, "was refused by the console");
}

#[test]
fn what_comes_from_elsewhere_is_refused() {
    let daemon = start();
    let signed_in = signed_in(&daemon.site);
    let form = format!("form={}", signed_in.get("/decisions").form_token());
    let own = format!("http://127.0.0.1:{}", daemon.site.other_port);
    let foreign_host = Browser { host: "evil.test".to_owned(), ..signed_in.clone() };
    assert_eq!(foreign_host.get("/decisions").status, 403);
    assert_eq!(foreign_host.get("/login").status, 403);
    let localhost = Browser { host: format!("LocalHost:{}", daemon.site.other_port), ..signed_in.clone() };
    assert_eq!(localhost.get("/decisions").status, 200);
    for origin in ["", "Origin: null\r\n", "Origin: http://evil.test\r\n", "Origin: https://127.0.0.1:1\r\n"]
    {
        assert_eq!(signed_in.send("POST", "/logout", origin, &form).status, 403, "{origin}");
    }
    let cross_site = format!("Origin: {own}\r\nSec-Fetch-Site: cross-site\r\n");
    assert_eq!(signed_in.send("POST", "/logout", &cross_site, &form).status, 403);
    for changing in ["/logout", "/theme"] {
        let page = signed_in.get(changing);
        assert_eq!((page.status, page.header("allow")), (405, "POST"), "{changing}");
        assert_eq!(signed_in.post(changing, "").status, 403, "without the token of a form");
        assert_eq!(signed_in.post(changing, "form=0123").status, 403);
    }
    for forged in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "X-Forwarded-Host: mx.example.org\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "Remote-User: root\r\n",
    ] {
        assert_eq!(signed_in.with(forged).get("/decisions").status, 400, "{forged}");
    }
    let twice = format!("Host: 127.0.0.1:{}\r\n", daemon.site.other_port);
    assert_eq!(signed_in.with(&twice).get("/decisions").status, 400);
    let long = format!("form={}", "x".repeat(65 << 10));
    assert_eq!(signed_in.post("/theme", &long).status, 413);
    assert_eq!(signed_in.get("/decisions").status, 200, "nobody was signed out");
    let preflight = "Origin: http://evil.test\r\nAccess-Control-Request-Method: POST\r\n";
    let page = signed_in.send("OPTIONS", "/logout", preflight, "");
    assert!(page.status == 405 && !page.head.contains("access-control"), "{page:?}");
}

#[test]
fn every_answer_is_guarded() {
    let daemon = start();
    let signed_in = signed_in(&daemon.site);
    let decisions = signed_in.get("/decisions");
    let style = decisions.body.split("stylesheet\" href=\".").nth(1).unwrap().split('"').next().unwrap();
    for path in ["/decisions", "/login", "/nowhere", "/decisions/9F3KQ-2M7TX", "/decisions.csv", style] {
        let page = signed_in.get(path);
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(page.header(name), value, "{path}");
        }
        let cached = page.header("cache-control");
        assert_eq!(cached.contains("immutable"), path == style, "{path}: {cached}");
    }
    let known = format!("If-None-Match: {}\r\n", signed_in.get(style).header("etag"));
    assert_eq!(signed_in.with(&known).get(style).status, 304);
    assert_eq!(signed_in.get("/decisions/9F3KQ-2M7TX").status, 404);
    assert_eq!(signed_in.get("/decisions/nonsense").status, 400);
}

/// What every page has, whatever it shows.
#[track_caller]
fn is_well_formed(page: &Page) {
    let body = &page.body;
    assert_eq!(body.matches("<h1").count(), 1, "{body}");
    for (open, close) in
        [("<table", "</table>"), ("<form", "</form>"), ("<tr", "</tr>"), ("<section", "</section>")]
    {
        assert_eq!(body.matches(open).count(), body.matches(close).count(), "{open}: {body}");
    }
    assert!(body.contains("class=\"skip\" href=\"#main\"") && body.contains("<html lang=\"en\""));
    for inline in [" style=", "<style", "onload=\"", "javascript:", "<script>"] {
        assert!(!body.contains(inline), "{inline}: {body}");
    }
    let ids: Vec<_> = body.split("<input id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for id in ids {
        assert!(body.contains(&format!("<label for=\"{id}\"")), "{id} has no label");
    }
    assert!(!body.contains('\u{202e}') && !body.contains('\u{1b}'));
}

#[test]
fn what_strangers_send_is_shown_and_does_nothing() {
    let daemon = start();
    let helo = "<script>alert(1)</script>\u{202e}\u{1b}[2J\" onload=\"x";
    daemon.ask(&format!(
        "client_address=192.0.2.66\nhelo_name={helo}{}\nsender==cmd|calc@x.test\nrecipient=<b>@y.test\n\
         instance=a<b>.1\nqueue_id=&amp;",
        "x".repeat(2000)
    ));
    let browser = signed_in(&daemon.site);
    let list = eventually("the decision is kept", || {
        let page = browser.get("/decisions?outcome=reject");
        page.body.contains("=cmd|calc@x.test").then_some(page)
    });
    is_well_formed(&list);
    assert!(list.body.contains("&lt;b&gt;@y.test"), "{}", list.body);
    let path = list.body.split("scope=\"row\"><a href=\"").nth(1).unwrap().split('"').next().unwrap();
    let one = browser.get(&format!("/{path}"));
    assert_eq!(one.status, 200, "{path}");
    is_well_formed(&one);
    for words in [
        "&lt;script&gt;alert(1)&lt;/script&gt;\\xe2\\x80\\xae\\x1b[2J&quot; onload=&quot;x",
        "reject no, thanks",
        "bad-client",
        "mtpolicyd.conf:",
        "decisions?instance=a%3Cb%3E.1",
    ] {
        assert!(one.body.contains(words), "{words}: {}", one.body);
    }
    let csv = browser.get("/decisions.csv?outcome=reject").body;
    assert!(csv.contains(",'=cmd|calc@x.test,") || csv.contains(",\"'=cmd|calc@x.test\","), "{csv}");
    let json: serde_json::Value =
        serde_json::from_str(&browser.get("/decisions.json?outcome=reject").body).unwrap();
    assert_eq!(json["decisions"][0]["request"]["sender"], "=cmd|calc@x.test");
    is_well_formed(&browser.get("/decisions?from=%3Cscript%3E%22&client=nonsense"));
    let found = browser.get("/find?q=%3Cscript%3E%0d%0aX:%20y");
    assert!(found.status == 303 && !found.head.contains("\nx:"), "{}", found.head);
    audited(&daemon.site, "looked at decision");
}

/// Reads a stream byte by byte until it has said these words.
fn read_until(stream: &mut impl Read, words: &str) {
    let mut said = String::new();
    while !said.ends_with(words) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the stream goes on");
        said.push(char::from(byte[0]));
    }
}

#[test]
fn the_overview_counts_what_was_decided() {
    let daemon = start();
    for last in [66, 66, 67] {
        daemon.ask(&format!("client_address=192.0.2.{last}\nsender=a@b.test\nrecipient=c@d.test"));
    }
    let browser = signed_in(&daemon.site);
    let page = eventually("all are counted", || {
        let page = browser.get("/");
        let is_whole =
            page.body.contains("reject <strong>2</strong>") && page.body.contains("pass <strong>1</strong>");
        is_whole.then_some(page)
    });
    is_well_formed(&page);
    assert_eq!(page.body.matches("<svg class=\"bars\"").count(), 1);
    assert!(page.body.contains("decisions?plugin=inbound%2Fbad-client%2Fno"), "{}", page.body);
    assert!(page.body.contains("Nothing.") && page.body.contains("asks no list"), "{}", page.body);
    let mut stream = browser.connect().unwrap();
    stream.write_all(browser.request("GET", "/live", "", "").as_bytes()).unwrap();
    read_until(&mut stream, ": watching");
    daemon.ask("client_address=192.0.2.66\nsender=live@b.test");
    read_until(&mut stream, "live@b.test");
}

#[test]
fn decisions_are_read_page_by_page_and_without_scripts() {
    let daemon = start();
    let mut client = daemon.connect();
    for number in 0..120 {
        client.ask(&format!("client_address=192.0.2.1\nsender=s{number}@x.test\nrecipient=r@y.test"));
    }
    let browser = signed_in(&daemon.site);
    let mut next = "/decisions?client=192.0.2.1&from=&outcome=".to_owned();
    eventually("all are kept", || {
        browser.get("/decisions?from=s119@x.test").body.contains(">s119@x.test<").then_some(())
    });
    let (mut senders, mut pages) = (Vec::new(), 0);
    loop {
        let page = browser.get(&next);
        is_well_formed(&page);
        let rows = page.body.split("from=s").skip(1).filter_map(|rest| rest.split("%40").next());
        senders.extend(rows.map(str::to_owned));
        pages += 1;
        let Some(more) = page.body.split("<p class=\"more\"><a class=\"button\" href=\"").nth(1) else {
            break;
        };
        next = format!("/{}", more.split('"').next().unwrap().replace("&amp;", "&"));
    }
    let expected: Vec<_> = (0..120).rev().map(|number| number.to_string()).collect();
    assert_eq!((senders, pages), (expected, 3));
}

#[test]
fn the_network_is_served_with_tls_only() {
    for address in ["0.0.0.0", "[::]", "192.0.2.1"] {
        let text = CONSOLE.replace("127.0.0.1:$OTHER", &format!("{address}:$OTHER"));
        let site = Site::with(&format!("{text}{HOST}"));
        let output = run(Command::new(PROGRAM).arg("check").arg(site.config()), b"");
        let said = output_of(&output) + &errors_of(&output);
        assert!(!output.status.success() && said.contains("mtpolicyd.conf:2"), "{said}");
        assert!(said.contains("the console needs TLS"), "{said}");
        let output = site.run(&["-f"]);
        assert!(!output.status.success() && errors_of(&output).contains("the console needs TLS"));
    }
}

#[test]
fn with_a_certificate_it_speaks_https_only() {
    let site = Site::new();
    let (certificate, key) = (site.path("cert.pem"), site.path("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    assert!(run(&mut openssl, b"").status.success());
    let files = "\"\n  tls_cert = \"$DIR/cert.pem\"\n  tls_key = \"$DIR/key.pem\"\n  tokens";
    site.configure(&format!(
        "{}{HOST}",
        CONSOLE.replace("\"\n  tokens", files).replace("127.0.0.1:$OTHER", "0.0.0.0:$OTHER")
    ));
    let daemon = site.start();
    let url = printed(&daemon.site, &["console", "open"]).replace("0.0.0.0", "localhost");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--include", "--max-time", "30", "--cacert"]).arg(&certificate).arg(&url);
    let answer = output_of(&run(&mut curl, b""));
    assert!(url.starts_with("https://") && answer.starts_with("HTTP/1.1 303"), "{url}: {answer}");
    assert!(answer.contains("set-cookie: __Host-mtpolicyd=") && answer.contains("; Secure"), "{answer}");
    assert!(browser(&daemon.site).try_send("GET", "/login", "", "").is_none(), "no HTTP without TLS");
    // A certificate that can't be used leaves Postfix served.
    fs::write(daemon.site.path("cert.pem"), "nonsense").unwrap();
    let mut daemon = daemon;
    daemon.terminate();
    let daemon = daemon.into_site().start();
    assert!(daemon.logged("no console: ").contains("no certificate in it"), "{}", daemon.log());
    assert_eq!(daemon.ask("client_address=192.0.2.1").action(), "dunno");
}

#[test]
fn a_web_server_in_front_signs_people_in() {
    let users = "user_header = X-Remote-User\n  read_users = \"*\"\n  change_users = bob\n";
    for (listen, more) in [("$DIR/console.sock", ""), ("127.0.0.1:$OTHER", "trusted_proxy = 127.0.0.1\n  ")] {
        let text = CONSOLE
            .replace("127.0.0.1:$OTHER", listen)
            .replace("  tokens", &format!("  {more}{users}  tokens"));
        let daemon = Daemon::start(&format!("{text}{HOST}"));
        let place = match more {
            "" => Place::Unix(daemon.site.path("console.sock")),
            _ => Place::Tcp(loopback(daemon.site.other_port)),
        };
        let proxy = Browser::at(place)
            .with("X-Forwarded-For: 192.0.2.99, 198.51.100.7\r\nX-Forwarded-Proto: https\r\n");
        assert_eq!(proxy.get("/decisions").status, 303, "nobody was signed in");
        let bob = proxy.with("X-Remote-User: bob\r\n");
        let page = bob.get("/decisions");
        assert!(
            page.status == 200 && page.body.contains(">change<") && !page.body.contains("Sign out"),
            "{page:?}"
        );
        assert!(proxy.with("X-Remote-User: carol\r\n").get("/decisions").body.contains(">read<"));
        assert_eq!(proxy.with("X-Remote-User: a\r\nX-Remote-User: b\r\n").get("/decisions").status, 400);
        // Its forms come from pages that the browser has by HTTPS.
        let form = format!("form={}&theme=dark&to=decisions", page.form_token());
        assert_eq!(bob.post("/theme", &form).status, 403);
        let origin = format!("Origin: https://{}\r\n", bob.host);
        let page = bob.send("POST", "/theme", &origin, &form);
        assert!(page.status == 303 && page.header("set-cookie").contains("mtpolicyd-theme=dark"), "{page:?}");
        let carol = proxy.with("X-Remote-User: carol\r\n");
        assert_eq!(carol.send("POST", "/theme", &origin, &form).status, 403, "that is bob's form");
        assert_eq!(proxy.send("POST", "/login", &origin, "token=x").status, 403);
        daemon.logged("console: sign-in refused for 198.51.100.7");
    }
}

#[test]
fn many_that_say_or_read_nothing_change_nothing() {
    let daemon = start();
    let browser = signed_in(&daemon.site);
    let idle: Vec<_> = (0..100).map(|_| browser.connect()).collect();
    let mut slow: Vec<_> = (0..40).filter_map(|_| browser.connect()).collect();
    for stream in &mut slow {
        // Some were closed for others already.
        let _ = stream.write_all(b"GET /login HTTP/1.1\r\nHost: x\r\n");
    }
    assert_eq!(browser.get("/decisions").status, 200, "one that asks has its turn");
    drop((idle, slow));
    let request = browser.request("GET", "/live", "", "");
    let mut watchers = Vec::new();
    for _ in 0..40 {
        let mut stream = browser.connect().expect("the console listens");
        let mut begin = [0; 12];
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut begin)).unwrap();
        watchers.push((String::from_utf8_lossy(&begin[9..]).into_owned(), stream));
    }
    let accepted = watchers.iter().filter(|(status, _)| status == "200").count();
    assert_eq!(accepted, 12, "others are told that there are too many");
    let mut client = daemon.connect();
    for _ in 0..2000 {
        assert_eq!(client.ask("client_address=192.0.2.1\nsender=a@b.test").action(), "dunno");
    }
    assert_eq!(browser.get("/decisions").status, 200);
    drop(watchers);
    eventually("their places are free again", || {
        let mut stream = browser.connect()?;
        let mut begin = [0; 12];
        stream.write_all(request.as_bytes()).and_then(|()| stream.read_exact(&mut begin)).ok()?;
        begin.ends_with(b"200").then_some(())
    });
}

#[test]
fn a_socket_belongs_to_the_daemon_and_its_group() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root_or_leaves_out("the group of the console's socket") {
        return;
    }
    let text = CONSOLE.replace("127.0.0.1:$OTHER\"", "$DIR/console.sock\"\n  group = daemon");
    let mut daemon = Daemon::start(&format!("{text}{HOST}"));
    let socket = daemon.site.path("console.sock");
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(Browser::at(Place::Unix(socket.clone())).get("/login").status, 200);
    let output = command(&daemon.site, &["console", "open"]);
    assert!(output_of(&output).starts_with("THE ADDRESS OF THE CONSOLE/open/"), "{}", output_of(&output));
    daemon.terminate();
    assert!(!socket.exists(), "its file goes with the daemon");
}
