//! Every mistake and every doubt has its code and its line, what is right is not doubted, and what is known
//! can be allowed.
//!
//! Knows: the codes, the command line. Must not know: how a mistake is found.

use crate::support::daemon::{OK, PROGRAM, Site, errors_of, output_of, run};
use crate::support::leaves_out;
use mtpolicyd::manual::check_page;
use mtpolicyd::options::codes;
use mtpolicyd::settings::Settings;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is found in a configuration, as `CODE:LINE`, without notices.
fn found(text: &str) -> Vec<String> {
    let site = Site::new();
    site.configure_bytes(text.as_bytes());
    fs::set_permissions(site.config(), fs::Permissions::from_mode(0o640)).expect("it is ours");
    found_in(&site.config())
}

fn found_in(path: &Path) -> Vec<String> {
    let messages = match Settings::load(path, None) {
        Ok((_, messages)) | Err(messages) => messages,
    };
    let findings = messages.findings().filter(|finding| finding.severity != "notice");
    findings.map(|finding| format!("{}:{}", finding.code, finding.line.unwrap_or_default())).collect()
}

/// A file with these plugins, and more behind the host.
fn file(plugins: &str, behind: &str) -> String {
    let host = "port = \"127.0.0.1:12345\"\n<VirtualHost 12345>\n name = h\n";
    format!("{host}{plugins}\n</VirtualHost>\n{behind}")
}

fn plugin(name: &str, options: &str) -> String {
    format!("<Plugin {name}>\n{options}\n</Plugin>\n")
}

const ACTION: &str = "<Plugin last>\nmodule = Action\naction = dunno\n</Plugin>";

const READER: &str = "<Plugin score>\nmodule = ScoreAction\nthreshold = 5\naction = reject no\n</Plugin>";

const LIST: &str = "module = RBL\ndomain = bl.example\nmode = passive";

/// One mistake each: the code, a word of the line that it is on, and the plugins.
fn in_plugins() -> Vec<(&'static str, &'static str, String)> {
    let rbl = |options: &str| plugin("bl", &format!("module = RBL\n{options}"));
    let action = |options: &str| plugin("a", &format!("module = Action\n{options}"));
    let condition = |options: &str| plugin("c", &format!("module = Condition\n{options}\naction = dunno"));
    vec![
        ("E003", "<VirtualHost", "<Plugin open>\nmodule = Action\naction = dunno".to_owned()),
        ("E005", "a = 2", "<a>\n</a>\na = 2\n".to_owned() + ACTION),
        ("E010", "action = second", action("action = dunno\naction = second")),
        ("E011", "<Plugin a>", action("")),
        ("E012", "rejcet", rbl("domain = bl.example\nmode = rejcet")),
        ("E012", "many", rbl("domain = bl.example\nmode = passive\nscore = many") + READER),
        ("E012", "(open", condition("key = sender\nre_match = (open")),
        ("E012", "soon", rbl("domain = bl.example\ntime_limit = soon")),
        ("E012", "sesion", condition("key = sesion:a\nmatch = b")),
        ("E013", "field = sender", {
            plugin("m", "module = PostfixMap\ndb_file = /x\nfield = sender\nmatch_action = OK")
        }),
        ("E014", "<Plugin p>", plugin("p", "module = Proxy")),
        ("E014", "dsn =", plugin("awl", "module = SaAwlLookup\ndb_file = /f\ndsn = dbi:SQLite:/f")),
        (
            "E015",
            "<Plugin  a>",
            action("action = dunno") + "<Plugin  a>\nmodule = Action\naction = OK\n</Plugin>",
        ),
        ("E016", "<Plugin>", "<Plugin>\nmodule = Action\naction = dunno\n</Plugin>".to_owned()),
        ("E017", "Acton", plugin("a", "module = Acton")),
        ("E018", "db = none", plugin("l", "module = SqlList\ndb = none\nmatch_action = reject")),
        ("W001", "cut#here", action("action = reject cut#here")),
        ("W002", "'reject'", action("action = 'reject'")),
        ("W003", "*/", action("action = dunno\nx */ name = y").replace("x */ name = y", "*/")),
        ("W006", "</Plugn>", "<Plugin a>\nmodule = Action\naction = dunno\n</Plugn>".to_owned()),
        ("W010", "domian", rbl("domain = bl.example\nmode = reject\ndomian = x")),
        ("W010", "<Plugn", "<Plugn a>\n</Plugn>\n".to_owned() + ACTION),
        (
            "W011",
            "action\n",
            plugin("c", "module = Condition\nkey = sender\nmatch = a\naction\nscore = 1") + READER,
        ),
        ("W012", "remember", action("action = dunno\nremember")),
        ("W013", "password", plugin("l", "module = SaAwlLookup\ndb_file = /f\nuser = password")),
        ("W014", "<Plugin c>", plugin("c", "module = Condition\nkey = sender\naction = dunno")),
        ("W016", "rejct", action("action = rejct no")),
        ("W016", "550", action("action = 550")),
        ("W017", "broken(", plugin("r", "module = RegexList\nkey = sender\naction = dunno\nregex = broken(")),
        ("W021", "token", plugin("h", "module = HttpLookup\nurl = http://192.0.2.1/\ntoken = abc")),
        ("W030", "domain = 300", rbl("domain = 300..x")),
    ]
}

