//! Whom the daemon becomes when root starts it. As another user these tests say that they are left out.
//!
//! Knows: what the kernel shows of a process. Must not know: plugins.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of};
use crate::support::{eventually, is_root_or_leaves_out, leaves_out};
use nix::unistd::{Group, User};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A daemon that always answers `OK`, on a port and on a socket.
const OK: &str = "\
port = \"127.0.0.1:$PORT, $DIR/policy.sock|unix\"
<VirtualHost $PORT>
  name = \"incoming\"
  <Plugin ok>
    module = \"Action\"
    action = \"OK\"
  </Plugin>
</VirtualHost>
<VirtualHost $DIR/policy.sock>
  name = \"local\"
  <Plugin local>
    module = \"Action\"
    action = \"OK local\"
  </Plugin>
</VirtualHost>
";

/// What `/proc` says of each thread of a process in the line that begins so.
fn of_all_threads(daemon: &Daemon, field: &str) -> Vec<Vec<String>> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.id())).expect("it runs");
    let status = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let values: Vec<_> = status
        .map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel tells it");
            line.split_whitespace().map(str::to_owned).collect()
        })
        .collect();
    assert!(values.len() > 1, "a runtime has threads");
    values
}

fn user(name: &str) -> u32 {
    User::from_name(name).ok().flatten().expect("every system has it").uid.as_raw()
}

fn group(name: &str) -> u32 {
    Group::from_name(name).ok().flatten().expect("every Debian has it").gid.as_raw()
}

#[test]
fn every_thread_gives_up_root() {
    if !is_root_or_leaves_out("that the daemon gives up root") {
        return;
    }
    let mut daemon = Daemon::start(&format!(
        "user = nobody\ngroup = \"nogroup daemon\"\nsocket_owner = daemon\nsocket_group = nogroup\n\
         socket_mode = 0660\n{OK}"
    ));
    assert_eq!(daemon.ask("a=b").action(), "OK");
    let (uid, gid) = (user("nobody").to_string(), group("nogroup").to_string());
    for field in ["Uid:", "Gid:"] {
        let id = if field == "Uid:" { uid.as_str() } else { gid.as_str() };
        for ids in of_all_threads(&daemon, field) {
            assert_eq!(ids, [id, id, id, id], "real, effective, saved, for files");
        }
    }
    let mut expected = [group("daemon"), group("nogroup")];
    expected.sort_unstable();
    for groups in of_all_threads(&daemon, "Groups:") {
        assert_eq!(groups, expected.map(|id| id.to_string()));
    }
    for field in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        for capabilities in of_all_threads(&daemon, field) {
            assert_eq!(u64::from_str_radix(&capabilities[0], 16), Ok(0), "{field}");
        }
    }
    assert!(of_all_threads(&daemon, "NoNewPrivs:").iter().all(|value| value == &["1"]));

    let socket = daemon.site.path("policy.sock");
    let made = socket.metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (user("daemon"), group("nogroup")));
    assert_eq!(made.permissions().mode() & 0o777, 0o660);
    assert_eq!(Client::unix(&socket).unwrap().ask("a=b").action(), "OK local");
    assert!(daemon.terminate().success());
}

#[test]
fn a_user_without_a_group_leaves_roots_groups() {
    if !is_root_or_leaves_out("that the groups of root are left") {
        return;
    }
    let daemon = Daemon::start(&format!("user = nobody\n{OK}"));
    let primary = User::from_name("nobody").unwrap().unwrap().gid.to_string();
    for groups in of_all_threads(&daemon, "Groups:") {
        assert_eq!(groups, [primary.as_str()]);
    }
}

#[test]
fn the_log_is_the_users_and_the_pid_file_is_roots() {
    if !is_root_or_leaves_out("to whom pid file and log file belong") {
        return;
    }
    let site = Site::with(&format!(
        "user = nobody\ngroup = nogroup\npid_file = \"$DIR/d.pid\"\nlog_file = \"$DIR/d.log\"\n{OK}"
    ));
    let mut daemon = site.start();
    let owner = |path: PathBuf| path.metadata().unwrap().uid();
    assert_eq!(owner(daemon.site.path("d.pid")), 0, "who ends the process that it names may be root");
    assert_eq!(owner(daemon.site.path("d.log")), user("nobody"));
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(daemon.site.path("d.pid")), mode(daemon.site.path("d.log"))), (0o644, 0o640));
    // The folder is root's, so the file can't be removed: it must not name a process any more.
    assert!(daemon.terminate().success());
    assert_eq!(fs::read_to_string(daemon.site.path("d.pid")).unwrap(), "");
}

#[test]
fn chroot_confines_it() {
    if !is_root_or_leaves_out("that chroot confines the daemon") {
        return;
    }
    let site = Site::with(&format!("user = nobody\ngroup = nogroup\nchroot = \"$DIR/jail\"\n{OK}"));
    fs::create_dir(site.path("jail")).unwrap();
    let mut daemon = site.start();
    assert_eq!(daemon.ask("a=b").action(), "OK");
    for link in ["root", "cwd"] {
        let seen = fs::read_link(Path::new("/proc").join(daemon.id().to_string()).join(link)).unwrap();
        assert_eq!(seen, daemon.site.path("jail"), "{link}");
    }
    assert!(daemon.terminate().success());
}

