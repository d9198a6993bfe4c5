//! fail2ban.
//!
//! Knows: its programs and configuration. Must not know: who is banned.

use super::{Recipe, Server, new_folder, program, run};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const PACKAGE: &str = "fail2ban";

/// `["ping"]` as a command.
const PING: &[u8] = b"\x80\x02]q\x00(U\x04pingq\x01e.<F2B_END_COMMAND>";

/// Starts one with these jails, on the UNIX socket `fail2ban.sock` of its folder; its `port` is 0. A ban is
/// kept and does nothing.
pub fn start(jails: &[&str]) -> Server {
    let folder = new_folder();
    configure(folder.path(), jails);
    let path = |name: &str| folder.path().join(name).display().to_string();
    // `-x` takes the place of a server that has crashed.
    let arguments = ["-x", "-f", "-c", &path("conf"), "-s", &path("fail2ban.sock"), "-p", &path("pid")];
    let socket = folder.path().join("fail2ban.sock");
    let recipe = Recipe {
        program: program("fail2ban-server", PACKAGE),
        arguments: arguments.map(str::to_owned).to_vec(),
        user: None,
        end_signal: "KILL",
        answers: Box::new(move || answers_at(&socket)),
    };
    Server::launch(0, folder, recipe)
}

fn configure(folder: &Path, jails: &[&str]) {
    let conf = folder.join("conf");
    for name in ["conf", "conf/filter.d", "conf/action.d"] {
        fs::create_dir(folder.join(name)).expect("the folder is writable");
    }
    let write = |name: &str, text: &str| fs::write(conf.join(name), text).expect("the folder is writable");
    let path = |name: &str| folder.join(name).display().to_string();
    let common = format!(
        "[DEFAULT]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\nsocket = {}\npidfile = {}\n\
         dbfile = None\ndbpurgeage = 1d\ndbmaxmatches = 10\n[Definition]\n[Thread]\n",
        path("fail2ban.sock"),
        path("pid")
    );
    write("fail2ban.conf", &common);
    fs::write(folder.join("mail.log"), "").expect("the folder is writable");
    let mut text = "[DEFAULT]\nallowipv6 = auto\n".to_owned();
    for jail in jails {
        let _ = write!(
            text,
            "[{jail}]\nenabled = true\nbackend = polling\nlogpath = {}\nfailregex = ^nothing from <HOST>$\n\
             filter =\naction =\nbantime = 1h\nusedns = no\n",
            path("mail.log")
        );
    }
    write("jail.conf", &text);
}

/// Who is banned in a jail, as its own client says.
pub fn banned(server: &Server, jail: &str) -> Vec<String> {
    let socket = server.path("fail2ban.sock").display().to_string();
    let client = program("fail2ban-client", PACKAGE);
    let status = run(&client, &["-s", &socket, "status", jail]).stdout;
    let status = String::from_utf8_lossy(&status).into_owned();
    let list = status.lines().find_map(|line| line.split_once("Banned IP list:"));
    let (_, list) = list.unwrap_or_else(|| panic!("no list in {status}"));
    list.split_whitespace().map(str::to_owned).collect()
}

fn answers_at(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let _ = stream.set_read_timeout(Some(super::LOOK_PATIENCE));
    stream.write_all(PING).is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}