/// The same for lists, and for what plugins leave for one another.
fn between_plugins() -> Vec<(&'static str, &'static str, String)> {
    let rbl = |options: &str| plugin("bl", &format!("module = RBL\n{options}"));
    let condition = |options: &str| plugin("c", &format!("module = Condition\n{options}\naction = dunno"));
    let in_stage = |stage: &str, inner: &str| {
        let inner = plugin("inner", inner);
        plugin("at", &format!("module = Condition\nkey = protocol_state\nmatch = {stage}\n{inner}"))
    };
    let limit = |count: &str| {
        format!("module = RateLimit\nkey = sender\nlimit = 1/1h\ncount = {count}\nstore = memory")
    };
    vec![
        ("W031", "accept", rbl("domain = list.dnswl.org\nmode = accept")),
        ("W032", "127.0.0.255", rbl("domain = list.dnswl.org\nmode = accept\nreturn_codes = 127.0.0.255")),
        ("W033", "reject", rbl("domain = list.dnswl.org\nreturn_codes = 127.0.5.1\nmode = reject")),
        ("W034", "sorbs", rbl("domain = dnsbl.sorbs.net")),
        ("W034", "njabl", plugin("d", "module = DBL\ndomain = rhsbl.njabl.org")),
        ("W040", "score = 3", plugin("bl", &format!("{LIST}\nscore = 3"))),
        ("W040", "pass_score", plugin("s", "module = SPF\nscore_field = spf\npass_score = -1") + READER),
        (
            "W041",
            "<Plugin late>",
            ACTION.to_owned() + "\n<Plugin late>\nmodule = Action\naction = OK\n</Plugin>",
        ),
        ("W041", "<Plugin last>", plugin("p", "module = Proxy\nhost = 127.0.0.1:1") + ACTION),
        ("W042", "result_from", plugin("x", "module = RBLAction\nresult_from = none\nre_match = ^127")),
        ("W042", "result_from", {
            let action = plugin("x", "module = RBLAction\nresult_from = bl\nre_match = ^127");
            action + &plugin("bl", LIST)
        }),
        ("W042", "result_from", {
            let lookup = plugin("bl", LIST);
            lookup + &plugin("x", "module = GeoIPAction\nresult_from = bl\ncountry_codes = DE")
        }),
        ("W043", "session:oponion", {
            let eval = format!(
                "module = Eval\nstore_in = opinion\n{}",
                plugin("inner", "module = Action\naction = OK")
            );
            plugin("e", &eval) + &condition("key = session:oponion\nmatch = OK")
        }),
        ("W043", "uc_enabled", plugin("bl", &format!("{LIST}\nuc_enabled = wanted"))),
        ("W043", "uc_enabled", {
            let list = plugin("bl", &format!("{LIST}\nuc_enabled = wanted"));
            list + &plugin("set", "module = SetField\nkey = wanted\nvalue = off")
        }),
        ("W044", "count = bytes", in_stage("RCPT", &limit("bytes"))),
        ("W044", "count = recipients", in_stage("MAIL", &limit("recipients"))),
        ("W045", "END_OF_MESSAGE", in_stage("END_OF_MESSAGE", &limit("bytes"))),
        ("W050", "timeout = 30", plugin("h", "module = HttpLookup\nurl = http://127.0.0.1/\ntimeout = 30")),
        ("W050", "time_limit = 20", rbl("domain = bl.example\ntime_limit = 20")),
        ("W090", "# mtpolicyd: allow W031", "# mtpolicyd: allow W031\n".to_owned() + ACTION),
        ("W091", "# mtpolicyd: allow W987", "# mtpolicyd: allow W987\n".to_owned() + ACTION),
        ("W091", "# mtpolicyd: allow E012", "# mtpolicyd: allow E012\n".to_owned() + ACTION),
    ]
}

