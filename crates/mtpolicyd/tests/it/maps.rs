//! Lookup tables against Postfix's own programs: postmap finds the same, and writes while we read; proxymap
//! and a socketmap server answer both of us. SpamAssassin's auto-whitelist as Perl keeps it.
//!
//! Knows: postmap(1), DB_File, the library's tables. Must not know: how a table is read.

#![allow(clippy::unwrap_used, reason = "what a test shares with others is a test too")]

use crate::support::daemon::Daemon;
use crate::support::postfix::{Postfix, postfix_or_leaves_out};
use crate::support::{PATIENCE, eventually};
use backends::Call;
use mtpolicyd::facts::maps::{Map, ServiceSettings};
use mtpolicyd::matching::Matching;
use mtpolicyd::testing::Bench;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A folder with a configuration of Postfix, for postmap.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    folder
}

fn postmap(folder: &Path) -> Command {
    let mut postmap = Command::new("postmap");
    postmap.arg("-c").arg(folder).stderr(Stdio::piped());
    postmap
}

/// Makes or rebuilds an indexed table from its text.
fn build(folder: &Path, map: &str, text: &str) {
    let (_, path) = map.split_once(':').unwrap();
    fs::write(path, text).unwrap();
    let output = postmap(folder).arg(map).output().expect("postmap is installed");
    assert!(output.status.success(), "{map}: {output:?}");
}

/// What postmap finds for each key.
fn found_by_postmap(folder: &Path, map: &str, keys: &[&str]) -> Vec<Option<String>> {
    let find = |key: &&str| {
        let output = postmap(folder).args(["-q", key, map]).output().expect("postmap is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || !said.contains("fatal"), "{map}: {said}");
        let value = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| value.trim_end_matches('\n').to_owned())
    };
    keys.iter().map(find).collect()
}

struct Reader {
    runtime: Runtime,
    map: Map,
}

impl Reader {
    fn new(map: &str, proxymap: &Path) -> Reader {
        let settings = ServiceSettings { proxymap: proxymap.to_owned(), timeout: PATIENCE };
        Reader { runtime: Runtime::new().unwrap(), map: Map::new(map, &settings).unwrap() }
    }

    fn find(&self, key: &str) -> Result<Option<String>, String> {
        // postmap folds keys where the table has fixed ones, and so does who asks for a part of an address.
        let key = if self.map.has_fixed_keys() { key.to_lowercase() } else { key.to_owned() };
        let mut matching = Matching::default();
        let found = self.map.find(vec![key.into_bytes()], |_| true, &mut matching, Call::within(PATIENCE));
        let found = self.runtime.block_on(found).map_err(|error| error.to_string())?;
        Ok(found.map(|found| String::from_utf8(found.value).unwrap()))
    }
}

#[track_caller]
fn finds_the_same(folder: &Path, map: &str, keys: &[&str], at_least: usize) {
    let reader = Reader::new(map, Path::new("/nowhere"));
    let expected = found_by_postmap(folder, map, keys);
    let found: Vec<_> = keys.iter().map(|key| reader.find(key).unwrap()).collect();
    assert_eq!(found, expected, "{map}: {keys:?}");
    assert!(expected.iter().flatten().count() >= at_least, "{map}: postmap finds {expected:?}");
}

const ENTRIES: &str = "\
# a table
a@b.example   OK
A.Example\tREJECT no mail
  from here
192.0.2  OK

\"quoted user\"@c.example 550 x
2001:db8 1
";

const KEYS: &[&str] = &[
    "a@b.example",
    "A@B.example",
    "a.example",
    "192.0.2",
    "192.0",
    "\"quoted user\"@c.example",
    "2001:db8",
    "x",
];

#[test]
fn tables_of_keys_are_read_as_postmap_reads_them() {
    let folder = folder();
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let map = format!("{kind}:{}/map-{kind}", folder.path().display());
        build(folder.path(), &map, ENTRIES);
        finds_the_same(folder.path(), &map, KEYS, 6);
    }
    fs::write(folder.path().join("text"), ENTRIES).unwrap();
    let text = format!("texthash:{}/text", folder.path().display());
    finds_the_same(folder.path(), &text, KEYS, 6);
    fs::write(folder.path().join("text"), "twice 1\nTwice 2\ntwice 3\nalone\nkey: value\n").unwrap();
    finds_the_same(folder.path(), &text, &["twice", "alone", "key", "key:"], 2);
}

const NETWORKS: &str = "\
192.0.2.1          one
192.0.2.0/24       net
10.1.2.3/8         with host bits
2001:db8:1::/48    six
[2001:db8:2::]/48  bracketed
300.0.0.0/8        none
IF 198.51.0.0/16
!198.51.100.0/24   not that one
198.51.100.7       seven
ENDIF
if !203.0.113.0/24
203.0.113.5        never
198.51.100.0/24    outside
endif
0.0.0.0/32         zero
1.2.3.4
::/0               any six
";

