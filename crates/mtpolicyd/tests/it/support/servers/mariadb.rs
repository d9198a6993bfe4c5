//! MariaDB.
//!
//! Knows: its programs. Must not know: any table.

use super::{Recipe, Server, first_bytes, free_port, new_folder, program, run, template};
use std::fs;

/// The database, the user and the user's password.
pub const NAME: &str = "mtpolicyd";

const PACKAGE: &str = "mariadb-server";

/// Who may do what, each time it starts.
const INIT: &str = "\
CREATE DATABASE IF NOT EXISTS mtpolicyd CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS mtpolicyd@'%' IDENTIFIED BY 'mtpolicyd';
GRANT ALL ON *.* TO mtpolicyd@'%';
";

/// Small, and as safe as a crash of the server alone needs it.
const OPTIONS: [&str; 9] = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-use-native-aio=0",
    "--performance-schema=OFF",
    "--max-connections=500",
];

/// Starts one. Its UNIX socket is the file `mysql.sock` of its folder.
pub fn start() -> Server {
    start_with(&[])
}

/// The same with more arguments, such as `--ssl-cert=FILE`.
pub fn start_with(arguments: &[&str]) -> Server {
    let mariadbd = program("mariadbd", PACKAGE);
    let folder = new_folder();
    let port = free_port();
    let prepared = template(&mariadbd, |data| {
        let data = format!("--datadir={}", data.display());
        let normal = "--auth-root-authentication-method=normal";
        // Only so that the files are as small as the server is told to have them.
        let small = "--innodb-log-file-size=8M";
        let program = program("mariadb-install-db", PACKAGE);
        run(&program, &["--no-defaults", "--user=root", "--skip-test-db", normal, small, &data]);
    });
    super::copy(&prepared, &folder.path().join("data"));
    fs::write(folder.path().join("init.sql"), INIT).expect("the folder is writable");
    let file = |option: &str, name: &str| format!("--{option}={}", folder.path().join(name).display());
    let mut all = vec![
        "--no-defaults".to_owned(),
        "--user=root".to_owned(),
        format!("--port={port}"),
        file("datadir", "data"),
        file("socket", "mysql.sock"),
        file("pid-file", "pid"),
        file("init-file", "init.sql"),
    ];
    all.extend(OPTIONS.iter().chain(arguments).map(|argument| (*argument).to_owned()));
    let recipe = Recipe {
        program: mariadbd,
        arguments: all,
        user: None,
        end_signal: "KILL",
        // It speaks first, and only once it is ready.
        answers: Box::new(move || first_bytes(port, b"").is_some()),
    };
    Server::launch(port, folder, recipe)
}

/// The data source name, as Perl's DBI writes it. User and password are [`NAME`].
pub fn dsn(server: &Server) -> String {
    format!("dbi:mysql:database={NAME};host=127.0.0.1;port={}", server.port)
}
