//! SIGUSR2: a new process takes over the ports, and nobody who asks notices.
//!
//! Knows: signals, ports, the pid file, what the log says of it. Must not know: plugins.

use crate::support::client::{Answer, Client};
use crate::support::daemon::{
    Daemon, KilledById, OK, PROGRAM, Site, errors_of, loopback, output_of, read_lossy, signal,
};
use crate::support::{eventually, is_root_or_leaves_out};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A daemon that answers `OK` on a port and on a UNIX socket, and has a pid file.
fn with_both_kinds() -> String {
    let unix = OK.replace("port = \"127.0.0.1:$PORT\"\n", "").replace("$PORT", "$DIR/policy.sock");
    let both = OK.replace("127.0.0.1:$PORT", "127.0.0.1:$PORT, $DIR/policy.sock|unix");
    format!("pid_file = \"$DIR/d.pid\"\n{both}{}", unix.replace("incoming", "local"))
}

/// The process that the pid file names.
fn recorded(site: &Site) -> Option<u32> {
    read_lossy(&site.path("d.pid")).trim().parse().ok()
}

/// Has the process replaced, and returns the new one when the old one has let go.
#[track_caller]
fn hand_over(daemon: &Daemon, process: u32) -> KilledById {
    signal(process, "USR2");
    eventually("another process is recorded", || recorded(&daemon.site).filter(|id| *id != process));
    let new = recorded(&daemon.site).expect("it is recorded");
    daemon.logged(&format!("process {new} has taken over the ports"));
    KilledById(new)
}

/// What the daemon says when it does not hand over; it answers as before.
#[track_caller]
fn stays(daemon: &Daemon, open: &mut Client) -> String {
    let said = || daemon.log().lines().filter(|line| line.contains("not handed over: ")).count();
    let before = said();
    daemon.signal("USR2");
    eventually("it says that it stays", || (said() > before).then_some(()));
    assert_eq!(open.ask("a=b").action(), "OK");
    assert_eq!(daemon.ask("a=b").action(), "OK");
    assert_eq!(recorded(&daemon.site), Some(daemon.id()));
    let log = daemon.log();
    log.lines().rfind(|line| line.contains("not handed over: ")).expect("it is there").to_owned()
}

