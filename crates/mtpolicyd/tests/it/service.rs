//! The daemon as a service of systemd: what it says of itself, and the sockets that it is given.
//!
//! Knows: sd_notify(3), sd_listen_fds(3). Must not know: plugins, the unit's text.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, KilledById, OK, PROGRAM, Site, errors_of, loopback};
use crate::support::{PATIENCE, eventually};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

/// The end of the service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(site: &Site) -> Manager {
        let socket = UnixDatagram::bind(site.path("notify")).expect("it works");
        socket.set_read_timeout(Some(PATIENCE)).expect("it works");
        Manager(socket)
    }

    /// The next message that begins with this; signs of life come between.
    #[track_caller]
    fn hears(&self, words: &str) -> String {
        loop {
            let mut bytes = [0; 1000];
            let length = self.0.recv(&mut bytes).expect("it says something");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.starts_with(words) {
                return text;
            }
            assert_eq!(text, "WATCHDOG=1", "instead of {words}");
        }
    }
}

/// A daemon that tells this manager, with more variables.
fn notifying(site: Site, variables: &[(&str, &str)]) -> Daemon {
    let mut command = site.command(&["-f"]);
    command.env("NOTIFY_SOCKET", site.path("notify")).envs(variables.iter().copied());
    site.spawn_command(command)
}

#[test]
fn it_says_when_it_is_ready_reloads_and_ends() {
    let site = Site::with(OK);
    let manager = Manager::listen(&site);
    let mut daemon = notifying(site, &[]);
    let ready = manager.hears("READY=1");
    assert_eq!(ready, format!("READY=1\nSTATUS=answering on {}", daemon.address()));
    // No waiting: that is what it has said.
    assert_eq!(daemon.ask("a=b").action(), "OK");
    daemon.signal("HUP");
    assert!(manager.hears("RELOADING=1").contains("\nMONOTONIC_USEC="));
    assert!(manager.hears("READY=1").contains("STATUS=reloaded"));
    daemon.site.configure(&OK.replace("module =", "modul ="));
    daemon.signal("HUP");
    manager.hears("RELOADING=1");
    assert!(manager.hears("READY=1").contains("STATUS=NOT reloaded"));
    daemon.signal("TERM");
    manager.hears("STOPPING=1");
    assert!(daemon.wait().success());
}

#[test]
fn it_gives_signs_of_life_where_they_are_asked_for() {
    let site = Site::with(OK);
    let manager = Manager::listen(&site);
    let _daemon = notifying(site, &[("WATCHDOG_USEC", "100000")]);
    manager.hears("READY=1");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    // Meant for another process.
    let site = Site::with(OK);
    let manager = Manager::listen(&site);
    let mut daemon = notifying(site, &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]);
    manager.hears("READY=1");
    daemon.terminate();
    manager.hears("STOPPING=1");
    let quiet = daemon.log();
    assert!(quiet.contains("shutting down"), "{quiet}");
}

#[test]
fn a_successor_is_the_main_process_before_it_says_anything() {
    let site = Site::with(&format!("pid_file = \"$DIR/d.pid\"\n{OK}"));
    let manager = Manager::listen(&site);
    let mut daemon = notifying(site, &[("WATCHDOG_USEC", "100000")]);
    manager.hears("READY=1");
    daemon.signal("USR2");
    let main = manager.hears("MAINPID=");
    let id: u32 = main.trim_start_matches("MAINPID=").parse().unwrap();
    let _successor = KilledById(id);
    assert_ne!(id, daemon.id());
    assert!(daemon.wait().success());
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    crate::support::daemon::signal(id, "TERM");
    manager.hears("STOPPING=1");
}

/// The daemon with these two sockets as descriptors 3 and 4, as systemd passes them.
fn activated(site: Site, tcp: &TcpListener, unix: &UnixListener, names: &str) -> Daemon {
    let mut command = Command::new("sh");
    let script = "exec env LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=\"$1\" \"$2\" -f -c \"$3\" \
                  3<&0 4<&2 0</dev/null 2>&1";
    command.args(["-c", script, "sh", names, PROGRAM]).arg(site.config());
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(tcp.try_clone().expect("it works"))));
    let log = File::create(site.path("log")).expect("it works");
    command.stdout(log).stderr(Stdio::from(std::os::fd::OwnedFd::from(unix.try_clone().expect("it works"))));
    site.adopt(command.spawn().expect("it works"))
}

