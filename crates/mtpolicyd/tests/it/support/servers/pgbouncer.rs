//! PgBouncer, in front of a PostgreSQL.
//!
//! Knows: its program and its file. Must not know: any table.

use super::postgres::NAME;
use super::{Recipe, Server, first_bytes, free_port, is_root, new_folder, postgres, program, run};
use std::fs;
use std::path::Path;

/// Starts one that gives each transaction one of this many connections to the server.
pub fn start(server: &Server, connections: u32) -> Server {
    let pgbouncer = program("pgbouncer", "pgbouncer");
    let folder = new_folder();
    let port = free_port();
    let users = folder.path().join("users");
    fs::write(&users, format!("\"{NAME}\" \"{NAME}\"\n")).expect("the folder is writable");
    let file = folder.path().join("pgbouncer.ini");
    let text = format!(
        "[databases]\n{NAME} = host=127.0.0.1 port={} dbname={NAME}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {}\n\
         pool_mode = transaction\ndefault_pool_size = {connections}\n",
        server.port,
        users.display()
    );
    fs::write(&file, text).expect("the folder is writable");
    if is_root() {
        let folder = folder.path().display().to_string();
        run(Path::new("chown"), &["-R", &format!("{}:", postgres::USER), &folder]);
    }
    let recipe = Recipe {
        program: pgbouncer,
        arguments: vec![file.display().to_string()],
        user: Some(postgres::USER),
        end_signal: "QUIT",
        answers: Box::new(move || {
            first_bytes(port, &postgres::startup_message()).is_some_and(|said| said[0] == b'R')
        }),
    };
    Server::launch(port, folder, recipe)
}
