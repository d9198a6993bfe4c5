//! nginx, which answers as its configuration says.
//!
//! Knows: its program and configuration. Must not know: who asks.

use super::certificates::Certificates;
use super::{Recipe, Server, first_bytes, free_port, new_folder, program};
use std::fmt::Write;
use std::fs;

const PACKAGE: &str = "nginx";

/// Starts one on 127.0.0.1, encrypted if there are certificates. What is `server` goes into the block of that
/// name.
pub fn start(certificates: Option<&Certificates>, server: &str) -> Server {
    start_on("127.0.0.1", certificates, server)
}

/// The same on another address of the loopback too.
pub fn start_on(host: &str, certificates: Option<&Certificates>, server: &str) -> Server {
    let nginx = program("nginx", PACKAGE);
    let (folder, port) = (new_folder(), free_port());
    let path = folder.path().display().to_string();
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(temporary, "{kind}_temp_path {path}/{kind};");
    }
    let (encrypted, files) = match certificates {
        None => ("", String::new()),
        Some(certificates) => {
            let (certificate, key) = (certificates.certificate(), certificates.key());
            let files =
                format!("ssl_certificate {};\nssl_certificate_key {};", certificate.display(), key.display());
            (" ssl", files)
        }
    };
    let mut hosts = vec!["127.0.0.1", host];
    hosts.dedup();
    let listen: String = hosts.iter().map(|host| format!("listen {host}:{port}{encrypted};\n")).collect();
    // One process: a worker would outlive a master that is killed, and go on listening.
    let configuration = format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/errors;\n\
         events {{ worker_connections 512; }}\nhttp {{\n\
         log_format connections '$request_method $connection';\n\
         access_log {path}/access connections;\n{temporary}{files}\nserver {{\n{listen}{server}\n}}\n}}\n"
    );
    fs::write(folder.path().join("nginx.conf"), configuration).expect("the folder is writable");
    let arguments = ["-p", &path, "-c", "nginx.conf", "-e", "errors"].map(str::to_owned).to_vec();
    // An encrypted one says that it wants encryption.
    let answers = move || first_bytes(port, b"GET /answers HTTP/1.0\r\n\r\n").is_some();
    let (end_signal, answers) = ("KILL", Box::new(answers));
    Server::launch(port, folder, Recipe { program: nginx, arguments, user: None, end_signal, answers })
}

/// How many connections had a POST so far.
pub fn connections(server: &Server) -> usize {
    let log = super::read_lossy(&server.path("access"));
    let mut numbers: Vec<_> = log.lines().filter_map(|line| line.strip_prefix("POST ")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.len()
}