#[test]
fn networks_are_read_as_postmap_reads_them() {
    let folder = folder();
    fs::write(folder.path().join("cidr"), NETWORKS).unwrap();
    let keys = [
        "192.0.2.1",
        "192.0.2.77",
        "10.9.9.9",
        "10.1.2.3",
        "2001:db8:1::7",
        "2001:DB8:2::1",
        "198.51.5.5",
        "198.51.100.7",
        "198.51.100.8",
        "203.0.113.5",
        "0.0.0.0",
        "1.2.3.4",
        "::1",
        "192.0.2",
        "example.org",
    ];
    finds_the_same(folder.path(), &format!("cidr:{}/cidr", folder.path().display()), &keys, 9);
}

/// What both kinds of patterns understand.
const PATTERNS: &str = r"
/^(.+)@([^.]+)\.example$/       $2 has $1
/^CASE$/                        either case
/^Case2$/i                      one case
!/@/                            no address
if /^in/
/side@/                         inside
if !/out/
/^in.*@x$/                      ${0}
/^in(.*)@x$/                    <${1}>$(1)$$
endif
endif
|a/b@|                          slash
/[\.]dot@/                      dot
/(a)(b)?c@x/                    [$2]
/nothing/
/no end
/k@x$/  $1 too many
/^[[:alpha:]]{3}@y$/            three
/multi@x/m                      multi
";

const PATTERN_KEYS: &[&str] = &[
    "bob@mail.example",
    "Bob@Mail.Example",
    "case",
    "CASE",
    "Case2",
    "case2",
    "nobody",
    "inside@x",
    "in-out@x",
    "in-2@x",
    "xa/b@x",
    "a.dot@x",
    "ac@x",
    "abc@x",
    "nothing@x",
    "k@x",
    "abc@y",
    "ab1@y",
    "multi@x",
    "zz@x",
];

#[test]
fn patterns_are_read_as_postmap_reads_them() {
    let folder = folder();
    for kind in ["regexp", "pcre"] {
        fs::write(folder.path().join(kind), PATTERNS.trim_start()).unwrap();
        finds_the_same(
            folder.path(),
            &format!("{kind}:{}/{kind}", folder.path().display()),
            PATTERN_KEYS,
            12,
        );
    }
    let perl = "/^(?<n>\\d+)@(?=x)/ $1\n/^ a b @ # c\n x $/x blanks\n/^up@/A up\n/^e$/E e\n/(?i)q/i q\n";
    fs::write(folder.path().join("perl"), perl).unwrap();
    let keys = ["77@x", "77@y", "ab@x", "AB@x", "up@x", "e", "Q", "q"];
    finds_the_same(folder.path(), &format!("pcre:{}/perl", folder.path().display()), &keys, 6);
}

/// Entries that are in every version, and the version in others.
fn version(number: usize) -> String {
    let filler = (0..400).map(|entry| format!("filler{entry}.{number}@example.org {}\n", "x".repeat(entry)));
    format!("before@example.org OK\n{}zafter@example.org OK\n", filler.collect::<String>())
}

#[test]
fn no_lookup_fails_while_postmap_rebuilds_the_table() {
    const REBUILDS: usize = 30;
    let folder = folder();
    for kind in ["hash", "btree", "lmdb", "cdb"] {
        let map = format!("{kind}:{}/map-{kind}", folder.path().display());
        build(folder.path(), &map, &version(0));
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let reader = Reader::new(&map, Path::new("/nowhere"));
                        let mut lookups = 0;
                        while !done.load(Ordering::Relaxed) {
                            for key in ["before@example.org", "zafter@example.org"] {
                                assert_eq!(reader.find(key), Ok(Some("OK".to_owned())), "{map}: {key}");
                                lookups += 1;
                            }
                        }
                        lookups
                    })
                })
                .collect();
            for number in 1..=REBUILDS {
                build(folder.path(), &map, &version(number));
                if readers.iter().any(thread::ScopedJoinHandle::is_finished) {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > REBUILDS, "{map}: lookups went on meanwhile");
            }
        });
        let last = format!("filler7.{REBUILDS}@example.org");
        assert_eq!(Reader::new(&map, Path::new("/nowhere")).find(&last), Ok(Some("xxxxxxx".to_owned())));
    }
}

#[test]
fn proxymap_looks_into_tables_for_us() {
    if !postfix_or_leaves_out("tables behind Postfix's proxymap") {
        return;
    }
    let folder = folder();
    let path = folder.path().display();
    build(folder.path(), &format!("hash:{path}/map"), ENTRIES);
    fs::write(folder.path().join("cidr"), NETWORKS).unwrap();
    let (hash, cidr) = (format!("proxy:hash:{path}/map"), format!("proxy:cidr:{path}/cidr"));
    let restrictions = format!("check_sender_access {hash}, check_client_access {cidr}, reject");
    let postfix = Postfix::start(&restrictions);
    let socket = postfix.queue().join("private/proxymap");
    let reader = Reader::new(&hash, &socket);
    for (key, value) in
        [("A@B.example", Some("OK")), ("x", None), ("a.example", Some("REJECT no mail  from here"))]
    {
        assert_eq!(reader.find(key), Ok(value.map(str::to_owned)), "{key}");
    }
    let networks = Reader::new(&cidr, &socket);
    assert_eq!(networks.find("192.0.2.77"), Ok(Some("net".to_owned())));
    assert_eq!(networks.find("example.org"), Ok(None));
    let forbidden = Reader::new(&format!("proxy:hash:{path}/other"), &socket).find("x").unwrap_err();
    assert!(forbidden.contains("proxy_read_maps"), "{forbidden}");
    drop(postfix);
    let down = reader.find("x").unwrap_err();
    assert!(down.contains("down: "), "{down}");
}

