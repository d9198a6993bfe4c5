//! A set-up that is right, and one fault in it after the other: each has its code and nothing else is found,
//! and what is printed as a repair makes it go.
//!
//! Knows: main.cf, master.cf, the daemon's file. Must not know: a running Postfix.

use super::{CHECKS, Facts, Finding, Last, Live, Machine, Postfix, look};
use crate::facts::dnslist::ListState;
use crate::metrics::{FamilyView, MetricsView, SeriesView};
use crate::settings::Settings;
use crate::state::{ListReport, ListTest};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

const MAIN: &str = "\
mail_version = 3.7.11
queue_directory = /var/spool/postfix
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, \
check_policy_service { inet:127.0.0.1:12345, default_action=DUNNO, timeout=25s }
smtpd_end_of_data_restrictions = check_policy_service { inet:127.0.0.1:12346, default_action=DUNNO, \
timeout=25s }
";

const MASTER: &str = "\
smtp inet n - y - - smtpd
submission inet n - y - - smtpd -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
pickup unix n - y 60 1 pickup
";

const DAEMON: &str = "\
port = \"127.0.0.1:12345, 127.0.0.1:12346\"
<Connection db>
  module = Sql
  dsn = \"dbi:SQLite:dbname=/tmp/none.sqlite\"
</Connection>
<VirtualHost 12345>
  name = inbound
  <Plugin list>
    module = RBL
    domain = bl.example
  </Plugin>
  <Plugin grey>
    module = Greylist
    <Ticket>
      module = Memory
    </Ticket>
    <AWL>
      module = Sql
    </AWL>
  </Plugin>
</VirtualHost>
<VirtualHost 12346>
  name = outbound
  <Plugin quota>
    module = Quota
    field = sasl_username
    metric = size
    threshold = 1000000
  </Plugin>
  <Plugin acct>
    module = Accounting
    fields = sasl_username
  </Plugin>
</VirtualHost>
";

/// What the running daemon says.
const STATUS: &str = r#"{"version": "3.0.0", "process": 1, "started": "2026-11-30T00:00:00Z",
    "uptime_seconds": 1, "ready": true, "problems": [],
    "configuration": {"file": "/etc/mtpolicyd/mtpolicyd.conf", "hash": "a",
                      "read": "2026-11-30T00:00:00Z", "warnings": 0, "changed": false},
    "log_level": {"level": 2, "configured": 2}, "hosts": [], "ports": [],
    "connections": {"open": 0, "most": 100}, "backends": [], "silent_lists": [],
    "decisions": {"place": "memory", "begins": null, "lost": 0}}"#;

/// A whole set-up.
#[derive(Clone)]
struct Setup {
    main: String,
    master: String,
    daemon: String,
    status: String,
}

impl Setup {
    fn right() -> Setup {
        let [main, master, daemon, status] = [MAIN, MASTER, DAEMON, STATUS].map(str::to_owned);
        Setup { main, master, daemon, status }
    }

    /// The same with a word of one of its texts replaced.
    fn with(&self, from: &str, to: &str) -> Setup {
        let mut setup = self.clone();
        let mut is_there = false;
        for text in [&mut setup.main, &mut setup.master, &mut setup.daemon, &mut setup.status] {
            is_there |= text.contains(from);
            *text = text.replace(from, to);
        }
        assert!(is_there, "{from}");
        setup
    }

    fn facts(&self, machine: Machine) -> Facts {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mtpolicyd.conf");
        fs::write(&path, &self.daemon).unwrap();
        let rights = if self.daemon.contains("password") { 0o644 } else { 0o640 };
        fs::set_permissions(&path, fs::Permissions::from_mode(rights)).unwrap();
        let (settings, messages) = Settings::load(&path, None).unwrap_or_else(|why| panic!("{why}"));
        Facts {
            postfix: Some(Postfix::parse(&self.main, &self.master)),
            settings: Some(settings),
            codes: messages.findings().map(|finding| finding.code).collect(),
            secrets: Vec::new(),
            status: Some(serde_json::from_str(&self.status).expect("it is as the daemon writes it")),
            live: Live::default(),
            machine,
        }
    }

    fn found(&self) -> Vec<Finding> {
        look(&self.facts(Machine::default()))
    }