/// A host for the port, and one that only a socket of its name leads to.
fn two_hosts() -> String {
    let other = OK.replace("port = \"127.0.0.1:$PORT\"\n", "").replace("$PORT", "/never");
    format!("{OK}{}", other.replace("\"OK\"", "\"OK outgoing\"").replace("incoming", "outgoing"))
}

#[test]
fn sockets_of_systemd_stay_open_over_a_restart() {
    let site = Site::with(&two_hosts());
    let tcp = TcpListener::bind(loopback(site.port)).unwrap();
    let path = site.path("policy.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let mut daemon = activated(site, &tcp, &unix, "mtpolicyd.socket:outgoing");
    let listens = daemon.logged("listens on");
    assert!(listens.contains(&path.display().to_string()), "{listens}");
    assert_eq!(daemon.ask("a=b").action(), "OK");
    let mut local = Client::unix(&path).unwrap();
    assert_eq!(local.ask("a=b").action(), "OK outgoing");
    // The host of a socket stays, or nothing changes.
    let site = &daemon.site;
    site.configure(&two_hosts().replace("\"outgoing\"", "\"another\""));
    daemon.hang_up();
    let why = daemon.logged("not reloaded: systemd passes the socket");
    assert!(why.contains("as \"outgoing\", and no VirtualHost answers there"), "{why}");
    site.configure(&two_hosts().replace("OK outgoing", "OK again"));
    daemon.hang_up();
    assert_eq!(local.ask("a=b").action(), "OK again");
    assert!(daemon.terminate().success());

    // A client that connects now waits for the next daemon.
    let mut waiting = [Client::tcp(daemon.address()).unwrap(), Client::unix(&path).unwrap()];
    waiting.iter_mut().for_each(|client| client.send("a=b"));
    let mut daemon = activated(daemon.into_site(), &tcp, &unix, "mtpolicyd.socket:outgoing");
    let answers = waiting.map(|mut client| client.answer().action());
    assert_eq!(answers, ["OK", "OK again"]);
    // And so it is if that one hands over.
    daemon.site.configure(&format!("pid_file = \"$DIR/d.pid\"\n{}", two_hosts()));
    daemon.signal("USR2");
    let said = daemon.logged("has taken over the ports");
    let successor: u32 = said.split(' ').find_map(|word| word.parse().ok()).expect("its number");
    let _successor = KilledById(successor);
    assert!(daemon.wait().success());
    assert_eq!(Client::unix(&path).unwrap().ask("a=b").action(), "OK outgoing");
    crate::support::daemon::signal(successor, "TERM");
    eventually("the successor ends", || {
        (!std::path::Path::new(&format!("/proc/{successor}")).exists()).then_some(())
    });
    assert!(path.exists(), "the file is systemd's");
    assert!(Client::unix(&path).is_ok(), "and so is the socket");
}

#[test]
fn a_socket_that_no_host_wants_is_a_mistake() {
    let site = Site::with(OK);
    let tcp = TcpListener::bind(loopback(site.port)).unwrap();
    let unix = UnixListener::bind(site.path("policy.sock")).unwrap();
    let mut daemon = activated(site, &tcp, &unix, "incoming:nobody");
    assert_eq!(daemon.wait().code(), Some(1));
    let said = daemon.log();
    assert!(said.contains("as \"nobody\", and no VirtualHost answers there"), "{said}");
}

#[test]
fn descriptors_for_another_process_are_left_alone() {
    let site = Site::with(OK);
    let output = Command::new(PROGRAM)
        .args(["-d", "-c"])
        .arg(site.config())
        .envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors_of(&output));
    let mut command = site.command(&["-f"]);
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "incoming")]);
    let daemon = site.spawn_command(command);
    daemon.wait_until_it_answers();
    assert_eq!(daemon.ask("a=b").action(), "OK");
}