#[test]
fn a_chroot_that_is_not_there_stops_the_start() {
    if !is_root_or_leaves_out("that a missing chroot is noticed") {
        return;
    }
    let site = Site::with(&format!("chroot = \"$DIR/jail\"\n{OK}"));
    let output = site.run(&["-f"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors_of(&output).contains("cannot chroot to"), "{}", errors_of(&output));
}

#[test]
fn somebody_else_can_not_become_root() {
    if nix::unistd::Uid::effective().is_root() {
        leaves_out("it needs another user than root", "that nobody else becomes root");
        return;
    }
    let output = Site::with(&format!("user = root\ngroup = root\n{OK}")).run(&["-f"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors_of(&output).contains("not as root"), "{}", errors_of(&output));
}

/// A folder of the daemon's user, where that user can put what it likes, and a file of root's.
fn folder_of_nobody(site: &Site) -> PathBuf {
    let folder = site.path("nobodys");
    fs::create_dir(&folder).expect("the folder is ours");
    std::os::unix::fs::chown(&folder, Some(user("nobody")), Some(group("nogroup")))
        .expect("the folder is ours");
    fs::write(site.path("roots"), "secret\n").expect("the folder is ours");
    fs::set_permissions(site.path("roots"), fs::Permissions::from_mode(0o600)).expect("the folder is ours");
    folder
}

#[test]
fn root_is_not_led_astray_by_links_of_the_daemons_user() {
    if !is_root_or_leaves_out("that root follows no links of the daemon's user") {
        return;
    }
    let nobody = "user = nobody\ngroup = nogroup\n";
    for (option, link, starts) in [
        ("log_file = \"$DIR/nobodys/link\"", "roots", true),
        ("log_file = \"$DIR/nobodys/link\"", "new", true),
        ("log_file = \"$DIR/nobodys/folder/roots\"", "roots", true),
        ("pid_file = \"$DIR/nobodys/folder/new\"", "new", false),
    ] {
        let site = Site::with(&format!("{nobody}{option}\n{OK}"));
        let folder = folder_of_nobody(&site);
        std::os::unix::fs::symlink(site.path(link), folder.join("link")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("folder")).unwrap();
        let before = site.path("roots").metadata().unwrap();
        let mut daemon = site.spawn(&["-f"]);
        if starts {
            daemon.logged("logging here instead");
            daemon.terminate();
        } else {
            daemon.logged("root follows no link");
            assert!(!daemon.wait().success());
        }
        let after = daemon.site.path("roots").metadata().unwrap();
        assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()), "{option}");
        assert_eq!(fs::read_to_string(daemon.site.path("roots")).unwrap(), "secret\n", "{option}");
        assert!(!daemon.site.path("new").exists(), "{option}");
    }
}

#[test]
fn a_log_and_a_socket_in_a_folder_of_the_daemons_user_work() {
    if !is_root_or_leaves_out("files in a folder of the daemon's user") {
        return;
    }
    let text = OK.replace("$DIR/policy.sock", "$DIR/nobodys/policy.sock");
    let site = Site::with(&format!(
        "user = nobody\ngroup = nogroup\nsocket_mode = 0600\nsocket_owner = daemon\n\
         log_file = \"$DIR/nobodys/d.log\"\npid_file = \"$DIR/nobodys/d.pid\"\n{text}"
    ));
    let folder = folder_of_nobody(&site);
    // One that was there before, of its user, is appended to.
    fs::write(folder.join("d.log"), "before\n").unwrap();
    std::os::unix::fs::chown(folder.join("d.log"), Some(user("nobody")), None).unwrap();
    let mut daemon = site.start();
    let socket = folder.join("policy.sock").metadata().unwrap();
    assert_eq!((socket.uid(), socket.mode() & 0o777), (user("daemon"), 0o600));
    assert_eq!(Client::unix(&folder.join("policy.sock")).unwrap().ask("a=b").action(), "OK local");
    let log = || fs::read_to_string(folder.join("d.log")).unwrap_or_default();
    eventually("it is logged", || log().contains("listens on").then_some(()));
    assert!(log().starts_with("before\n"));
    // Moved away by logrotate.
    fs::rename(folder.join("d.log"), folder.join("d.log.1")).unwrap();
    daemon.signal("USR1");
    eventually("there is a new file", || folder.join("d.log").exists().then_some(()));
    assert_eq!(folder.join("d.log").metadata().unwrap().uid(), user("nobody"));
    assert!(daemon.terminate().success());
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["d.log", "d.log.1"]);
}

#[test]
fn root_that_stays_root_is_told() {
    if !is_root_or_leaves_out("that root is told that it stays root") {
        return;
    }
    let daemon = Daemon::start(OK);
    daemon.logged("warning: no `user` is set: a daemon that root starts stays root");
    let check = |options: &str| {
        let site = Site::with(&format!("{options}{OK}"));
        let output =
            std::process::Command::new(PROGRAM).args(["check", "--strict"]).arg(site.config()).output();
        let output = output.unwrap();
        (output.status.code(), errors_of(&output) + &output_of(&output))
    };
    let (status, said) = check("");
    assert!(status == Some(0) && said.contains("notice") && said.contains("no `user` is set"), "{said}");
    let (status, said) = check("group = nogroup\n");
    assert!(status == Some(1) && said.contains("group without `user`"), "{said}");
    let (status, said) = check("chroot = /\n");
    assert!(status == Some(1) && said.contains("chroot without `user`"), "{said}");
    let (status, said) = check("user = nobody\n");
    assert!(status == Some(0) && !said.contains("notice"), "{said}");
}
