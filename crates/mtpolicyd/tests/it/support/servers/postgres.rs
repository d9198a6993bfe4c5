//! PostgreSQL.
//!
//! Knows: its programs, the first message of its protocol. Must not know: any table.

use super::{Recipe, Server, first_bytes, free_port, is_root, new_folder, run, template};
use std::fs;
use std::path::{Path, PathBuf};

/// The database, the user and the user's password.
pub const NAME: &str = "mtpolicyd";

const PACKAGE: &str = "postgresql";

/// It refuses to run as root.
pub(super) const USER: &str = "postgres";

/// Small, and as safe as a crash of the server alone needs it. Shared memory is in files of the folder, so
/// that nothing is left of it.
const OPTIONS: [&str; 7] = [
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "shared_buffers=16MB",
    "max_connections=300",
    "dynamic_shared_memory_type=mmap",
    "autovacuum=off",
    "jit=off",
];

/// Starts one. Its UNIX socket is in its folder.
pub fn start() -> Server {
    start_with(&[])
}

/// The same with more settings, such as `ssl=on`.
pub fn start_with(settings: &[&str]) -> Server {
    let postgres = program("postgres");
    let folder = new_folder();
    let port = free_port();
    let data = folder.path().join("data");
    super::copy(&template(&postgres, |data| prepare(&postgres, data)), &data);
    // The server makes a socket in the folder.
    give_to_user(folder.path());
    let mut arguments = vec!["-D".to_owned(), data.display().to_string(), "-p".to_owned(), port.to_string()];
    arguments.extend(["-k".to_owned(), folder.path().display().to_string()]);
    for setting in OPTIONS.iter().chain(settings) {
        arguments.extend(["-c".to_owned(), (*setting).to_owned()]);
    }
    let recipe = Recipe {
        program: postgres,
        arguments,
        user: Some(USER),
        end_signal: "QUIT",
        answers: Box::new(move || first_bytes(port, &startup_message()).is_some_and(|said| said[0] == b'R')),
    };
    Server::launch(port, folder, recipe)
}

/// The data source name, as Perl's DBI writes it. User and password are [`NAME`].
pub fn dsn(server: &Server) -> String {
    format!("dbi:Pg:dbname={NAME};host=127.0.0.1;port={}", server.port)
}

/// A new cluster with a database and a user.
fn prepare(postgres: &Path, data: &Path) {
    let around = data.parent().expect("it lies in a folder");
    give_to_user(around);
    let password = around.join("password");
    fs::write(&password, NAME).expect("the folder is writable");
    let initdb = program("initdb").display().to_string();
    let (data, password) = (data.display().to_string(), format!("--pwfile={}", password.display()));
    let authentication = "--auth=scram-sha-256";
    let options = ["--no-sync", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", authentication];
    let mut command = vec![initdb.as_str(), "-U", NAME, "-D", &data, &password];
    command.extend(options);
    run_as_user(&command);
    // A server without clients takes statements from its standard input.
    let (postgres, quoted) = (postgres.display(), format!("echo 'CREATE DATABASE {NAME}'"));
    run_as_user(&["sh", "-c", &format!("{quoted} | '{postgres}' --single -D '{data}' postgres")]);
}

/// Debian keeps the programs of each version in a folder of its own: those of the newest one.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs =
        versions.map(|version| version.path().join("bin").join(name)).filter(|file| file.is_file());
    let version =
        |file: &PathBuf| -> Option<u32> { file.ancestors().nth(2)?.file_name()?.to_str()?.parse().ok() };
    programs.max_by_key(version).unwrap_or_else(|| super::program(name, PACKAGE))
}

fn run_as_user(command: &[&str]) {
    let user = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()];
    let mut all: Vec<&str> = Vec::new();
    if is_root() {
        all.extend(user.iter().map(String::as_str));
    }
    all.push("--");
    all.extend(command);
    run(Path::new("setpriv"), &all);
}

fn give_to_user(folder: &Path) {
    if is_root() {
        run(Path::new("chown"), &["-R", &format!("{USER}:"), &folder.display().to_string()]);
    }
}

/// Who wants to be let in, in version 3.0 of the protocol. The answer is an `R`, for how to prove it, once
/// the server is ready.
pub(super) fn startup_message() -> Vec<u8> {
    let parameters = format!("user\0{NAME}\0database\0{NAME}\0\0");
    let length = u32::try_from(8 + parameters.len()).expect("it is short");
    [&length.to_be_bytes()[..], &196_608_u32.to_be_bytes(), parameters.as_bytes()].concat()
}
