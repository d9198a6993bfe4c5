//! Keys and passwords of a configuration, those in files and variables too, and that nobody gets to see one.
//!
//! Knows: every command that prints something, the name server, the web service. Must not know: the daemon's
//! code.

use crate::fake_dns::{FakeDns, Query, Reply};
use crate::support::daemon::{Daemon, OK, PROGRAM, Site, errors_of, output_of, run};
use crate::support::fake_http::{FakeHttp, Say};
use crate::support::{eventually, is_root_or_leaves_out};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const A: u16 = 1;

/// The variable of the environment with a key.
const VARIABLE: &str = "MTPOLICYD_TEST_KEY";

/// One secret of each kind, none of which looks like one: nothing but its place tells that it is.
const ZONE_IN_FILE: &str = "Apple";
const ZONE_IN_VARIABLE: &str = "cherry";
const ZONE_WRITTEN: &str = "x7k2p9q4";
const PASSWORDS: [&str; 8] =
    ["of-redis", "of-sql", "of-source", "of-ldap", "of-token", "of-url", "of-path", "of-ctipd"];

const CONFIGURATION: &str = r#"
port = "127.0.0.1:$PORT"
log_level = 4
on_error = continue
<Dns>
  servers = "$DNS"
</Dns>
<Control>
  socket = "$DIR/control.sock"
</Control>
<Journal>
  file = "$DIR/journal.sqlite"
</Journal>
<Metrics>
  listen = "127.0.0.1:$OTHER"
</Metrics>
<Connection redis>
  module = Redis
  server = "127.0.0.1:1"
  password = of-redis
</Connection>
<Connection sql>
  module = Sql
  dsn = "dbi:Pg:dbname=x;host=127.0.0.1;port=1"
  user = me
  password = "${file:$DIR/of-sql}"
</Connection>
<Connection source>
  module = Sql
  dsn = "postgres://me:of-source@127.0.0.1:1/x"
</Connection>
<Connection ldap>
  module = Ldap
  host = "127.0.0.1"
  port = 1
  binddn = "cn=me"
  password = of-ldap
</Connection>
<VirtualHost $PORT>
  name = in
  <Plugin domains>
    module = DBL
    domain = "${env:MTPOLICYD_TEST_KEY}.dbl.test"
    test = off
    sender_mode = passive
  </Plugin>
  <Plugin written>
    module = RBL
    domain = "x7k2p9q4.zen.dq.spamhaus.net"
    test = off
    mode = passive
  </Plugin>
  <Plugin lookup>
    module = HttpLookup
    url = "http://me:of-url@$HTTP/of-path/x"
    cache_ttl = 0
  </Plugin>
  <Plugin token>
    module = HttpLookup
    url = "http://$HTTP/"
    token = "${file:$DIR/of-token}"
    cache_ttl = 0
  </Plugin>
  <Plugin ctipd>
    module = CtIpRep
    url = "http://$HTTP/ctipd"
    key = of-ctipd
  </Plugin>
  <Plugin users>
    module = SqlUserConfig
    db = sql
    sql_query = "SELECT config FROM users WHERE address=?"
  </Plugin>
  <Plugin pot>
    module = Honeypot
    store = redis
    recipients = trap@rcpt.test
  </Plugin>
  <Plugin zen>
    module = RBL
    domain = "${file:$DIR/dqs}.zen.test"
    mode = passive
    score = 5
  </Plugin>
  <Plugin by-code>
    module = RBLAction
    result_from = zen
    re_match = "127.0.0.4"
    reject_message = "see %INFO%"
  </Plugin>
</VirtualHost>
"#;

/// Writes a file that only root may read.
fn write_key(site: &Site, name: &str, text: &str) {
    fs::write(site.path(name), text).expect("the folder is writable");
    fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// A name server whose lists have everything, and repeat the name that they are asked about.
fn name_server() -> FakeDns {
    FakeDns::start(|query: &Query| match query.record_type {
        A if query.name.starts_with("1.0.0.127.") => Reply::NoSuchName(Some(60)),
        A => Reply::address([127, 0, 0, 4]),
        _ => Reply::text(&format!("listed as {}", query.name)),
    })
}

/// Runs a command about the daemon of a site, which has the variable too. Returns all that it printed.
fn said(site: &Site, words: &[&str]) -> String {
    let output = run(site.command_after(words).env(VARIABLE, ZONE_IN_VARIABLE), b"");
    output_of(&output) + &errors_of(&output)
}

fn has_secret(text: &str) -> Option<&'static str> {
    let zones = [ZONE_IN_FILE, ZONE_IN_VARIABLE, ZONE_WRITTEN];
    let text = text.to_lowercase();
    // The names of the files with the passwords may be shown.
    let text = ["of-sql}", "of-token}"].iter().fold(text, |text, name| text.replace(name, ""));
    let mut all = zones.into_iter().chain(PASSWORDS);
    all.find(|secret| text.contains(&secret.to_lowercase()))
}