/// The same outside the plugins.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("E001", "none.conf", "<<include none.conf>>\n"),
    ("E002", "<<include>>", "<<include>>\n"),
    ("E003", "</b>", "</b>\n"),
    ("E012", "loud", "log_level = loud\n"),
    ("E015", "<Dns >", "<Dns>\n</Dns>\n<Dns >\n</Dns>\n"),
    ("E012", "Postgress", "<Connection db>\nmodule = Postgress\n</Connection>\n"),
    ("E019", "db_dsn", "db_dsn = \"dbi:mysql:mail\"\n"),
    ("E020", "<VirtualHost 12346>", "<VirtualHost 12346>\nname = x\n</VirtualHost>\n"),
    ("W005", "EOT", "user = <<EOT\nx\n"),
    (
        "W007",
        "<Connection a>",
        "<Connection>\n</Connection>\n<Connection a>\nmodule = Memory\n</Connection>\n",
    ),
    ("W009", "here.pid", "pid_file = here.pid\n"),
    ("W010", "max_severs", "max_severs = 5\n"),
    (
        "W014",
        "<VirtualHost 1>",
        "<VirtualHost 1>\nname = x\n<Plugin a>\nmodule = Action\naction = OK\n</Plugin>\n</VirtualHost>\n",
    ),
    (
        "W019",
        "shadow = ",
        "<VirtualHost 1>\nname = x\nshadow = /nothere/new.conf\n<Plugin a>\nmodule = Action\naction = OK\n\
         </Plugin>\n</VirtualHost>\n",
    ),
    ("W022", "group = ", "group = nogroup\n"),
    ("W050", "request_timeout", "request_timeout = 120\n"),
    (
        "W051",
        "lock_timeout",
        "<Connection redis>\nmodule = Redis\n</Connection>\n<SessionCache>\nmodule = Redis\n\
         lock_timeout = 2\n</SessionCache>\n",
    ),
];

/// Where a word stands, as a line from 1.
fn line_of(word: &str, text: &str) -> usize {
    let at = text.find(word).unwrap_or_else(|| panic!("there is no `{word}` in\n{text}"));
    text[..at].matches('\n').count() + 1
}