#[test]
fn under_load_no_request_is_lost_and_no_connection_refused() {
    const HANDOVERS: usize = 3;
    let mut daemon = Site::with(&with_both_kinds()).start();
    let socket = daemon.site.path("policy.sock");
    let (asking, answered) = (AtomicBool::new(true), AtomicUsize::new(0));
    let connect = |number: usize| match number % 2 {
        0 => Client::tcp(daemon.address()).expect("no connection is refused"),
        _ => Client::unix(&socket).expect("no connection is refused"),
    };
    let replaced = std::thread::scope(|scope| {
        for (number, questions) in [1, 1, 7, 7, usize::MAX, usize::MAX].into_iter().enumerate() {
            let (asking, answered) = (&asking, &answered);
            scope.spawn(move || {
                while asking.load(Ordering::Relaxed) {
                    let mut client = connect(number);
                    for _ in (0..questions).take_while(|_| asking.load(Ordering::Relaxed)) {
                        assert_eq!(client.ask("a=b").action(), "OK");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut process = daemon.id();
        let mut replaced = Vec::new();
        for _ in 0..HANDOVERS {
            let before = answered.load(Ordering::Relaxed);
            eventually("questions are answered", || {
                (answered.load(Ordering::Relaxed) > before + 100).then_some(())
            });
            let new = hand_over(&daemon, process);
            process = new.0;
            replaced.push(new);
        }
        asking.store(false, Ordering::Relaxed);
        replaced
    });
    assert!(daemon.wait().success(), "it ends when its last client has left");
    daemon.logged("the connections from before the handover are finished");
    let ids: Vec<_> = replaced.iter().map(|process| process.0).collect();
    assert_eq!(daemon.ask("a=b").action(), "OK");
    let [older @ .., last] = &ids[..] else { panic!("there were {HANDOVERS}") };
    for id in older {
        let status = || read_lossy(format!("/proc/{id}/status").as_ref());
        eventually("the others end as well", || (!status().contains("(sleeping)")).then_some(()));
    }
    assert!(socket.exists() && recorded(&daemon.site) == Some(*last));
    signal(*last, "TERM");
    eventually("the last one closes its port", || Client::tcp(daemon.address()).is_err().then_some(()));
    eventually("its files are gone", || {
        (!socket.exists() && !daemon.site.path("d.pid").exists()).then_some(())
    });
}

#[test]
fn a_new_process_that_does_not_start_leaves_the_old_one_in_service() {
    let site = Site::with(&with_both_kinds());
    let program = site.path("mtpolicyd");
    symlink(PROGRAM, &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.arg("-f").arg("-c").arg(site.config());
    let mut daemon = site.spawn_command(command);
    daemon.wait_until_it_answers();
    let mut open = daemon.connect();

    daemon.site.configure(&with_both_kinds().replace("module =", "modul ="));
    let why = stays(&daemon, &mut open);
    assert!(why.contains("the configuration can't be used"), "{why}");
    daemon.logged("Plugin ok needs the option `module`");

    let _taken = std::net::TcpListener::bind(loopback(daemon.site.other_port)).unwrap();
    daemon.site.configure(&with_both_kinds().replace("$PORT", "$OTHER"));
    let why = stays(&daemon, &mut open);
    assert!(why.contains(&format!("cannot listen on 127.0.0.1:{}", daemon.site.other_port)), "{why}");

    daemon.site.configure(&with_both_kinds());
    for (script, words) in [("exit 3", "the new process has ended: exit status: 3"), (":", "something")] {
        replace_program(&program, script);
        let why = stays(&daemon, &mut open);
        assert!(why.contains(words), "{why}");
    }
    fs::remove_file(&program).unwrap();
    assert!(stays(&daemon, &mut open).contains("No such file"), "{}", daemon.log());

    // At last it is there, and the link leads to it.
    replace_program(&program, &format!("exec {PROGRAM} \"$@\""));
    let new = hand_over(&daemon, daemon.id());
    assert_eq!(daemon.ask("a=b").action(), "OK");
    assert_eq!(open.ask("a=b").action(), "OK", "who has a connection keeps it");
    drop(open);
    assert!(daemon.wait().success());
    // It goes by the same name from then on.
    let _newer = hand_over(&daemon, new.0);
    assert_eq!(daemon.ask("a=b").action(), "OK");
}

/// Connects, asks and leaves, again and again: how many were not answered.
fn ask_meanwhile(daemon: &Daemon, socket: &Path, work: impl FnOnce()) -> usize {
    let (asking, failed) = (AtomicBool::new(true), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (asking, failed) = (&asking, &failed);
            scope.spawn(move || {
                while asking.load(Ordering::Relaxed) {
                    let client = match number % 2 {
                        0 => Client::tcp(daemon.address()),
                        _ => Client::unix(socket),
                    };
                    if !client.is_ok_and(|mut client| client.ask("a=b") == Answer::Action("OK".to_owned())) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        work();
        asking.store(false, Ordering::Relaxed);
    });
    failed.into_inner()
}

/// Starts a daemon while another one ends under load. `None` if it has come too late for what that one
/// offers: then the ports were closed between the two.
fn replace_by_signal() -> Option<()> {
    let mut old = Site::with(&with_both_kinds()).start();
    let socket = old.site.path("policy.sock");
    let _client = old.connect();
    let mut started = None;
    let failed = ask_meanwhile(&old, &socket, || {
        let log = fs::File::create(old.site.path("new.log")).expect("it works");
        let mut command = old.site.command(&["-f"]);
        command.stdout(log.try_clone().expect("it works")).stderr(log);
        old.signal("TERM");
        let new = command.spawn().expect("it works");
        let (ids, has_ended) = ([old.id(), new.id()], |id: &u32| {
            read_lossy(format!("/proc/{id}/stat").as_ref()).contains(") Z ")
        });
        eventually("one of them ends", || ids.iter().any(has_ended).then_some(()));
        started = Some(new);
    });
    let mut new = started.expect("it was started");
    let taken = format!("process {} has taken over the ports", new.id());
    let has_taken = old.log().contains(&taken);
    if has_taken {
        let new_log = read_lossy(&old.site.path("new.log"));
        assert_eq!(failed, 0, "{}{new_log}", old.log());
        assert!(old.wait().success());
        assert_eq!(recorded(&old.site), Some(new.id()));
        assert_eq!(old.ask("a=b").action(), "OK");
        assert_eq!(Client::unix(&socket).expect("it works").ask("a=b").action(), "OK");
    }
    new.kill().expect("it works");
    new.wait().expect("it works");
    has_taken.then_some(())
}

#[test]
fn one_that_is_started_while_another_ends_takes_its_ports() {
    // The machine may be busy.
    eventually("one takes over from the other", replace_by_signal);
}

/// Puts a script in the place of a program, as an upgrade does: under another name first.
fn replace_program(program: &Path, script: &str) {
    let new = program.with_extension("new");
    // A daemon would answer something else.
    fs::write(&new, format!("#!/bin/sh\n{script}\necho '{{\"something\":1}}' >&0\n")).expect("it works");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("it works");
    fs::rename(&new, program).expect("it works");
}

#[test]
fn a_command_waits_for_the_new_process() {
    let control = "<Control>\n  socket = \"$DIR/control.sock\"\n</Control>\n";
    let daemon = Site::with(&format!("{control}{}", with_both_kinds())).start();
    let open = daemon.connect();
    let hand_over = || {
        let output = daemon.site.command_after(&["reload", "--exec"]).output().expect("it runs");
        (output.status.code(), output_of(&output))
    };
    daemon.site.configure(&format!("{control}{}", with_both_kinds().replace("module =", "modul =")));
    let (code, text) = hand_over();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("not handed over: ") && text.contains("modul"), "{text}");
    daemon.site.configure(&format!("{control}{}", with_both_kinds()));
    let (code, text) = hand_over();
    let new = recorded(&daemon.site).expect("it is complete");
    let _new = KilledById(new);
    assert_eq!((code, text), (Some(0), format!("process {new} has taken over the ports\n")));
    assert_ne!(new, daemon.id());
    assert_eq!(daemon.ask("a=b").action(), "OK");
    drop(open);
    // The socket of the commands is the new one's.
    let status = daemon.site.command_after(&["status", "--ready"]).output().expect("it runs");
    assert_eq!(output_of(&status), "ready\n");
}

#[test]
fn in_the_background_everything_stays_with_its_user() {
    let is_root = nix::unistd::Uid::effective().is_root();
    let user = if is_root { "user = nobody\ngroup = nogroup\n" } else { "" };
    let site = Site::with(&format!("{user}log_file = \"$DIR/d.log\"\n{}", with_both_kinds()));
    let start = site.run(&[]);
    assert!(start.status.success(), "{}", errors_of(&start));
    let first = recorded(&site).expect("it is complete when the starter returns");
    let _first = KilledById(first);
    let mut open = Client::tcp(loopback(site.port)).unwrap();
    assert_eq!(open.ask("instance=before").action(), "OK");
    signal(first, "USR2");
    let second = eventually("another process", || recorded(&site).filter(|id| *id != first));
    let _second = KilledById(second);
    let log = || read_lossy(&site.path("d.log"));
    eventually("the old one lets go", || log().contains("has taken over the ports").then_some(()));
    assert_eq!(Client::unix(&site.path("policy.sock")).unwrap().ask("instance=new").action(), "OK");
    assert_eq!(open.ask("instance=old").action(), "OK");
    eventually("both write to one log", || {
        (log().contains("instance=new") && log().contains("instance=old")).then_some(())
    });
    drop(open);
    eventually("the old one ends", || (!Path::new(&format!("/proc/{first}")).exists()).then_some(()));
    assert_eq!(recorded(&site), Some(second));
    signal(second, "TERM");
    // Without the right to remove it the daemon empties the file.
    eventually("the file names nobody", || recorded(&site).is_none().then_some(()));
}

#[test]
fn in_a_chroot_it_stays() {
    if !is_root_or_leaves_out("that a daemon in a chroot does not hand over") {
        return;
    }
    let daemon = Site::with(&format!("user = nobody\nchroot = \"$DIR\"\n{OK}")).start();
    daemon.signal("USR2");
    let why = daemon.logged("not handed over");
    assert!(why.contains("with `chroot` the program is out of reach"), "{why}");
    assert_eq!(daemon.ask("a=b").action(), "OK");
}

#[test]
fn a_changed_file_is_followed() {
    let daemon = Site::with(&with_both_kinds()).start();
    let local = daemon.site.path("policy.sock");
    // Without the UNIX socket, and with another port.
    let text = format!("pid_file = \"$DIR/d.pid\"\n{}", OK.replace("$PORT", "$OTHER"));
    daemon.site.configure(&text);
    let _new = hand_over(&daemon, daemon.id());
    assert_eq!(daemon.connect_to(daemon.site.other_port).ask("a=b").action(), "OK");
    eventually("the old port is closed", || Client::tcp(daemon.address()).is_err().then_some(()));
    eventually("the file of the socket is gone", || (!local.exists()).then_some(()));
}