#[track_caller]
fn has_none(what: &str, text: &str) {
    if let Some(secret) = has_secret(text) {
        let line = text.lines().find(|line| has_secret(line).is_some()).unwrap_or_default();
        panic!("{what} has {secret}: {line}");
    }
}

fn start() -> (FakeDns, FakeHttp, Daemon) {
    let server = name_server();
    let service = FakeHttp::start(|_| Say::json("{}"));
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    site.replace("$HTTP", service.address());
    site.configure(CONFIGURATION);
    fs::set_permissions(site.config(), fs::Permissions::from_mode(0o600)).expect("it is ours");
    write_key(&site, "dqs", &format!("{ZONE_IN_FILE}\n"));
    write_key(&site, "of-sql", "of-sql-password");
    write_key(&site, "of-token", "of-token-value");
    let mut command = site.command(&["-f"]);
    command.env(VARIABLE, ZONE_IN_VARIABLE);
    let daemon = site.spawn_command(command);
    daemon.wait_until_it_answers();
    (server, service, daemon)
}

fn request(recipient: &str, instance: &str) -> String {
    format!("client_address=192.0.2.4\nsender=a@b.test\nrecipient={recipient}\ninstance={instance}")
}

#[test]
fn no_secret_is_shown_anywhere() {
    let (server, service, daemon) = start();
    let site = &daemon.site;
    let rejected = daemon.ask(&request("a@rcpt.test", "1")).action();
    assert_eq!(rejected, "reject see (\"listed as 4.2.0.192.{dqs}.zen.test\")");
    // The second recipient has the answer from the session, which the journal keeps.
    assert_eq!(daemon.ask(&request("b@rcpt.test", "1")).action(), rejected);
    let names: Vec<_> = server.queries().into_iter().map(|query| query.name).collect();
    for name in ["4.2.0.192.apple.zen.test", "b.test.cherry.dbl.test"] {
        assert!(names.iter().any(|asked| asked == name), "{name}: {names:?}");
    }
    let asked = service.asked();
    assert!(asked.iter().any(|it| it.header("authorization") == Some("Bearer of-token-value")));

    let decisions = eventually("the journal has both", || {
        let found = said(site, &["decisions", "--format", "json"]);
        (found.lines().filter(|line| line.contains("a@b.test")).count() >= 2).then_some(found)
    });
    has_none("decisions", &decisions);
    let line = decisions.lines().next().expect("there is one");
    let decision: serde_json::Value = serde_json::from_str(line).expect("it is an object");
    let id = decision["id"].as_str().expect("it has an identifier");
    for words in [
        &["decisions"][..],
        &["explain", id],
        &["explain", id, "--options"],
        &["explain", id, "--again", "--format", "json"],
        &["status"],
        &["status", "--format", "json"],
        &["lists"],
        &["lists", "--test"],
        &["lists", "--format", "json"],
        &["metrics"],
        &["metrics", "--format", "json"],
        &["doctor"],
        &["doctor", "--format", "json"],
        &["audit"],
        &["reload"],
    ] {
        let text = said(site, words);
        assert!(!text.contains("unexpected argument") && !text.is_empty(), "{words:?}: {text}");
        has_none(&words.join(" "), &text);
    }
    for labels in [&["lists"][..], &["metrics", "dnslist"], &["explain", id]] {
        let text = said(site, labels);
        assert!(text.contains("{dqs}.zen.test"), "{labels:?}: {text}");
    }
    let replayed = said(site, &["replay", "--format", "json"]);
    assert!(replayed.contains("\"decisions\":2"), "{replayed}");
    has_none("replay", &replayed);
    let checked =
        run(Command::new(PROGRAM).arg("check").arg(site.config()).env(VARIABLE, ZONE_IN_VARIABLE), b"");
    has_none("check", &(output_of(&checked) + &errors_of(&checked)));
    let dumped = run(site.command(&["-d"]).env(VARIABLE, ZONE_IN_VARIABLE), b"");
    assert!(output_of(&dumped).contains("file:"), "{}", output_of(&dumped));
    has_none("-d", &(output_of(&dumped) + &errors_of(&dumped)));
    daemon.logged("lookup: dns: A 4.2.0.192.{dqs}.zen.test: ");
    daemon.logged("lookup: dns: A b.test.{MTPOLICYD_TEST_KEY}.dbl.test: ");
    has_none("the log", &daemon.log());
    has_none("the journal", &read_all(&site.path("journal.sqlite")));
    let archive = site.path("support.tar");
    let told = said(site, &["support", "-o", archive.to_str().expect("it is text")]);
    assert!(told.contains("configuration.conf") && told.contains("support.tar"), "{told}");
    let archived = read_all(&archive);
    for words in ["<Plugin \"zen\">", "mtpolicyd_requests_total", "answers", "{dqs}.zen.test"] {
        assert!(archived.contains(words), "{words}: {archived}");
    }
    has_none("the archive", &archived);
}

