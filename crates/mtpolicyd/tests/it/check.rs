//! `mtpolicyd check`, and what else is said of a file before it is used.
//!
//! Knows: the command line, users, files. Must not know: what plugins do.

use crate::support::daemon::{OK, PROGRAM, Site, errors_of, output_of, run};
use crate::support::is_root_or_leaves_out;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The exit code of `check`, and what it said.
fn check(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(Command::new(PROGRAM).arg("check").args(arguments).arg(site.config()), b"");
    (output.status.code(), errors_of(&output) + &output_of(&output))
}

#[test]
fn a_mistake_is_not_followed_by_others_that_are_none() {
    let greylist = "<Plugin grey>\nmodule = Greylist\nmin_retry_wait = soon\n<Ticket>\n\
                    module = Memory\n</Ticket>\n<AWL>\nmodule = Memory\n</AWL>\n</Plugin>\n";
    let site = Site::with(&OK.replace("</VirtualHost>", &format!("{greylist}</VirtualHost>")));
    let (code, said) = check(&site, &[]);
    assert!(code == Some(1) && said.contains("min_retry_wait"), "{said}");
    assert!(!said.contains("Ticket") && !said.contains("AWL"), "{said}");
}

#[test]
fn mistakes_come_last_whatever_else_is_said() {
    let warning = |name| format!("<Plugin {name}>\nmodule = Action\naction = OK\nnone_such = 1\n</Plugin>\n");
    let warnings: String = ["a", "b", "c", "d"].map(warning).concat();
    let text = OK.replace("module = \"Action\"", "module = \"Actoin\"");
    let site =
        Site::with(&format!("min_servers = 4\n{}", text.replace("</Virt", &format!("{warnings}</Virt"))));
    let (code, said) = check(&site, &[]);
    assert_eq!(code, Some(1));
    // `systemctl status` shows ten lines.
    let lines: Vec<_> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(10)..].join("\n");
    assert!(end.contains("Actoin") && !end.contains("none_such"), "{said}");
    assert!(end.ends_with("the configuration can't be used: 1 error"), "{said}");
}

/// Options of Net::Server, which the original passes on to it.
const NET_SERVER: &str = "background = 1\nsetsid = 1\ncheck_for_dead = 30\ncheck_for_waiting = 10\n\
                          serialize = flock\nlisten = 128\nreverse_lookups = 0\nallow = 127.0.0.1\n";

#[test]
fn options_of_the_original_that_do_nothing_or_something_now_are_notices() {
    let greylist = "<Plugin grey>\nmodule = Greylist\nmin_retry_wait = 60\nuse_autowl = 1\n<Ticket>\n\
                    module = Memory\n</Ticket>\n<AWL>\nmodule = Memory\n</AWL>\n</Plugin>\n";
    let text = OK.replace("  <Plugin ok>", &format!("{greylist}<Plugin ok>"));
    let site = Site::with(&format!("user = root\nmin_servers = 4\nmax_requests = 1000\n{NET_SERVER}{text}"));
    let (code, said) = check(&site, &["--strict"]);
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "notice[N001]: min_servers, max_requests: no effect",
        "notice[N001]: background, setsid, check_for_dead, check_for_waiting, serialize, listen, \
         reverse_lookups, allow: no effect",
        "min_retry_wait: mtpolicyd 2.05 ignored it and waited 300 seconds; now `60` holds",
        "never counted beyond 1",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
}

