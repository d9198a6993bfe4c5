//! memcached.
//!
//! Knows: its program. Must not know: any key.

use super::{Recipe, Server, first_bytes, free_port, is_root, new_folder, program};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const PACKAGE: &str = "memcached";

const QUESTION: &[u8] = b"version\r\n";

/// Starts one on a TCP port.
pub fn start() -> Server {
    let port = free_port();
    let place = ["-p", &port.to_string(), "-U", "0", "-l", "127.0.0.1"].map(str::to_owned);
    let answers = move || first_bytes(port, QUESTION).is_some();
    Server::launch(port, new_folder(), recipe(place.to_vec(), answers))
}

/// Starts one on a UNIX socket, the file `memcached.sock` of its folder; its `port` is 0.
pub fn start_unix() -> Server {
    let folder = new_folder();
    let path = folder.path().join("memcached.sock");
    let place = ["-s", &path.display().to_string(), "-a", "0666"].map(str::to_owned);
    Server::launch(0, folder, recipe(place.to_vec(), move || answers_at(&path)))
}

fn recipe(mut arguments: Vec<String>, answers: impl Fn() -> bool + Send + Sync + 'static) -> Recipe {
    arguments.extend(["-m", "16", "-t", "2"].map(str::to_owned));
    if is_root() {
        arguments.extend(["-u", "root"].map(str::to_owned));
    }
    Recipe {
        program: program("memcached", PACKAGE),
        arguments,
        user: None,
        end_signal: "KILL",
        answers: Box::new(answers),
    }
}

fn answers_at(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    stream.write_all(QUESTION).is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}