    /// After a command that was printed.
    fn after(&self, command: &str) -> Setup {
        let mut setup = self.clone();
        let quoted = command.split('\'').nth(1).unwrap_or_default();
        if command.starts_with("postconf -e ") {
            let name = quoted.split(" = ").next().unwrap_or_default();
            let kept = setup.main.lines().filter(|line| !line.starts_with(&format!("{name} =")));
            setup.main = kept.chain([quoted]).collect::<Vec<_>>().join("\n");
        } else if command.starts_with("postconf -P ") {
            let (place, value) = quoted.split_once('=').expect("a value");
            let [service, kind, name] = place.split('/').collect::<Vec<_>>()[..] else { panic!("{place}") };
            let lines = setup.master.lines().map(|line| {
                let mut line = line.to_owned();
                if line.starts_with(&format!("{service} {kind} ")) {
                    for own in [format!(" -o {name}="), format!(" -o {{ {name} =")] {
                        line = line.split(&own).next().unwrap_or_default().to_owned();
                    }
                    line.push_str(&format!(" -o {{ {name} = {value} }}"));
                }
                line
            });
            setup.master = lines.collect::<Vec<_>>().join("\n");
        } else if command.starts_with("postconf -F ") {
            let service = quoted.split('/').next().unwrap_or_default();
            setup.master =
                setup.master.replace(&format!("{service} inet n - y"), &format!("{service} inet n - n"));
        }
        setup
    }
}

const POLICY: &str = "check_policy_service { inet:127.0.0.1:12345, default_action=DUNNO, timeout=25s }";

/// What is replaced by what in the set-up that is right, and the code of the fault that it makes.
type Fault = (&'static str, Vec<(&'static str, String)>);

fn change(code: &'static str, changes: &[(&'static str, &str)]) -> Fault {
    (code, changes.iter().map(|(from, to)| (*from, (*to).to_owned())).collect())
}

/// Faults in the lists of Postfix.
fn faults_of_lists() -> Vec<Fault> {
    let guard = "reject_unauth_destination, ";
    let own_list = "-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject";
    let users = "permit_mynetworks, permit_sasl_authenticated";
    let relay = format!("smtpd_relay_restrictions = {users}, {POLICY}, {guard}reject\nqueue_directory");
    let submission = |list: &str| format!("-o {{ smtpd_recipient_restrictions = {list} }}");
    let early =
        format!("smtpd_delay_reject = no\nsmtpd_sender_restrictions = {users}, {POLICY}\nmail_version");
    let strangers = "smtp inet n - y - - smtpd";
    let not_asked =
        format!("{strangers} -o smtpd_recipient_restrictions= -o smtpd_end_of_data_restrictions=");
    let filter = "127.0.0.1:10025 inet n - y - - smtpd -o smtpd_end_of_data_restrictions= -o \
                  smtpd_recipient_restrictions=permit_sasl_authenticated,check_policy_service,\
                  inet:127.0.0.1:12345\npickup unix";
    let all_defaults = "smtpd_policy_service_default_action = DUNNO\nmail_version";
    let postgrey = format!("{guard}check_policy_service inet:127.0.0.1:10023, ");
    vec![
        change("D01", &[("3.7.11", "2.11.3")]),
        change("D02", &[(POLICY, "permit"), ("check_policy_service { inet:127.0.0.1:12346", "permit # {")]),
        change("D03", &[("inet:127.0.0.1:1234", "inet:127.0.0.1:1235")]),
        change(
            "D04",
            &[
                ("inet:127.0.0.1:12345", "unix:/run/mtpolicyd/policy.sock"),
                ("\"127.0.0.1:12345,", "\"/run/mtpolicyd/policy.sock|unix,"),
                ("<VirtualHost 12345>", "<VirtualHost /run/mtpolicyd/policy.sock>"),
            ],
        ),
        change("D06", &[(guard, "reject_unauth_destination, permit, ")]),
        change("D07", &[("mail_version", "smtpd_relay_restrictions =\nmail_version"), (guard, "")]),
        change("D07", &[("queue_directory", &relay)]),
        change(
            "D08",
            &[(strangers, &not_asked), (own_list, &submission(&format!("permit_mynetworks, {POLICY}")))],
        ),
        change("D08", &[(own_list, &submission(POLICY))]),
        change("D10", &[("mail_version", &early)]),
        change("D18", &[("pickup unix", filter), ("mail_version", all_defaults)]),
        change("D19", &[(guard, &postgrey)]),
    ]
}