/// The bytes of a file and of those beside it with the same beginning.
fn read_all(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).expect("it has a name").to_owned();
    let folder = fs::read_dir(path.parent().expect("it is in a folder")).expect("it can be read");
    let files = folder.map(|entry| entry.expect("it can be read").path());
    let own = files.filter(|file| file.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&name)));
    own.map(|file| String::from_utf8_lossy(&fs::read(file).expect("it can be read")).into_owned()).collect()
}

const LIST: &str =
    "<Plugin bl>\nmodule = RBL\ndomain = \"${file:$DIR/dqs}.bl.test\"\ntest = off\n</Plugin>\n";

#[test]
fn a_reload_reads_the_keys_again() {
    let server = name_server();
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    let text = OK.replace("<Plugin ok>", &format!("{LIST}<Plugin ok>"));
    site.configure(&format!("<Dns>\nservers = \"$DNS\"\n</Dns>\n{text}"));
    write_key(&site, "dqs", "first");
    let daemon = site.start();
    let ask = || daemon.ask("client_address=192.0.2.4").action();
    assert_eq!(ask(), "reject delivery from 192.0.2.4 rejected (\"listed as 4.2.0.192.{dqs}.bl.test\")");
    assert_eq!(server.count("4.2.0.192.first.bl.test"), 2, "the address and the text");
    write_key(&daemon.site, "dqs", "second");
    daemon.hang_up();
    assert!(ask().contains("{dqs}.bl.test"));
    assert_eq!(server.count("4.2.0.192.second.bl.test"), 2);
    // A key that is gone changes nothing.
    fs::remove_file(daemon.site.path("dqs")).expect("it is there");
    daemon.hang_up();
    daemon.logged("can't read the key in ");
    daemon.ask("client_address=192.0.2.5");
    assert_eq!(server.count("5.2.0.192.second.bl.test"), 2);
}

#[test]
fn a_key_that_is_not_there_is_a_mistake_with_its_line() {
    let check = |site: &Site, words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        let output = run(command.arg("check").arg(site.config()).args(words), b"");
        (output.status.code(), errors_of(&output))
    };
    let site = Site::with(&OK.replace("<Plugin ok>", &format!("{LIST}<Plugin ok>")));
    let (code, said) = check(&site, &[]);
    assert!(code == Some(1) && said.contains(":6:") && said.contains("can't read the key in "), "{said}");
    let variable = LIST.replace("file:$DIR/dqs", "env:MTPOLICYD_NO_SUCH_KEY");
    site.configure(&OK.replace("<Plugin ok>", &format!("{variable}<Plugin ok>")));
    let (code, said) = check(&site, &[]);
    let expected = "the variable MTPOLICYD_NO_SUCH_KEY of the environment is not set";
    assert!(code == Some(1) && said.contains(":6:") && said.contains(expected), "{said}");

    site.configure(&OK.replace("<Plugin ok>", &format!("{LIST}<Plugin ok>")));
    write_key(&site, "dqs", "apple");
    let (code, said) = check(&site, &["--strict"]);
    assert!(code == Some(0), "{said}");
    fs::set_permissions(site.path("dqs"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let (code, said) = check(&site, &["--strict"]);
    assert!(code == Some(1) && said.contains("this key is readable by every user: "), "{said}");
    assert!(!said.contains("apple"), "{said}");
    if !is_root_or_leaves_out("a key that the daemon's user can't read") {
        return;
    }
    fs::set_permissions(site.path("dqs"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    let (code, said) = check(&site, &["--as", "nobody"]);
    assert!(code == Some(0) && said.contains("for user nobody: "), "{said}");
    assert!(said.contains("can't read the key in ") && said.contains("Permission denied"), "{said}");
}
