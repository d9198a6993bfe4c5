//! A script for Python that serves HTTP.
//!
//! Knows: the interpreter. Must not know: what the script says.

use super::{Recipe, Server, first_bytes, free_port, new_folder, program};
use std::path::Path;

const PACKAGE: &str = "python3";

/// Starts a script that is told a file and a port.
pub fn start(script: &Path, file: &Path) -> Server {
    let port = free_port();
    let arguments = [script, file].map(|path| path.display().to_string()).into_iter();
    Server::launch(
        port,
        new_folder(),
        Recipe {
            program: program("python3", PACKAGE),
            arguments: arguments.chain([port.to_string()]).collect(),
            user: None,
            end_signal: "KILL",
            answers: Box::new(move || first_bytes(port, b"GET / HTTP/1.0\r\n\r\n").is_some()),
        },
    )
}