/// One fault each.
fn faults() -> Vec<Fault> {
    let late = "smtpd_end_of_data_restrictions = check";
    let mut faults = faults_of_lists();
    faults.extend([
        change("D09", &[("{ inet:127.0.0.1:12345, default_action=DUNNO,", "{ inet:127.0.0.1:12345,")]),
        change(
            "D11",
            &[("12345, default_action=DUNNO, timeout=25s", "12345, default_action=DUNNO, timeout=9s")],
        ),
        change("D11", &[("port =", "request_timeout = 30\nport =")]),
        change("D12", &[("port =", "max_keepalive = 50\nport =")]),
        change("D13", &[("port =", "keepalive_timeout = 5\nport =")]),
        change("D14", &[("port =", "max_connections = 150\nport =")]),
        change("D15", &[(late, "smtpd_sender_restrictions = check"), ("metric = size", "metric = count")]),
        change("D16", &[(late, "smtpd_data_restrictions = check")]),
        change("D17", &[("_restrictions = check", "_restrictions = permit_sasl_authenticated, check")]),
        change("D22", &[("\"silent_lists\": []", "\"silent_lists\": [\"bl.example\"]")]),
        change(
            "D23",
            &[(
                "\"backends\": []",
                "\"backends\": [{\"name\": \"db\", \"module\": \"Sql\", \"state\": \"down\"}]",
            )],
        ),
        change("D24", &[("\"lost\": 0", "\"lost\": 7")]),
        change("D25", &[("module = Sql\n  dsn", "module = Sql\n  password = hunter2\n  dsn")]),
        change("D30", &[("\"changed\": false", "\"changed\": true")]),
    ]);
    faults
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.code).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn what_is_right_has_no_findings() {
    assert_eq!(Setup::right().found(), Vec::<Finding>::new());
}