/// A socketmap server that knows one key.
fn socketmap_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 1000];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let question = String::from_utf8_lossy(&buffer[..count]).into_owned();
                let answer =
                    if question.contains("mymap Known Key,") { "OK some value" } else { "NOTFOUND " };
                stream.write_all(format!("{}:{answer},", answer.len()).as_bytes()).unwrap();
            }
        }
    });
    port
}

#[test]
fn a_socketmap_server_answers_us_as_it_does_postfix() {
    let map = format!("socketmap:inet:127.0.0.1:{}:mymap", socketmap_server());
    finds_the_same(folder().path(), &map, &["Known Key", "other"], 1);
}

#[test]
fn a_rebuilt_table_is_used_without_a_reload() {
    let folder = folder();
    let map = format!("texthash:{}/text", folder.path().display());
    fs::write(folder.path().join("text"), "192.0.2 OK\n").unwrap();
    let indexed = format!("hash:{}/map", folder.path().display());
    build(folder.path(), &indexed, "198.51.100 OK\n");
    let plugin = |name: &str, file: &str| {
        format!(
            "<Plugin {name}>\nmodule = PostfixMap\ndb_file = \"{file}\"\nmatch_action = {name}\n</Plugin>\n"
        )
    };
    let plain = format!("{}/map.db", folder.path().display());
    let plugins = plugin("text", &map) + &plugin("hash", &indexed) + &plugin("plain", &plain);
    let host = format!("port = 127.0.0.1:$PORT\n<VirtualHost $PORT>\nname = x\n{plugins}</VirtualHost>\n");
    let daemon = Daemon::start(&host);
    let mut client = daemon.connect();
    let mut ask = |address: &str| client.ask(&format!("client_address={address}")).action().to_owned();
    assert_eq!(
        (ask("192.0.2.1"), ask("198.51.100.1"), ask("203.0.113.1")),
        ("text".into(), "hash".into(), "dunno".into())
    );
    build(folder.path(), &indexed, "203.0.113 OK\n");
    assert_eq!((ask("203.0.113.1"), ask("198.51.100.1")), ("hash".to_owned(), "dunno".to_owned()));
    fs::write(folder.path().join("text"), "192.0.3 OK\n").unwrap();
    eventually("the table is read again", || (ask("192.0.3.1") == "text").then_some(()));
    assert_eq!(ask("192.0.2.1"), "dunno");
}

/// Writes a list as SpamAssassin does, and goes on with other senders until it is killed.
const AUTO_WHITELIST: &str = r#"
    use DB_File; use Fcntl;
    my ($file, $kind) = @ARGV;
    my $number = 0;
    while (1) {
        my $info = $kind eq 'btree' ? $DB_BTREE : $DB_HASH;
        tie(my %awl, 'DB_File', $file, O_RDWR|O_CREAT, 0600, $info) or die "cannot: $!";
        $awl{'bad@a.example|ip=192.0'} ||= 20;
        $awl{'bad@a.example|ip=192.0|totscore'} ||= 160;
        for (1 .. 20) {
            $number++;
            $awl{"user$number\@b.example|ip=10.0"} = 1;
            $awl{"user$number\@b.example|ip=10.0|totscore"} = 1.5;
        }
        untie %awl;
        print "written\n"; $| = 1;
    }
"#;

#[test]
fn the_auto_whitelist_is_read_while_perl_writes_it() {
    for kind in ["hash", "btree"] {
        let folder = folder();
        let file = folder.path().join("auto-whitelist");
        let mut perl = Command::new("perl");
        perl.args(["-e", AUTO_WHITELIST]).arg(&file).arg(kind).stdout(Stdio::piped());
        let mut perl = perl.spawn().expect("perl is installed");
        perl.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        // Nobody reads on, so that it must not write much; its output would hold it up.
        let mut output = perl.stdout.take().unwrap();
        let drain = thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let mut bench = Bench::new(&format!(
            "<Plugin l>\nmodule = SaAwlLookup\ndb_file = \"{}\"\n</Plugin>\n\
             <Plugin a>\nmodule = SaAwlAction\nresult_from = l\nreject_message = \"%SCORE%\"\n</Plugin>",
            file.display()
        ))
        .attribute("sender", "Bad@A.example")
        .attribute("client_address", "192.0.2.1");
        for _ in 0..200 {
            assert_eq!(bench.run_fresh().as_deref(), Some("reject 8"), "{kind}");
        }
        perl.kill().unwrap();
        perl.wait().unwrap();
        drain.join().unwrap().unwrap();
    }
}
