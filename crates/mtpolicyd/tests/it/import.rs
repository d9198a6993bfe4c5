//! `mtpolicyd import`: files as those daemons have them become a configuration that `check --strict` has
//! nothing to say of, and that answers as they did.
//!
//! Knows: the files of postgrey, policyd-spf and policyd-rate-limit. Must not know: the daemon's code.

use crate::fake_dns::{FakeDns, Reply};
use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::servers::{mariadb, postgres, redis};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

/// In the manner of /etc/default/postgrey.
const POSTGREY_DEFAULTS: &str = "\
# startup options
#   --delay=N   how long to greylist
POSTGREY_OPTS=\"--inet=127.0.0.1:$PORT --delay=120 --max-age=30 --user=postgrey\"
#POSTGREY_TEXT=\"not this one\"
POSTGREY_TEXT=\"Come back later, please\"
";

const WHITELIST_CLIENTS: &str = "\
# a list of clients
friend.example
/^mail\\d+\\.big\\.example$/
192.0.2.99
198.51.100
2001:db8:1::/48
";

const WHITELIST_RECIPIENTS: &str = "\
postmaster@
abuse@
open@example.net
";

/// Writes the databases of postgrey, as its own program does.
const DATABASES: &str = r#"
use strict; use DB_File;
my ($folder, $now) = @ARGV;
sub write_file {
    my ($name, %entries) = @_;
    tie my %db, 'DB_File', "$folder/$name", O_RDWR|O_CREAT, 0600, $DB_BTREE or die "$name: $!";
    $db{$_} = $entries{$_} for keys %entries;
    untie %db;
}
my ($day, %many) = 86400;
$many{"198.18.$_.0/user-$_\@bulk.example/bob\@example.net"} = ($now - $day) . "," . $now for 0 .. 200;
write_file("postgrey.db", %many,
    "203.0.113.0/alice\@known.example/bob\@example.net" => ($now - 9 * $day) . "," . ($now - 2 * $day),
    "203.0.113.0/bounce-#\@lists.example/bob\@example.net" => ($now - 9 * $day) . "," . $now,
    "203.0.113.0/carol\@waiting.example/bob\@example.net" => "$now,$now",
    "203.0.113.0/dave\@expired.example/bob\@example.net" => ($now - 90 * $day) . "," . ($now - 80 * $day),
    "2001:db8:7:0:0:0:0:0/erin\@six.example/bob\@example.net" => ($now - $day) . "," . $now);
write_file("postgrey_clients.db", "192.0.2.201" => "7,$now", "192.0.2.202" => "2,$now");
"#;

/// In the manner of policyd-spf.conf.
const POLICYD_SPF: &str = "\
#  For a fully commented sample config file see policyd-spf.conf.commented
debugLevel = 1
TestOnly = 1

HELO_reject = Fail
Mail_From_reject = Fail

PermError_reject = False
TempError_Defer = True

skip_addresses = 127.0.0.0/8,::ffff:127.0.0.0/104,::1
Whitelist = 192.0.2.99
Domain_Whitelist_PTR = forwarder.example
Authserv_Id = mx.example.net
";

/// In the manner of policyd-rate-limit.yaml.
const POLICYD_RATE_LIMIT: &str = "\
# Make it log to stderr
debug: True
user: \"policyd-rate-limit\"
pidfile: \"/var/run/policyd-rate-limit/policyd-rate-limit.pid\"
mysql_config:
    user: \"username\"
    passwd: \"*****\"
    db: \"database\"
sqlite_config:
    database: \"/var/lib/policyd-rate-limit/db.sqlite3\"