#[test]
fn each_fault_has_its_code_and_nothing_else() {
    let mut wrong = Vec::new();
    for (code, changes) in faults() {
        let setup = changes.iter().fold(Setup::right(), |setup, (from, to)| setup.with(from, to));
        let found = setup.found();
        if codes(&found) != [code] {
            wrong.push(format!("{code} by {changes:?}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_printed_as_a_repair_makes_the_finding_go() {
    for (code, changes) in faults() {
        let setup = changes.iter().fold(Setup::right(), |setup, (from, to)| setup.with(from, to));
        let commands: Vec<String> = setup.found().into_iter().flat_map(|finding| finding.fix).collect();
        if !commands.iter().any(|command| command.starts_with("postconf")) {
            continue;
        }
        let repaired = commands.iter().fold(setup, |setup, command| setup.after(command));
        let left = repaired.found();
        assert!(!codes(&left).contains(&code), "{code}: {commands:#?}\n{left:#?}\n{}", repaired.main);
    }
}

#[test]
fn the_machine_is_looked_at() {
    let cron = "0 * * * * mtpolicyd /usr/bin/mtpolicyd --cron hourly\n";
    let unit = |line: &str| Machine { unit: Some(format!("[Service]\n{line}\n")), ..Machine::default() };
    let verify = DAEMON
        .replace("module = RBL\n    domain = bl.example", "module = SMTPVerify\n    perm_fail_score = 1");
    let netlink = "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX";
    for (code, daemon, machine) in [
        (
            "D05",
            DAEMON.to_owned(),
            Machine { closed_sockets: vec![("/run/p.sock".into(), "no".into())], ..Machine::default() },
        ),
        (
            "D20",
            format!("cron = on\n{DAEMON}"),
            Machine { cron: Some(cron.to_owned()), ..Machine::default() },
        ),
        (
            "D21",
            DAEMON.to_owned(),
            Machine { resolvers: vec!["8.8.8.8".parse().unwrap()], ..Machine::default() },
        ),
        ("D21", format!("<Dns>\nservers = 1.1.1.1\n</Dns>\n{DAEMON}"), Machine::default()),
        ("D26", verify.clone(), unit(netlink)),
        ("D23", DAEMON.to_owned(), Machine { denied: vec!["acct: no".to_owned()], ..Machine::default() }),
        ("D23", DAEMON.to_owned(), Machine { unanswered: vec!["db".to_owned()], ..Machine::default() }),
        ("D25", DAEMON.to_owned(), Machine { readable: vec!["/etc/k".into()], ..Machine::default() }),
        ("D25", DAEMON.to_owned(), Machine { open_data: vec!["/var/j".into()], ..Machine::default() }),
        ("D25", DAEMON.to_owned(), Machine { writable: vec!["/etc/c".into()], ..Machine::default() }),
        ("D25", DAEMON.to_owned(), Machine { no_access: vec!["x".to_owned()], ..Machine::default() }),
        ("D26", DAEMON.to_owned(), unit("NoNewPrivileges=no")),
        ("D26", DAEMON.to_owned(), unit("ProtectHome = false")),
        ("D26", DAEMON.to_owned(), unit("SystemCallFilter=")),
        ("D26", DAEMON.to_owned(), unit("User=root")),
        ("D26", DAEMON.to_owned(), Machine { exposure: Some(9.2), ..Machine::default() }),
        ("D27", DAEMON.to_owned(), Machine { is_clock_set: Some(false), ..Machine::default() }),
        ("D27", DAEMON.to_owned(), Machine { from_the_future: vec!["/f".into()], ..Machine::default() }),
        ("D28", DAEMON.to_owned(), Machine { free: vec![("/var/lib".into(), 3)], ..Machine::default() }),
        (
            "D29",
            format!("max_connections = 1000\n{DAEMON}"),
            Machine { open_files: Some(1024), ..Machine::default() },
        ),
    ] {
        let found = look(&Setup { daemon, ..Setup::right() }.facts(machine));
        assert_eq!(codes(&found), [code], "{found:#?}");
    }
    for (daemon, machine) in [
        (DAEMON.to_owned(), Machine { cron: Some(cron.to_owned()), ..Machine::default() }),
        (DAEMON.to_owned(), Machine { resolvers: vec!["127.0.0.1".parse().unwrap()], ..Machine::default() }),
        (DAEMON.to_owned(), unit(netlink)),
        (DAEMON.to_owned(), unit("NoNewPrivileges=yes\nProtectHome=yes\nUser=mtpolicyd\n# PrivateTmp=no")),
        (DAEMON.to_owned(), Machine { exposure: Some(1.4), ..Machine::default() }),
        (DAEMON.to_owned(), Machine { is_clock_set: Some(true), ..Machine::default() }),
        (verify, unit(&format!("{netlink} AF_NETLINK"))),
        (DAEMON.to_owned(), Machine { free: vec![("/var/lib".into(), 30_000)], ..Machine::default() }),
        (DAEMON.to_owned(), Machine { open_files: Some(1024), ..Machine::default() }),
    ] {
        let found = look(&Setup { daemon, ..Setup::right() }.facts(machine));
        assert_eq!(found, Vec::<Finding>::new());
    }
}

/// Numbers of a daemon that have no labels.
fn numbers(all: &[(&str, f64)]) -> MetricsView {
    let family = |(name, value): &(&str, f64)| FamilyView {
        name: (*name).to_owned(),
        series: vec![SeriesView { value: *value, ..SeriesView::default() }],
        ..FamilyView::default()
    };
    MetricsView { families: all.iter().map(family).collect() }
}

fn list(state: ListState, quarantined: bool) -> ListReport {
    let answer =
        ListTest { asked: "2.0.0.127".into(), expected: true, answer: "no".into(), right: false, took: 1 };
    let (since, tested, silent_for) = (None, None, None);
    let (zone, plugins, tests) = ("bl.example".to_owned(), Vec::new(), vec![answer]);
    ListReport { zone, plugins, state, quarantined, since, tested, silent_for, failures: 0, tests }
}

#[test]
fn what_the_daemon_says_of_lists_and_of_the_journal_is_looked_at() {
    let day = 86_400.0;
    let journal = |up: f64, bytes: f64, age: f64| {
        let all = [
            ("mtpolicyd_journal_up", up),
            ("mtpolicyd_journal_bytes", bytes),
            ("mtpolicyd_journal_oldest_seconds", age),
        ];
        Live { metrics: numbers(&all), ..Live::default() }
    };
    let of_list =
        |state, is_quarantined| Live { lists: vec![list(state, is_quarantined)], ..Live::default() };
    let mib = 1_048_576.0;
    for (code, live) in [
        (Some("D22"), of_list(ListState::ListsEverybody, false)),
        (Some("D22"), of_list(ListState::Well, true)),
        (None, of_list(ListState::Well, false)),
        (None, of_list(ListState::NotTestable, false)),
        (Some("D24"), journal(0.0, 0.0, 0.0)),
        // 512 MiB are full after less than five days, and after ten.
        (Some("D24"), journal(1.0, 100.0 * mib, day)),
        (None, journal(1.0, 48.0 * mib, day)),
        // Too little, or too young, to say anything.
        (None, journal(1.0, 0.5 * mib, 2.0 * day / 24.0)),
        (None, journal(1.0, 400.0 * mib, 600.0)),
    ] {
        let setup = Setup { daemon: format!("<Journal>\n</Journal>\n{DAEMON}"), ..Setup::right() };
        let metrics = live.metrics.clone();
        let found = look(&Facts { live, ..setup.facts(Machine::default()) });
        assert_eq!(codes(&found), code.into_iter().collect::<Vec<_>>(), "{metrics:?} {found:#?}");
    }
    let both = Setup::right().with("\"silent_lists\": []", "\"silent_lists\": [\"bl.example\"]");
    let found = look(&Facts { live: of_list(ListState::Silent, true), ..both.facts(Machine::default()) });
    assert_eq!(found.len(), 1, "a list is named once: {found:#?}");
}

#[test]
fn silence_is_a_finding_while_postfix_takes_messages() {
    let ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3_600 + 60);
    let old = Setup::right().with("\"uptime_seconds\": 1", "\"uptime_seconds\": 100000");
    let asked = |count: f64, last_decision| Live {
        metrics: numbers(&[("mtpolicyd_requests_total", count)]),
        last_decision,
        ..Live::default()
    };
    let (never, long_ago, just_now) = (Last::Never, Last::At(ago(2)), Last::At(ago(0)));
    for (is_found, setup, live, mail) in [
        (true, &old, asked(0.0, Some(never)), Some(ago(0))),
        (true, &old, asked(9.0, Some(long_ago)), Some(ago(0))),
        (false, &old, asked(9.0, Some(just_now)), Some(ago(0))),
        // Decisions are not kept.
        (false, &old, asked(9.0, Some(never)), Some(ago(0))),
        (false, &old, asked(9.0, None), Some(ago(0))),
        (false, &old, asked(0.0, Some(never)), Some(ago(2))),
        (false, &old, asked(0.0, Some(never)), None),
        (false, &Setup::right(), asked(0.0, Some(never)), Some(ago(0))),
    ] {
        let machine = Machine { last_mail: mail, ..Machine::default() };
        let last = live.last_decision;
        let found = look(&Facts { live, ..setup.facts(machine) });
        let expected = if is_found { vec!["D31"] } else { Vec::new() };
        assert_eq!(codes(&found), expected, "{last:?}, mail {mail:?}: {found:#?}");
    }
}

#[test]
fn without_postfix_or_a_daemon_the_rest_is_looked_at() {
    let mut facts = Setup::right().with("\"changed\": false", "\"changed\": true").facts(Machine::default());
    facts.postfix = None;
    assert_eq!(codes(&look(&facts)), ["D30"]);
    facts.status = None;
    assert_eq!(look(&facts), Vec::<Finding>::new());
    // Without the daemon's configuration every policy service may be ours.
    let facts = Facts {
        postfix: Some(Postfix::parse("smtpd_recipient_restrictions = check_policy_service inet:a:1\n", "")),
        ..Facts::default()
    };
    assert_eq!(codes(&look(&facts)), ["D09"]);
}

#[test]
fn each_check_is_tested_and_has_a_row_in_the_manual() {
    let mut tested: BTreeSet<_> = faults().into_iter().map(|(code, _)| code).collect();
    tested.extend(["D05", "D20", "D21", "D26", "D27", "D28", "D29", "D31"]);
    let page = include_str!("../../../../docs/doctor.md");
    for check in CHECKS {
        assert!(tested.contains(check.code), "{}", check.code);
        assert!(page.contains(&format!("| {} | {} |", check.code, check.title)), "{}", check.code);
    }
}