#[test]
fn each_mistake_has_its_code_and_its_line() {
    let in_plugins = in_plugins()
        .into_iter()
        .chain(between_plugins())
        .map(|(code, word, text)| (code, word, file(&text, "")));
    let elsewhere = ELSEWHERE.iter().map(|(code, word, text)| (*code, *word, file(ACTION, text)));
    let mut wrong = Vec::new();
    let mut codes = BTreeSet::new();
    for (code, word, text) in in_plugins.chain(elsewhere) {
        let expected = format!("{code}:{}", line_of(word, &text));
        let found = found(&text);
        if !found.contains(&expected) || found.len() > 3 {
            wrong.push(format!("{expected} in\n{text}--- found {found:?}"));
        }
        codes.insert(code);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // What needs another machine, a huge file or another user has its test elsewhere.
    let elsewhere =
        ["E004", "E021", "E099", "W004", "W008", "W015", "W018", "W020", "W023", "W024", "W025", "W099"];
    let untested = codes::all().into_iter().map(|code| code.id);
    let untested: Vec<_> = untested
        .filter(|id| !id.starts_with('N') && !codes.contains(id) && !elsewhere.contains(id))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn what_is_right_is_not_doubted() {
    let user_settings = "module = SqlUserConfig";
    let database = "<Connection db>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname=/tmp/x\"\n</Connection>\n";
    let scored = plugin("bl", &format!("{LIST}\nscore = 3"));
    let users = plugin("bl", &format!("{LIST}\nuc_enabled = wanted"));
    let by_score = "module = Condition\nkey = session:score\ngt_match = 3\naction = reject no";
    let proxy = "module = Proxy\nhost = 127.0.0.1:1\non_error = continue";
    let bytes = "module = RateLimit\nkey = sender\nlimit = 1M/1h\ncount = bytes\nstore = memory";
    let stage = "module = Condition\nkey = protocol_state\nmatch = END-OF-MESSAGE\n";
    let not_stage = "module = Condition\nkey = protocol_state\nmatch = RCPT\ninvert = 1\n";
    for (plugins, behind) in [
        (scored.clone() + READER, ""),
        (scored.clone() + &plugin("c", by_score), ""),
        (scored.clone() + &plugin("h", "module = AddScoreHeader"), ""),
        // Before a plugin that only reads: the next request of the message reads it.
        (READER.to_owned() + "\n" + &scored, ""),
        (plugin("bl", &format!("{LIST}\nscore = 0")), ""),
        (plugin("u", user_settings) + &users, database),
        (plugin("s", "module = SetField\nkey = wanted\nvalue = off") + &users, ""),
        (plugin("c", "module = Condition\nkey = session:rbl-bl-result\nmatch = x\naction = OK"), ""),
        (plugin("bl", LIST) + &plugin("x", "module = RBLAction\nresult_from = bl\nre_match = ^127"), ""),
        (plugin("p", proxy) + ACTION, ""),
        (plugin("at", &(stage.to_owned() + &plugin("r", bytes))), ""),
        (plugin("at", &(not_stage.to_owned() + &plugin("r", bytes))), ""),
        (plugin("r", bytes), ""),
        (plugin("bl", "module = RBL\ndomain = bl.example\ntime_limit = 19"), ""),
        (ACTION.to_owned(), "request_timeout = 90\n"),
        (ACTION.to_owned(), "request_timeout = 0\n"),
    ] {
        let text = file(&plugins, behind);
        assert_eq!(found(&text), Vec::<String>::new(), "{text}");
    }
}

/// Hosts share the sessions: one is asked at RCPT and another one at the end of the message.
#[test]
fn what_another_host_finds_counts() {
    let first = plugin("x", "module = RBLAction\nresult_from = bl\nre_match = ^127\nscore = 1")
        + &plugin("c", "module = Condition\nkey = session:wanted\nmatch = x\naction = OK");
    let second = plugin("bl", LIST) + &plugin("s", "module = SetField\nkey = wanted\nvalue = x") + READER;
    let other = format!("<VirtualHost 12346>\nname = other\n{second}\n</VirtualHost>\n");
    let text = file(&first, &other).replace("12345\"", "12345, 127.0.0.1:12346\"");
    assert_eq!(found(&text), Vec::<String>::new(), "{text}");
}

#[test]
fn a_known_doubt_can_be_allowed() {
    let list = "module = RBL\nmode = accept\n";
    let known = |before: &str, behind: &str| {
        let options = format!("{list}{before}domain = dnsbl.sorbs.net{behind}\nreturn_codes = 127.0.0.2");
        found(&file(&plugin("bl", &options), ""))
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(known("", ""), ["W034:7"]);
    assert_eq!(known("# mtpolicyd: allow W034\n", ""), none);
    assert_eq!(known("\t#mtpolicyd: allow w034, our own copy\n\n  # more\n", ""), none);
    assert_eq!(known("", "   # mtpolicyd: allow W034"), none);
    // On another line, for another doubt, or for one that is not there.
    assert_eq!(known("# mtpolicyd: allow W034\nipv6 = on\n", ""), ["W090:7", "W034:9"]);
    assert_eq!(known("# mtpolicyd: allow W031\n", ""), ["W090:7", "W034:8"]);
    assert_eq!(known("# mtpolicyd: allow W034 W031\n", ""), ["W090:7"]);
    assert_eq!(known("# mtpolicyd: allow\n", ""), ["W091:7", "W034:8"]);
    assert_eq!(known("# mtpolicyd: main server\n", ""), ["W034:8"]);
    // Not a comment.
    let text =
        file(&plugin("a", "module = Action\naction = <<EOT\nreject \\# mtpolicyd: allow W034\nEOT"), "");
    assert_eq!(found(&text), none);
    // A value on several lines is one option, and a block has its tag.
    let text = plugin("a", "module = Action\n# mtpolicyd: allow W016\naction = <<EOT\nrejct\nEOT");
    assert_eq!(found(&file(&text, "")), none);
    let text =
        ACTION.to_owned() + "\n# mtpolicyd: allow W041\n" + &plugin("z", "module = Action\naction = OK");
    assert_eq!(found(&file(&text, "")), none);
    // With a mistake in the file not everything was looked at.
    let text = plugin("a", "# mtpolicyd: allow W016\nmodule = Action\naction = dunno\naction = OK");
    assert_eq!(found(&file(&text, "")), ["E010:8"]);
}

fn check(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(Command::new(PROGRAM).arg("check").args(arguments).arg(site.config()), b"");
    (output.status.code(), output_of(&output), errors_of(&output))
}

#[test]
fn findings_are_counted_and_printed_for_programs() {
    let doubtful = OK.replace("action = \"OK\"", "action = \"OK\"\n    colour = red");
    let site = Site::with(&format!("min_servers = 4\n{doubtful}"));
    let (code, said, errors) = check(&site, &[]);
    assert!(code == Some(0) && said.ends_with("the configuration can be used\n"), "{said}");
    assert!(errors.contains("warning[W010]: Plugin ok has no option `colour`"), "{errors}");
    assert!(errors.contains("0 mistakes, 1 doubt in 1 file, 1 plugin, "), "{errors}");
    let (code, said, _) = check(&site, &["--format", "json", "--strict"]);
    assert_eq!(code, Some(1));
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let doubt = lines.iter().find(|line| line["code"] == "W010").expect("it is there");
    assert_eq!(
        (&doubt["severity"], &doubt["line"], &doubt["column"]),
        (&"warning".into(), &8.into(), &5.into())
    );
    assert_eq!(doubt["file"], site.config().display().to_string());
    assert!(doubt["message"].as_str().unwrap().contains("colour") && doubt.get("help").is_some());
    assert!(lines.iter().any(|line| line["code"] == "N001" && line["severity"] == "notice"), "{said}");
    // A mistake as well; then nothing else is on the standard output.
    site.configure(&doubtful.replace("\"Action\"", "Acton"));
    let (code, said, errors) = check(&site, &["--format", "json"]);
    assert!(code == Some(1) && said.contains("\"E017\"") && errors.contains("1 mistake, "), "{said}{errors}");
    assert!(said.lines().all(|line| line.starts_with('{')), "{said}");
    // Doubts about the machine have no place, and are allowed anywhere.
    site.configure(&format!("pid_file = \"$DIR/none/x\"\n{OK}"));
    let (code, said, _) = check(&site, &["--format", "json", "--strict"]);
    assert!(code == Some(1) && said.contains("\"W023\""), "{said}");
    site.configure(&format!("pid_file = \"$DIR/none/x\"  # mtpolicyd: allow W023\n{OK}"));
    let (code, said, errors) = check(&site, &["--strict"]);
    assert_eq!(code, Some(0), "{said}{errors}");
}

#[test]
fn a_code_is_explained() {
    let explain = |code: &str| run(Command::new(PROGRAM).args(["check", "--explain", code]), b"");
    let output = explain("w031");
    let said = output_of(&output);
    assert!(output.status.success() && said.starts_with("W031: "), "{said}");
    assert!(said.contains("Right to ignore: ") && said.contains("# mtpolicyd: allow W031"), "{said}");
    assert!(!output_of(&explain("E012")).contains("ignore"));
    let unknown = explain("W999");
    assert_eq!(unknown.status.code(), Some(2), "{}", errors_of(&unknown));
    for code in codes::all() {
        assert!(check_page().contains(&format!("### {}: {}\n", code.id, code.title)), "{}", code.id);
    }
}

/// Doubts about configurations that are used as they are, each looked at by a person: it is right.
const REVIEWED: &[(&str, &[&str])] = &[
    // Debian's default file asks three closed lists and lets in whoever an allow list answers about.
    ("/etc/mtpolicyd/mtpolicyd.conf", &["W031", "W034", "W051"]),
    // Cases of what happens without a lookup, without a field, behind an action, with a short lock.
    ("geoip/no-lookup", &["W042"]),
    ("saawl/no-lookup", &["W042"]),
    ("rblaction/without-lookup", &["W042"]),
    ("condition/invert", &["W043"]),
    ("action/basic", &["W041"]),
    ("on-error/default", &["W041"]),
    ("protocol/multi-action", &["W041"]),
    ("proxy/tcp", &["W041"]),
    ("session/lock", &["W051"]),
    ("rbl/", &["W031"]),
];

/// What `check` said already before doubts about the chain came up: of actions, paths, the text of a file.
const OLDER: &[&str] = &["W00", "W01", "W02"];

/// The files of `MTPOLICYD_CASES`, a folder of configurations, are looked at as well.
#[test]
fn configurations_that_are_in_use_are_not_doubted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert_eq!(found_in(&root.join("etc/mtpolicyd.conf")), Vec::<String>::new());
    let mut files = Vec::new();
    collect(&root.join("examples"), &mut files);
    match PathBuf::from("/etc/mtpolicyd/mtpolicyd.conf") {
        debians if debians.exists() => files.push(debians),
        _ => leaves_out("mtpolicyd of Debian is not installed", "its default file"),
    }
    if let Some(folder) = std::env::var_os("MTPOLICYD_CASES") {
        collect(Path::new(&folder), &mut files);
    }
    for path in files {
        let shown = path.display().to_string();
        let reviewed = REVIEWED.iter().filter(|(name, _)| shown.contains(name));
        let reviewed: Vec<&str> = reviewed.flat_map(|(_, codes)| codes.iter().copied()).collect();
        let doubts = found_in(&path).into_iter().filter(|doubt| {
            let code = doubt.split(':').next().unwrap_or_default();
            let is_old = code.starts_with('E') || OLDER.iter().any(|old| code.starts_with(old));
            !is_old && !reviewed.contains(&code)
        });
        assert_eq!(doubts.collect::<Vec<_>>(), Vec::<String>::new(), "{shown}");
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
}