backend: 0
SOCKET: [\"127.0.0.1\", $PORT]
socket_permission: 0666
limits:
    - [2, 3600] # an hour
    - [150, 86400]
limits_by_id:
    boss@example.net: []
    192.0.2.7:
        - [1, 86400]
limit_by_sasl: True
limit_by_sender: False
limit_by_ip: True
limited_networks: [\"192.0.2.0/24\", \"2001:db8::/32\"]
success_action: \"dunno\"
fail_action: \"defer_if_permit Rate limit reach, retry later\"
db_error_action: \"dunno\"
report: False
report_to: null
delay_to_close: 300
";

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(now.as_secs()).expect("it is not that late")
}

/// What `import` did with these arguments, in which `$DIR` is the folder of the site.
fn import(site: &Site, arguments: &str) -> Output {
    let arguments = site.fill(arguments);
    run(Command::new(PROGRAM).arg("import").args(arguments.split(' ')), b"")
}

/// Writes what was printed as the configuration of the site, and has it checked.
fn use_it(site: &Site, imported: &Output) {
    site.configure_bytes(&imported.stdout);
    fs::set_permissions(site.config(), fs::Permissions::from_mode(0o640)).expect("the file is ours");
    let checked = run(Command::new(PROGRAM).args(["check", "--strict"]).arg(site.config()), b"");
    assert!(checked.status.success(), "{}\n{}", errors_of(&checked), output_of(imported));
}

fn postgrey_site() -> Site {
    let site = Site::new();
    for folder in ["etc", "db", "lists"] {
        fs::create_dir(site.path(folder)).expect("the folder is ours");
    }
    for (file, text) in [
        ("defaults", POSTGREY_DEFAULTS),
        ("etc/whitelist_clients", WHITELIST_CLIENTS),
        ("etc/whitelist_recipients", WHITELIST_RECIPIENTS),
        ("etc/whitelist_clients.local", "local.example\nwhat is this?\n"),
    ] {
        fs::write(site.path(file), site.fill(text)).expect("the folder is ours");
    }
    let perl = Command::new("perl")
        .args(["-e", DATABASES])
        .arg(site.path("db"))
        .arg(now().to_string())
        .output()
        .expect("perl is installed");
    assert!(perl.status.success(), "{}", errors_of(&perl));
    site
}

const POSTGREY: &str = "postgrey --defaults $DIR/defaults --whitelists $DIR/etc --dbdir $DIR/db --state $DIR";

/// The answer for a client and a sender.
fn ask(daemon: &Daemon, client: &str, name: &str, sender: &str, recipient: &str) -> String {
    let question = format!(
        "protocol_state=RCPT\nclient_address={client}\nclient_name={name}\nhelo_name=x.example\n\
         sender={sender}\nrecipient={recipient}"
    );
    daemon.ask(&question).action()
}

#[test]
fn clients_that_postgrey_knows_do_not_wait_again() {
    let site = postgrey_site();
    let imported = import(&site, &format!("{POSTGREY} --lists $DIR/lists"));
    let told = errors_of(&imported);
    assert_eq!(imported.status.code(), Some(1), "a line can't be read\n{told}");
    assert!(told.contains("whitelist_clients.local line 2"), "{told}");
    assert!(told.contains("206 entries, 204 pairs") && told.contains("--into-store"), "{told}");
    use_it(&site, &imported);
    let stored = import(&site, &format!("{POSTGREY} --into-store -c $DIR/mtpolicyd.conf"));
    assert!(stored.status.success() && stored.stdout.is_empty(), "{}", errors_of(&stored));
    assert!(errors_of(&stored).contains("knows 204 pairs"), "{}", errors_of(&stored));
    // Doing it again changes nothing.
    assert!(import(&site, &format!("{POSTGREY} --into-store -c $DIR/mtpolicyd.conf")).status.success());
    let daemon = site.start();
    let unknown = "defer_if_permit 4.2.0 Come back later, please";
    for (client, name, sender, recipient, answer) in [
        ("203.0.113.77", "unknown", "someone@known.example", "else@example.net", "dunno"),
        ("203.0.113.77", "unknown", "bounce-7@lists.example", "bob@example.net", "dunno"),
        ("198.18.200.4", "unknown", "x@bulk.example", "bob@example.net", "dunno"),
        ("2001:db8:7::9", "unknown", "erin@six.example", "bob@example.net", "dunno"),
        ("203.0.113.77", "unknown", "carol@waiting.example", "bob@example.net", unknown),
        ("203.0.113.77", "unknown", "dave@expired.example", "bob@example.net", unknown),
        ("203.0.114.77", "unknown", "alice@known.example", "bob@example.net", unknown),
        ("192.0.2.1", "mx.friend.example", "a@b.example", "bob@example.net", "dunno"),
        ("192.0.2.1", "mail7.big.example", "a@b.example", "bob@example.net", "dunno"),
        ("192.0.2.1", "a.local.example", "a@b.example", "bob@example.net", "dunno"),
        ("198.51.100.3", "unknown", "a@b.example", "bob@example.net", "dunno"),
        ("192.0.2.201", "unknown", "a@b.example", "bob@example.net", "dunno"),
        ("192.0.2.202", "unknown", "a@b.example", "bob@example.net", unknown),
        ("192.0.2.203", "unknown", "a@b.example", "open@example.net", "dunno"),
        ("192.0.2.204", "unknown", "a@b.example", "postmaster@example.net", "dunno"),
    ] {
        assert_eq!(
            ask(&daemon, client, name, sender, recipient),
            answer,
            "{client} {name} {sender} {recipient}"
        );
    }
}

#[test]
fn every_store_takes_what_postgrey_knows() {
    let (mysql, postgres, redis) = (mariadb::start(), postgres::start(), redis::start());
    let name = mariadb::NAME;
    let sql = |driver: &str, port: u16| {
        format!(
            "module = \"Sql\"\ndsn = \"dbi:{driver}:dbname={name};host=127.0.0.1;port={port}\"\n\
             user = \"{name}\"\npassword = \"{name}\""
        )
    };
    let in_redis = format!("module = \"Redis\"\nserver = \"127.0.0.1:{}\"", redis.port);
    for (connection, module, option) in [
        (sql("mysql", mysql.port), "Sql", "db"),
        (sql("Pg", postgres.port), "Sql", "db"),
        (in_redis, "Redis", "redis"),
    ] {
        let site = postgrey_site();
        let imported = output_of(&import(&site, POSTGREY));
        let (head, rest) = imported.split_once("<Connection \"greylist\">").unwrap();
        let (_, host) = rest.split_once("</Connection>").unwrap();
        let host = host
            .replace("module = \"Sql\"", &format!("module = \"{module}\""))
            .replace("db = \"greylist\"", &format!("{option} = \"greylist\""));
        let text = format!("{head}<Connection \"greylist\">\n{connection}\n</Connection>{host}");
        site.configure_bytes(text.as_bytes());
        for _ in 0..2 {
            let stored = import(&site, &format!("{POSTGREY} --into-store -c $DIR/mtpolicyd.conf"));
            assert!(errors_of(&stored).contains("knows 204 pairs"), "{}", errors_of(&stored));
        }
        let daemon = site.start();
        let answer = |sender| ask(&daemon, "203.0.113.77", "unknown", sender, "bob@example.net");
        assert_eq!(answer("someone@known.example"), "dunno", "{connection}");
        assert_eq!(answer("carol@waiting.example"), "defer_if_permit 4.2.0 Come back later, please");
    }
}

#[test]
fn a_store_is_filled_only_for_a_plugin_that_finds_its_clients_there() {
    let site = postgrey_site();
    let imported = import(&site, &format!("{POSTGREY} --lists $DIR/lists"));
    let text = output_of(&imported);
    let replaced = text.replace("client_key = \"net\"", "client_key = \"ip\"");
    let two = text.replace(
        "<Plugin \"greylist\">",
        "<Plugin \"first\">\nmodule = Greylist\n<Ticket>\nmodule = Memory\n\
                            </Ticket>\n<AWL>\nmodule = Memory\n</AWL>\n</Plugin>\n<Plugin \"greylist\">",
    );
    let into = format!("{POSTGREY} --into-store -c $DIR/mtpolicyd.conf");
    for (configuration, arguments, words) in [
        (replaced.as_str(), "", "does not tell clients apart"),
        (two.as_str(), "", "several Greylist plugins: first, greylist"),
        (two.as_str(), " --plugin second", "not one Greylist plugin `second`"),
        ("port = 1\n", "", "VirtualHost"),
    ] {
        site.configure_bytes(configuration.as_bytes());
        let stored = import(&site, &format!("{into}{arguments}"));
        assert_eq!(stored.status.code(), Some(2), "{words}");
        assert!(errors_of(&stored).contains(words), "{}", errors_of(&stored));
    }
    site.configure_bytes(two.as_bytes());
    assert!(import(&site, &format!("{into} --plugin greylist")).status.success());
    assert!(!import(&site, &into.replace(" -c $DIR/mtpolicyd.conf", "")).status.success(), "never silently");
}

#[test]
fn without_copies_only_lists_without_mistakes_are_named() {
    let site = postgrey_site();
    let imported = import(&site, POSTGREY);
    assert!(!output_of(&imported).contains("whitelist_clients.local"), "{}", output_of(&imported));
    assert!(errors_of(&imported).contains("2 clients") || errors_of(&imported).contains("1 clients"));
    use_it(&site, &imported);
    // The command line in place of the file, and no databases.
    let given = import(
        &site,
        "postgrey --whitelists $DIR/none --dbdir $DIR/none --state $DIR -- --unix=$DIR/s --delay 60",
    );
    assert_eq!(given.status.code(), Some(0), "{}", errors_of(&given));
    let text = output_of(&given);
    assert!(text.contains("/s|unix\"") && text.contains("min_retry_wait = \"60\""), "{text}");
    use_it(&site, &given);
}

#[test]
fn spf_is_judged_as_policyd_spf_did() {
    let dns = FakeDns::start(|query| match (&*query.name, query.record_type) {
        ("strict.example", 16) => Reply::text("v=spf1 ip4:203.0.113.1 -all"),
        ("broken.example", 16) => Reply::text("v=spf1 nonsense -all"),
        ("down.example", _) => Reply::Code(2),
        _ => Reply::NoSuchName(Some(60)),
    });
    let site = Site::new();
    fs::write(site.path("policyd-spf.conf"), POLICYD_SPF).unwrap();
    let imported = import(&site, "policyd-spf $DIR/policyd-spf.conf");
    assert_eq!(imported.status.code(), Some(0), "{}", errors_of(&imported));
    use_it(&site, &imported);
    let servers = format!("<Dns>\nservers = \"{}\"\n</Dns>\n", dns.address());
    let text = output_of(&imported).replace("12345", &site.port.to_string());
    site.configure_bytes((servers + &text).as_bytes());
    let daemon = site.start();
    let answer = |client, name, sender| ask(&daemon, client, name, sender, "bob@example.net");
    let failed = answer("192.0.2.1", "unknown", "a@strict.example");
    assert!(failed.starts_with("reject 5.7.23 SPF validation failed"), "{failed}");
    let passed = answer("203.0.113.1", "unknown", "a@strict.example");
    assert!(
        passed.starts_with("PREPEND Received-SPF: pass") && passed.contains("mx.example.net"),
        "{passed}"
    );
    for (client, name) in [("192.0.2.99", "unknown"), ("192.0.2.1", "mail.forwarder.example")] {
        let exempt = answer(client, name, "a@strict.example");
        assert_eq!(exempt, "dunno", "{client} {name}");
    }
    assert!(
        answer("192.0.2.1", "unknown", "a@broken.example").starts_with("PREPEND Received-SPF: permerror")
    );
    assert!(answer("192.0.2.1", "unknown", "a@down.example").starts_with("defer"));
}

#[test]
fn limits_are_those_of_policyd_rate_limit() {
    let site = Site::new();
    fs::write(site.path("limits.yaml"), site.fill(POLICYD_RATE_LIMIT)).unwrap();
    let imported = import(&site, "policyd-rate-limit $DIR/limits.yaml --state $DIR");
    assert_eq!(imported.status.code(), Some(0), "{}", errors_of(&imported));
    use_it(&site, &imported);
    let daemon = site.start();
    let ask = |login: &str, client: &str| {
        let question = format!(
            "protocol_state=RCPT\nclient_address={client}\nsasl_username={login}\nsender=a@example.net\n\
             recipient=b@example.org"
        );
        daemon.ask(&question).action()
    };
    const REFUSED: &str = "defer_if_permit Rate limit reach, retry later";
    let asked = |login, client| [0; 4].map(|_| ask(login, client));
    assert_eq!(asked("boss@example.net", "192.0.2.1"), ["dunno"; 4]);
    assert_eq!(asked("trainee", "192.0.2.1"), ["dunno", "dunno", REFUSED, REFUSED]);
    assert_eq!(asked("", "192.0.2.1"), ["dunno", "dunno", REFUSED, REFUSED]);
    assert_eq!(asked("", "192.0.2.7"), ["dunno", REFUSED, REFUSED, REFUSED]);
    assert_eq!(asked("", "203.0.113.1"), ["dunno"; 4]);
    assert_eq!(asked("", "2001:db8::1"), ["dunno", "dunno", REFUSED, REFUSED]);
}

#[test]
fn a_database_with_a_password_is_taken_over() {
    let site = Site::new();
    let text = site.fill(POLICYD_RATE_LIMIT).replace("backend: 0", "backend: 1");
    fs::write(site.path("limits.yaml"), text).unwrap();
    let imported = import(&site, "policyd-rate-limit $DIR/limits.yaml");
    assert!(output_of(&imported).contains("dbi:mysql:dbname=database"), "{}", output_of(&imported));
    assert!(errors_of(&imported).contains("chmod 640"));
    use_it(&site, &imported);
}

#[test]
fn what_can_not_be_read_ends_the_command() {
    let site = Site::new();
    fs::write(site.path("x.conf"), "limits = []").unwrap();
    for arguments in [
        "policyd-spf $DIR/none",
        "policyd-rate-limit $DIR/none",
        "policyd-rate-limit $DIR/x.conf",
        "postgrey -- --no-such-option",
        "postgrey -- --delay=soon",
        "postgrey --defaults $DIR",
    ] {
        let imported = import(&site, arguments);
        assert_eq!(imported.status.code(), Some(2), "{arguments}");
        assert!(imported.stdout.is_empty() && !imported.stderr.is_empty(), "{arguments}");
    }
}