#[test]
fn what_the_daemons_user_can_not_read_or_write_is_told() {
    if !is_root_or_leaves_out("what the daemon's user can't read") {
        return;
    }
    let plugins = "<Plugin list>\nmodule = RegexList\nkey = sender\naction = reject\n\
                   file = \"$DIR/list\"\n</Plugin>\n<Plugin map>\nmodule = PostfixMap\n\
                   db_file = \"texthash:$DIR/map\"\nmatch_action = reject\n</Plugin>\n</VirtualHost>\n\
                   <Connection db>\nmodule = Sql\n\
                   dsn = \"dbi:SQLite:dbname=$DIR/db.sqlite\"\n</Connection>\n";
    let text = OK.replace("</VirtualHost>\n", plugins);
    let site = Site::with(&format!("pid_file = \"$DIR/none/d.pid\"\n{text}"));
    for name in ["list", "map"] {
        fs::write(site.path(name), "").unwrap();
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (code, said) = check(&site, &["--as", "root"]);
    assert!(code == Some(0) && said.contains("for user root: ") && said.contains("none: No such"), "{said}");
    let troubles =
        ["list`: Permission denied", "can't read", "map: Permission denied", "can't make", "db.sqlite"];
    let (code, said) = check(&site, &["--as", "nobody"]);
    assert!(code == Some(0) && troubles.iter().all(|words| said.contains(words)), "{said}");
    assert_eq!(check(&site, &["--strict", "--as", "nobody"]).0, Some(1));
    // The `user` of the file without being told.
    site.configure(&format!("user = nobody\n{text}"));
    let (code, said) = check(&site, &[]);
    assert!(code == Some(0) && said.contains("for user nobody: "), "{said}");
    let (code, said) = check(&site, &["--as", "no-such-user"]);
    assert!(code == Some(1) && said.contains("there is no user \"no-such-user\""), "{said}");
}

#[test]
fn a_folder_that_is_not_there_is_told_whoever_starts_the_daemon() {
    for option in ["pid_file", "log_file"] {
        let site = Site::with(&format!("{option} = \"$DIR/none/x\"\n{OK}"));
        let (code, said) = check(&site, &[]);
        assert!(code == Some(0) && said.contains(&format!("{option}: ")), "{said}");
        assert!(said.contains("none: No such file"), "{said}");
        assert_eq!(check(&site, &["--strict"]).0, Some(1));
    }
}

#[test]
fn a_user_who_starts_the_daemon_has_to_make_its_socket() {
    if !is_root_or_leaves_out("what another user can't make") {
        return;
    }
    let site = Site::with(&OK.replace("</VirtualHost>", &format!("{LISTED}</VirtualHost>{DATABASE}")));
    fs::write(site.path("db.sqlite"), "").unwrap();
    fs::set_permissions(site.path("db.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(site.path("run")).unwrap();
    let (_, said) = check(&site, &["--as", "nobody"]);
    assert!(!said.contains("db.sqlite"), "it is only read: {said}");
    let text = format!("pid_file = \"$DIR/run/d.pid\"\n{OK}");
    site.configure(&text);
    let (_, said) = check(&site, &["--as", "nobody"]);
    assert!(said.contains("pid_file: can't make") && said.contains("d.pid: Permission denied"), "{said}");
    // Root makes it.
    site.configure(&format!("user = nobody\n{text}"));
    let (_, said) = check(&site, &["--as", "nobody"]);
    assert!(!said.contains("d.pid"), "{said}");
}

/// A plugin that only reads the database.
const LISTED: &str = "<Plugin list>\nmodule = SqlList\nsql_query = \"SELECT 1 WHERE ?\"\n\
                      match_action = reject\n</Plugin>\n";

/// The database.
const DATABASE: &str = "\n<Connection db>\nmodule = Sql\n\
                        dsn = \"dbi:SQLite:dbname=$DIR/db.sqlite\"\n</Connection>\n";

#[test]
fn the_notice_of_an_ignored_option_has_the_value_that_holds() {
    let greylist = |option: &str| {
        format!(
            "<Plugin grey>\nmodule = Greylist\nautowl_table = mine\n<Ticket>\nmodule = Memory\n</Ticket>\n\
             <AWL>\ndb = db\n{option}</AWL>\n</Plugin>\n"
        )
    };
    let text = OK.replace("</VirtualHost>", "$GREY</VirtualHost>") + DATABASE;
    for (option, holds) in [("", "`mine` holds"), ("autowl_table = foo\n", "`foo` of the AWL block holds")] {
        let site = Site::with(&text.replace("$GREY", &greylist(option)));
        let (_, said) = check(&site, &[]);
        assert!(said.contains(&format!("used the table autowl; now {holds}")), "{said}");
    }
}

#[test]
fn the_lifetime_of_sessions_in_1_x_is_shown_in_their_block() {
    let site = Site::with(&format!("memcached_servers = \"10.0.0.1:11211\"\nmemcached_expire = 333\n{OK}"));
    let (code, said) = check(&site, &[]);
    let block = "<SessionCache>\n  module = \"Memcached\"\n  expire = \"333\"\n</SessionCache>";
    let plain = said.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let block = block.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert!(code == Some(1) && plain.contains(&block), "{said}");
    assert!(!plain.contains("servers = \"10.0.0.1:11211\"\nexpire"), "{said}");
}

#[test]
fn options_of_1_x_show_the_block_with_their_values() {
    let site = Site::with(&format!(
        "db_dsn = \"dbi:mysql:mail\"\ndb_user = \"joe\"\ndb_password = \"hunter2\"\n\
         ldap_host = \"dir.example\"\nmemcached_servers = \"10.0.0.1:11211\"\nsession_lock_wait = 70\n{OK}"
    ));
    let (code, said) = check(&site, &[]);
    assert_eq!(code, Some(1));
    for words in [
        "dsn = \"dbi:mysql:mail\"",
        "user = \"joe\"",
        "password = \"PASSWORD\"",
        "host = \"dir.example\"",
        "servers = \"10.0.0.1:11211\"",
        "lock_wait = \"70\"",
        "the option `db_password` of mtpolicyd 1.x is gone",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn an_included_file_lies_beside_the_one_that_includes_it() {
    let site = Site::with(&format!("<<include parts/first.conf>>\n{OK}"));
    fs::create_dir(site.path("parts")).unwrap();
    fs::write(site.path("parts/first.conf"), "<<include second.conf>>\n").unwrap();
    fs::write(site.path("parts/second.conf"), "log_level = 3\n").unwrap();
    // One of that name in the working folder, where the program is started, is another file.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::create_dir(elsewhere.path().join("parts")).unwrap();
    fs::write(elsewhere.path().join("parts/first.conf"), "log_level = loud\n").unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("check").arg(site.config()).current_dir(elsewhere.path());
    let output = run(&mut command, b"");
    assert!(output.status.success(), "{}", errors_of(&output));
    fs::remove_file(site.path("parts/second.conf")).unwrap();
    let output = run(&mut command, b"");
    let full = site.path("parts/second.conf").display().to_string();
    assert!(errors_of(&output).contains(&format!("the included file `{full}` does not exist")));
}

#[test]
fn tasks_that_there_are_not_are_a_failure() {
    let site = Site::with(OK);
    for (tasks, code) in [("hourly", 0), ("foo", 1), ("hourly,foo", 0), ("", 1)] {
        let output = site.run(&["--cron", tasks]);
        assert_eq!(output.status.code(), Some(code), "{tasks}: {}", errors_of(&output));
    }
}

/// A plugin for each kind of file, all of them in `lists`, and a database.
const RELATIVE: &str = "\
<Connection db>
  module = Sql
  dsn = \"dbi:SQLite:dbname=lists/db.sqlite\"
</Connection>
<VirtualHost $PORT>
  name = incoming
  <<include lists/included>>
  <Plugin map>
    module = PostfixMap
    db_file = \"texthash:lists/map\"
    match_action = reject
  </Plugin>
  <Plugin grey>
    module = Greylist
    whitelist_clients = lists/clients
    whitelist_recipients = lists/recipients
    <Ticket>
      module = Memory
    </Ticket>
    <AWL>
      module = Sql
    </AWL>
  </Plugin>
  <Plugin quota>
    module = Quota
    field = client_address
    metric = count
    threshold = 1
  </Plugin>
</VirtualHost>
";

#[test]
fn a_relative_path_is_the_same_file_for_check_and_for_a_daemon_that_is_started_elsewhere() {
    let site = Site::with(&format!("port = \"127.0.0.1:$PORT\"\n{RELATIVE}"));
    let elsewhere = tempfile::tempdir().unwrap();
    let fill = |folder: &Path| {
        fs::create_dir(folder.join("lists")).unwrap();
        for name in ["map", "clients", "recipients", "patterns", "db.sqlite"] {
            let text = if name == "patterns" { "^nobody$\n" } else { "" };
            fs::write(folder.join("lists").join(name), text).unwrap();
        }
        let included =
            "<Plugin list>\nmodule = RegexList\nkey = sender\nfile = patterns\naction = reject\n</Plugin>\n";
        fs::write(folder.join("lists/included"), included).unwrap();
    };
    // Where it is started there are files of the same names.
    fill(&site.path(""));
    fill(elsewhere.path());
    let mtpolicyd = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg(site.config()).current_dir(elsewhere.path());
        let output = run(&mut command, b"");
        (output.status.code(), errors_of(&output) + &output_of(&output))
    };
    let (code, said) = mtpolicyd(&["check", "--strict"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, dump) = mtpolicyd(&["-d", "-c"]);
    assert_eq!(code, Some(0), "{dump}");
    for name in ["map", "clients", "recipients", "patterns"] {
        assert!(dump.contains(&site.path("lists").join(name).display().to_string()), "{name}:\n{dump}");
    }
    // Without them those of the folder are used, as by the original, which nobody should rely on.
    fs::remove_dir_all(site.path("lists")).unwrap();
    fs::write(elsewhere.path().join("patterns"), "^nobody$\n").unwrap();
    fs::copy(elsewhere.path().join("lists/included"), elsewhere.path().join("included")).unwrap();
    let (code, said) = mtpolicyd(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    let warnings = said.lines().filter(|line| {
        line.starts_with("warning[W009]")
            && line.contains("only for a program that is started in the same folder")
    });
    let warnings: Vec<_> = warnings.collect();
    assert_eq!(warnings.len(), 5, "{said}");
    assert!(warnings.iter().all(|line| line.contains(&elsewhere.path().display().to_string())), "{said}");
    assert_eq!(mtpolicyd(&["check", "--strict"]).0, Some(1));
}

/// It works as with mtpolicyd 2, where Postfix has to know the folder too.
#[test]
fn a_relative_path_of_a_socket_is_warned_of() {
    let at = |path: &str| OK.replace("127.0.0.1:$PORT", &format!("{path}|unix")).replace("$PORT", path);
    let site = Site::with(&at("run.sock"));
    let (code, said) = check(&site, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning[W009]: port: `run.sock` depends on the folder"), "{said}");
    assert_eq!(check(&site, &["--strict"]).0, Some(1));
    let full = site.path("run.sock").display().to_string();
    let site = Site::with(&at(&full));
    let (code, said) = check(&site, &["--strict"]);
    assert_eq!(code, Some(0), "{said}");
}
