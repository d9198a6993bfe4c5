//! The guide: each configuration in it can be used, each command does what the page shows, and Postfix
//! understands each snippet.
//!
//! A fenced block of a page is one of these:
//! - `conf`: a configuration, or a part of one, that `check --strict` has nothing to say of. If its first
//!   line is a comment with a path, it is written there.
//! - `conf wrong`: a configuration that `check` refuses with what the next block shows.
//! - `sh`: commands, typed in the order of the page; if a `text` block comes next, they print that.
//! - `cf`, `cf master`: lines for main.cf and master.cf.
//! - `text`: what a command prints, or an example of something else.
//!
//! Knows: the pages. Must not know: the daemon's code.

use crate::manual::in_a_host;
use crate::support::fences::{Fence, fences, is_like};
use crate::support::machine::{Machine, Transcript};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Programs that need a journal or a mail server with a name; what they print is not shown.
const STAND_INS: &str = "\
for program in journalctl swaks; do printf '#!/bin/sh\\n' >/usr/local/sbin/$program; done
printf '#!/bin/sh\\nexec /usr/sbin/postfix check\\n' >/usr/local/sbin/postfix
chmod 755 /usr/local/sbin/*
[ -e /etc/postfix/main.cf ] || cp /usr/share/postfix/main.cf.debian /etc/postfix/main.cf
[ -e /etc/postfix/master.cf ] || cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf";

/// A daemon that has kept something in its file.
const WITH_A_FILE: &str = "\
cat >/etc/mtpolicyd/mtpolicyd.conf <<'END'
port = 127.0.0.1:12345
<Connection db>
  module = Sql
  dsn = \"dbi:SQLite:dbname=/var/lib/mtpolicyd/mtpolicyd.sqlite\"
</Connection>
<VirtualHost 12345>
  name = inbound
  <Plugin greylist>
    module = Greylist
    <Ticket>
      module = Sql
    </Ticket>
  </Plugin>
</VirtualHost>
END
systemctl restart mtpolicyd";

/// A machine with Debian's package.
const WITH_MTPOLICYD_2: &str = "\
adduser --system --group --no-create-home --quiet mtpolicyd
install -d /etc/mtpolicyd /etc/cron.d
install -d -o mtpolicyd -g mtpolicyd /var/lib/mtpolicyd
echo '0 * * * * mtpolicyd /usr/bin/mtpolicyd --cron hourly' >/etc/cron.d/mtpolicyd
cat >/etc/mtpolicyd/mtpolicyd.conf <<'END'
user=mtpolicyd
group=mtpolicyd
#pid_file=\"/var/run/mtpolicyd/mtpolicyd.pid\"
port=\"127.0.0.1:12345\"
min_servers=4
log_level=2
<VirtualHost 12345>
  name=\"reputation\"
  <Plugin always>
    module = \"Action\"
    action = \"reject no reason\"
  </Plugin>
</VirtualHost>
END";

/// A machine with postgrey.
const WITH_POSTGREY: &str = r#"
install -d /etc/postgrey /var/lib/postgrey
echo 'POSTGREY_OPTS="--inet=10023"' >/etc/default/postgrey
printf '%s\n' friend.example '/^mail\d+\.big\.example$/' >/etc/postgrey/whitelist_clients
printf '%s\n' postmaster@ abuse@ >/etc/postgrey/whitelist_recipients
perl -e 'use DB_File; my $now = time;
    sub fill { my ($name, %new) = @_;
        tie my %db, "DB_File", "/var/lib/postgrey/$name", O_RDWR|O_CREAT, 0600, $DB_BTREE or die $!;
        $db{$_} = $new{$_} for keys %new; untie %db }
    fill("postgrey.db",
        "203.0.113.0/alice\@known.example/bob\@example.net" => ($now - 90000) . ",$now",
        "203.0.113.0/carol\@other.example/bob\@example.net" => ($now - 90000) . ",$now",
        "198.51.100.0/eve\@new.example/bob\@example.net" => "$now,$now");
    fill("postgrey_clients.db", "192.0.2.201" => "7,$now")'"#;

/// A machine with policyd-spf.
const WITH_POLICYD_SPF: &str = "\
install -d /etc/postfix-policyd-spf-python
printf '%s\\n' 'debugLevel = 1' 'TestOnly = 1' 'HELO_reject = Fail' 'Mail_From_reject = Fail' \\
    'PermError_reject = False' 'skip_addresses = 127.0.0.0/8,::ffff:127.0.0.0/104,::1' \\
    >/etc/postfix-policyd-spf-python/policyd-spf.conf";

/// A machine with policyd-rate-limit.
const WITH_POLICYD_RATE_LIMIT: &str = "\
cat >/etc/policyd-rate-limit.yaml <<'END'
backend: 0
SOCKET: \"/var/spool/postfix/ratelimit/policy\"
socket_permission: 0666
limits:
    - [2, 3600]
    - [150, 86400]
limits_by_id: {}
limit_by_sasl: True
fail_action: \"defer_if_permit Rate limit reach, retry later\"
END";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(path: &str) -> Vec<Fence> {
    fences(&fs::read_to_string(root().join(path)).expect("the page is there"))
}

/// A configuration, whole.
fn whole(text: &str) -> String {
    if text.contains("<VirtualHost") { text.to_owned() } else { in_a_host(text) }
}

/// Commands that write a configuration and have it checked.
fn checks(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let path = first.strip_prefix("# ").filter(|path| path.starts_with('/')).unwrap_or("/run/guide.conf");
    format!(
        "install -m 640 -g mtpolicyd /dev/null {path}\ncat >{path} <<'END OF FILE'\n{}\nEND OF FILE\n\
         mtpolicyd check --strict --as mtpolicyd {path}",
        whole(text)
    )
}

/// Commands that have Postfix read its files with these lines; a parameter that nobody uses is a warning.
fn postfix_reads(file: &str, text: &str) -> String {
    let show = if file == "main.cf" { "postconf -n" } else { "postconf -M" };
    format!(
        "rm -rf /run/postfix.guide && install -d /run/postfix.guide\n\
         cp /etc/postfix/*.cf /run/postfix.guide/\n\
         cat >>/run/postfix.guide/{file} <<'END OF FILE'\n{text}\nEND OF FILE\n\
         {show} -c /run/postfix.guide 2>/run/postfix.said >/dev/null\ncat /run/postfix.said\n\
         if grep -q . /run/postfix.said; then exit 1; fi"
    )
}

/// What a block has to print.
struct Expected {
    block: usize,
    shown: String,
    line: usize,
}

/// Types the blocks of a page.
fn follow(machine: &mut Machine, fences: &[Fence]) -> Vec<Expected> {
    let mut expected = Vec::new();
    for (number, fence) in fences.iter().enumerate() {
        let block = match fence.kind.as_str() {
            "conf" => machine.types(&checks(&fence.text)),
            "conf wrong" => machine.types(&format!(
                "install -d /run/wrong\ncat >/run/wrong/mtpolicyd.conf <<'END OF FILE'\n{}\nEND OF FILE\n\
                 if (cd /run/wrong && mtpolicyd check mtpolicyd.conf); then exit 1; fi",
                fence.text
            )),
            "sh" => machine.types(&fence.text),
            "cf" => machine.types(&postfix_reads("main.cf", &fence.text)),
            "cf master" => machine.types(&postfix_reads("master.cf", &fence.text)),
            "text" => continue,
            other => panic!("line {}: what is `{other}`?", fence.line),
        };
        let shows = matches!(fence.kind.as_str(), "sh" | "conf wrong");
        if let Some(next) = fences.get(number + 1).filter(|next| shows && next.kind == "text") {
            expected.push(Expected { block, shown: next.text.clone(), line: next.line });
        }
    }
    expected
}

/// What the page shows is what was printed.
fn compare(path: &str, expected: &[Expected], said: &Transcript) {
    let mut wrong = String::new();
    for Expected { block, shown, line } in expected {
        let printed = said.printed(*block);
        if !is_like(shown, printed) {
            let _ = writeln!(wrong, "{path}:{line} shows\n{shown}\n--- printed was\n{printed}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Follows a page on a machine on which the daemon is installed, and these commands were typed.
fn is_true_after(path: &str, before: &[&str]) {
    is_true(path, |machine| {
        machine.install();
        machine.types(STAND_INS);
        for commands in before {
            machine.types(commands);
        }
    });
}

fn is_true(path: &str, before: impl FnOnce(&mut Machine)) {
    let Some(mut machine) = Machine::new(path) else { return };
    before(&mut machine);
    let expected = follow(&mut machine, &page(path));
    let said = machine.run();
    compare(path, &expected, &said);
}

#[test]
fn the_front_page() {
    is_true_after("README.md", &[]);
}

#[test]
fn the_first_day() {
    is_true_after("docs/guide/first-day.md", &[]);
}

#[test]
fn the_first_chain() {
    is_true_after("docs/guide/first-chain.md", &[]);
}

#[test]
fn where_to_ask() {
    is_true_after("docs/guide/where-to-ask.md", &[]);
}

#[test]
fn greylisting() {
    is_true_after("docs/guide/greylisting.md", &[]);
}

#[test]
fn limits() {
    is_true_after("docs/guide/limits.md", &[]);
}

#[test]
fn lists() {
    is_true_after("docs/guide/lists.md", &[]);
}

#[test]
fn users() {
    is_true_after("docs/guide/users.md", &[]);
}

#[test]
fn console() {
    is_true_after("docs/guide/console.md", &[]);
}

#[test]
fn machines() {
    is_true_after("docs/guide/machines.md", &[]);
}

#[test]
fn moving() {
    is_true_after("docs/guide/moving.md", &[]);
}

#[test]
fn from_source() {
    is_true("docs/guide/from-source.md", |_| {});
}

#[test]
fn from_mtpolicyd_2() {
    is_true("docs/guide/from-mtpolicyd-2.md", |machine| {
        machine.types(WITH_MTPOLICYD_2);
    });
}

#[test]
fn from_postgrey() {
    is_true_after("docs/guide/from-postgrey.md", &[WITH_POSTGREY]);
}

#[test]
fn from_policyd_spf() {
    is_true_after("docs/guide/from-policyd-spf.md", &[WITH_POLICYD_SPF]);
}

#[test]
fn from_policyd_rate_limit() {
    is_true_after("docs/guide/from-policyd-rate-limit.md", &[WITH_POLICYD_RATE_LIMIT]);
}

#[test]
fn from_postfwd() {
    is_true_after("docs/guide/from-postfwd.md", &[]);
}

#[test]
fn from_cbpolicyd() {
    is_true_after("docs/guide/from-cbpolicyd.md", &[]);
}

#[test]
fn operating() {
    is_true_after("docs/guide/operating.md", &[WITH_A_FILE]);
}

#[test]
fn events() {
    is_true_after("docs/guide/events.md", &[WITH_A_FILE]);
}

#[test]
fn symptoms() {
    is_true_after("docs/guide/symptoms.md", &[]);
}

#[test]
fn security() {
    is_true_after("docs/guide/security.md", &[]);
}

#[test]
fn numbers() {
    is_true_after("docs/guide/numbers.md", &[]);
}

/// The summary of the book names each page once, and each page of the guide is followed above.
#[test]
fn the_summary_names_every_page() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let named: Vec<_> =
        summary.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to).collect();
    let once: BTreeSet<_> = named.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(once.len(), named.len(), "a page is named twice");
    let mut there = BTreeSet::new();
    for folder in ["", "guide/", "plugins/"] {
        for entry in fs::read_dir(root().join("docs").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") && name != "SUMMARY.md" {
                there.insert(format!("{folder}{name}"));
            }
        }
    }
    // That each name leads somewhere is looked at with the other links.
    let missing: Vec<_> = there.difference(&once).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not name {missing:?}");
    let own = fs::read_to_string(root().join("crates/mtpolicyd/tests/it/guide.rs")).unwrap();
    let pages: Vec<_> = there.iter().filter(|path| path.starts_with("guide/")).collect();
    let unread: Vec<_> = pages.iter().filter(|path| !own.contains(&format!("\"docs/{path}\""))).collect();
    assert!(unread.is_empty(), "no test follows {unread:?}");
}
