//! Redis: a server, a sentinel that watches servers, a cluster of three.
//!
//! Knows: its programs and its protocol. Must not know: any key.

use super::{Recipe, Server, eventually, free_port, look, new_folder, program};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};

const PACKAGE: &str = "redis-server";

/// How many slots the keys of a cluster are spread over.
const SLOTS: u32 = 16_384;

/// Starts a server. Its UNIX socket is the file `redis.sock` of its folder.
pub fn start() -> Server {
    start_with(&[])
}

/// The same with more options, such as `["--requirepass", "secret"]` or `["--appendonly", "yes"]`.
pub fn start_with(options: &[&str]) -> Server {
    let port = free_port();
    let number = port.to_string();
    let mut arguments = vec!["--port", &number, "--bind", "127.0.0.1", "--unixsocket", "redis.sock"];
    // It forgets everything when it stops.
    arguments.extend(["--save", "", "--daemonize", "no", "--repl-diskless-sync-delay", "0"]);
    arguments.extend(options);
    let arguments = arguments.into_iter().map(str::to_owned).collect();
    let recipe = Recipe {
        program: program("redis-server", PACKAGE),
        arguments,
        user: None,
        end_signal: "KILL",
        answers: Box::new(move || {
            let said = try_command(port, &["PING"]).unwrap_or_default();
            said.starts_with("+PONG") || said.starts_with("-NOAUTH")
        }),
    };
    Server::launch(port, new_folder(), recipe)
}

/// Starts a server that repeats what the other one does, and can take its place.
pub fn start_replica(of: &Server) -> Server {
    let server = start_with(&["--replicaof", "127.0.0.1", &of.port.to_string()]);
    eventually("the replica follows", || {
        command(server.port, &["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    server
}

/// Starts a sentinel that watches the master under that name, alone decides that it is down after half a
/// second, and has a replica of it take over. It returns once it knows of `replicas` replicas.
pub fn start_sentinel(name: &str, master: &Server, replicas: usize) -> Server {
    let port = free_port();
    let folder = new_folder();
    let configuration = format!(
        "port {port}\nbind 127.0.0.1\ndaemonize no\nsentinel monitor {name} 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n",
        master.port
    );
    // The sentinel writes what it learns into the file.
    fs::write(folder.path().join("sentinel.conf"), configuration).expect("the folder is writable");
    let recipe = Recipe {
        program: program("redis-sentinel", "redis-sentinel"),
        arguments: vec!["sentinel.conf".to_owned()],
        user: None,
        end_signal: "KILL",
        answers: Box::new(move || try_command(port, &["PING"]).is_some_and(|said| said.starts_with("+PONG"))),
    };
    let server = Server::launch(port, folder, recipe);
    let known = format!("num-slaves\r\n${}\r\n{replicas}\r\n", replicas.to_string().len());
    eventually("the sentinel knows the replicas", || {
        try_command(port, &["SENTINEL", "MASTER", name]).filter(|said| said.contains(&known))
    });
    server
}

/// Starts three servers that share the keys among them.
pub fn start_cluster() -> [Server; 3] {
    let servers = [0, 1, 2].map(|_| {
        let bus = free_port().to_string();
        start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"])
    });
    let first = myself(&servers[0]);
    for (number, server) in (0_u32..).zip(&servers) {
        let slots = [number * SLOTS / 3, (number + 1) * SLOTS / 3 - 1].map(|slot| slot.to_string());
        command(server.port, &["CLUSTER", "ADDSLOTSRANGE", &slots[0], &slots[1]]);
        command(server.port, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        if number > 0 {
            command(server.port, &["CLUSTER", "MEET", "127.0.0.1", &first[0], &first[1]]);
        }
    }
    eventually("the cluster is complete", || {
        let complete = |server: &Server| {
            // A server that is busy with the others may be slow.
            let info = try_command(server.port, &["CLUSTER", "INFO"]).unwrap_or_default();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        servers.iter().all(complete).then_some(())
    });
    servers
}

/// The port of a node and the port that nodes use among themselves.
fn myself(server: &Server) -> [String; 2] {
    let nodes = command(server.port, &["CLUSTER", "NODES"]);
    let place = nodes.split([' ', ',']).find_map(|word| word.split_once('@')).expect("it names itself");
    [server.port.to_string(), place.1.to_owned()]
}

/// Says one command, and returns the reply as it came (RESP).
///
/// # Panics
/// When the server does not answer.
pub fn command(port: u16, words: &[&str]) -> String {
    try_command(port, words).unwrap_or_else(|| panic!("no answer to {words:?}"))
}

/// The same, or nothing where the server does not answer or hangs up.
pub fn try_command(port: u16, words: &[&str]) -> Option<String> {
    let mut stream = look(port)?;
    let mut message = format!("*{}\r\n", words.len());
    for word in words {
        message.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(message.as_bytes()).ok()?;
    let mut reply = Vec::new();
    read_reply(&mut BufReader::new(stream), &mut reply)?;
    Some(String::from_utf8_lossy(&reply).into_owned())
}

/// Reads one reply, those that it consists of included.
fn read_reply(from: &mut impl BufRead, reply: &mut Vec<u8>) -> Option<()> {
    let start = reply.len();
    from.read_until(b'\n', reply).ok()?;
    let line = std::str::from_utf8(&reply[start..]).ok()?.trim_end();
    let count = line.get(1..).and_then(|count| count.parse::<u64>().ok());
    match (line.as_bytes().first()?, count) {
        (b'$', Some(length)) => {
            from.take(length + 2).read_to_end(reply).ok()?;
        }
        (b'*', Some(count)) => (0..count).try_for_each(|_| read_reply(from, reply))?,
        _ => {}
    }
    Some(())
}

/// How often a server has executed a command, in scripts too.
pub fn calls(port: u16, command_name: &str) -> u64 {
    count(port, "commandstats", &format!("cmdstat_{command_name}:calls="))
}

/// How often a server has answered with an error of that kind, such as `TRYAGAIN`.
pub fn errors(port: u16, kind: &str) -> u64 {
    count(port, "errorstats", &format!("errorstat_{kind}:count="))
}

fn count(port: u16, section: &str, before: &str) -> u64 {
    let info = command(port, &["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(before));
    let digits = line.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
