//! Listening sockets that this process was given: by systemd (sd_listen_fds(3)), or by its predecessor.
//!
//! Knows: sockets, settings, which of them belong together. Must not know: requests.

use super::descriptors;
use super::sockets::{self, BoundSocket, SocketFile, UnixSocketOptions};
use crate::address::ListenAddress;
use crate::settings::Settings;
use nix::sys::socket::{getsockopt, sockopt};
use serde_json::{Value, json};
use socket2::{Socket, Type};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// The first number that systemd uses.
const FIRST: RawFd = 3;

/// The variables of sd_listen_fds(3). They name a process, so they mean nothing to a successor.
pub const LISTEN_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// A socket that listens already, and where it came from.
#[derive(Debug)]
pub struct PassedSocket {
    socket: Socket,
    address: ListenAddress,
    owner: Owner,
}

/// Who has made a socket, and so who closes it for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// systemd, under this name (`FileDescriptorName=`). It stays open when the daemon ends.
    Systemd(String),
    /// The daemon; a UNIX socket has a file, known by device and inode, that goes at the end.
    Daemon(Option<(u64, u64)>),
}

impl PassedSocket {
    /// The sockets that systemd has opened for this process. To be called before anything is opened.
    pub fn from_systemd() -> io::Result<Vec<PassedSocket>> {
        let variable = |name: &str| std::env::var(name).ok();
        let [process, count, names] = LISTEN_VARIABLES.map(variable);
        if process.and_then(|id| id.parse().ok()) != Some(std::process::id()) {
            return Ok(Vec::new());
        }
        let count = count.and_then(|count| count.parse::<RawFd>().ok()).unwrap_or(0);
        let names = names.unwrap_or_default();
        let mut names = names.split(':');
        let passed = (FIRST..FIRST.saturating_add(count)).map(|number| {
            let name = names.next().unwrap_or_default().to_owned();
            let failed = |error: io::Error| {
                io::Error::new(error.kind(), format!("cannot use the socket that systemd passed: {error}"))
            };
            let descriptor = descriptors::adopt(number).map_err(failed)?;
            PassedSocket::new(descriptor, None, Owner::Systemd(name)).map_err(failed)
        });
        passed.collect()
    }

    /// One of the predecessor's, from the text beside it.
    pub fn from_predecessor(description: &Value, descriptor: OwnedFd) -> io::Result<PassedSocket> {
        let text = |key: &str| description.get(key).and_then(Value::as_str);
        let tcp = text("tcp").and_then(|address| address.parse().ok()).map(ListenAddress::Tcp);
        let address = tcp.or_else(|| text("unix").map(|path| ListenAddress::Unix(PathBuf::from(path))));
        let number = |key: &str| description.get(key).and_then(Value::as_u64);
        let owner = match text("systemd") {
            Some(name) => Owner::Systemd(name.to_owned()),
            None => Owner::Daemon(number("device").zip(number("inode"))),
        };
        PassedSocket::new(descriptor, address, owner)
    }

    fn new(descriptor: OwnedFd, address: Option<ListenAddress>, owner: Owner) -> io::Result<PassedSocket> {
        let socket = Socket::from(descriptor);
        let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
        if !is_stream || !getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false) {
            let message = "it is not a stream socket that listens; write `ListenStream=`, and `Accept=no`";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        socket.set_nonblocking(true)?;
        let address = address.or_else(|| own_address(&socket));
        let address = address.ok_or_else(|| io::Error::other("it is neither TCP nor a UNIX socket"))?;
        Ok(PassedSocket { socket, address, owner })
    }

    /// What `from_predecessor` reads.
    pub fn describe(address: &ListenAddress, owner: &Owner) -> Value {
        let mut description = match address {
            ListenAddress::Tcp(address) => json!({ "tcp": address.to_string() }),
            ListenAddress::Unix(path) => json!({ "unix": path.display().to_string() }),
        };
        match owner {
            Owner::Systemd(name) => description["systemd"] = json!(name),
            Owner::Daemon(Some((device, inode))) => {
                description["device"] = json!(device);
                description["inode"] = json!(inode);
            }
            Owner::Daemon(None) => (),
        }
        description
    }

    /// The host that answers there, if the settings have one: that of the socket's name, else that of its
    /// address.
    fn key(&self, settings: &Settings) -> Option<String> {
        let named = match &self.owner {
            Owner::Systemd(name) => settings.host(name, None).map(|_| name.clone()),
            Owner::Daemon(_) => None,
        };
        named.or_else(|| {
            let key = self.address.vhost_key();
            settings.host(&key, None).map(|_| key)
        })
    }

    fn into_bound(self, key: String) -> BoundSocket {
        let file = match (&self.owner, &self.address) {
            (Owner::Daemon(Some(made)), ListenAddress::Unix(path)) => {
                Some(SocketFile::of_predecessor(path, *made))
            }
            _ => None,
        };
        BoundSocket::passed(self.address, self.socket, file, key, self.owner)
    }
}

fn own_address(socket: &Socket) -> Option<ListenAddress> {
    let address = socket.local_addr().ok()?;
    if let Some(tcp) = address.as_socket() {
        return Some(ListenAddress::Tcp(tcp));
    }
    let path = address.as_pathname().map(Path::to_owned);
    let name = || address.as_abstract_namespace().map(|name| format!("@{}", String::from_utf8_lossy(name)));
    path.or_else(|| name().map(PathBuf::from)).map(ListenAddress::Unix)
}

/// One of the sockets that were passed, by its address.
pub fn take(passed: &mut Vec<PassedSocket>, address: &ListenAddress) -> Option<BoundSocket> {
    let at = passed.iter().position(|socket| socket.address == *address)?;
    Some(passed.remove(at).into_bound(address.vhost_key()))
}

/// A socket for every address of the settings, those that were passed and new ones for the rest; and what
/// systemd has passed beyond that, for the hosts of those names. An error names the address.
///
/// What the predecessor has and nobody wants any more is closed here.
pub fn bind_all(
    settings: &Settings,
    options: &UnixSocketOptions,
    mut passed: Vec<PassedSocket>,
) -> io::Result<Vec<BoundSocket>> {
    let mut bound = Vec::new();
    for address in &settings.addresses {
        match passed.iter().position(|socket| socket.address == *address) {
            Some(at) => {
                let socket = passed.remove(at);
                let key = socket.key(settings).unwrap_or_else(|| address.vhost_key());
                bound.push(socket.into_bound(key));
            }
            None => bound.push(sockets::bind(address, options)?),
        }
    }
    for socket in passed {
        match (socket.key(settings), &socket.owner) {
            (Some(key), Owner::Systemd(_)) => bound.push(socket.into_bound(key)),
            (None, Owner::Systemd(name)) => return Err(nobody_answers(&socket.address, name)),
            (_, Owner::Daemon(_)) => (),
        }
    }
    Ok(bound)
}

/// systemd holds a socket open for which the configuration has no host: clients would wait there forever.
pub fn nobody_answers(address: &ListenAddress, name: &str) -> io::Error {
    io::Error::other(format!(
        "systemd passes the socket {address} as \"{name}\", and no VirtualHost answers there: give the host \
         that name, or write the host's name into FileDescriptorName= of the socket unit"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn settings(folder: &Path) -> Settings {
        let path = folder.join("conf");
        let host = |key: &str, name: &str| {
            format!(
                "<VirtualHost {key}>\n name = {name}\n <Plugin p>\n  module = Action\n  action = OK\n \
                 </Plugin>\n</VirtualHost>\n"
            )
        };
        let hosts = host("0", "incoming") + &host("/never", "outgoing");
        std::fs::write(&path, format!("port = \"127.0.0.1:0\"\n{hosts}")).unwrap();
        Settings::load(&path, None).map_err(|messages| messages.to_string()).unwrap().0
    }

    fn passed(path: &Path, owner: Owner) -> PassedSocket {
        PassedSocket::new(UnixListener::bind(path).unwrap().into(), None, owner).unwrap()
    }

    fn bound(settings: &Settings, socket: PassedSocket) -> Result<Vec<String>, String> {
        let bound = bind_all(settings, &UnixSocketOptions::default(), vec![socket]);
        let bound = bound.map_err(|error| error.to_string())?;
        Ok(bound.iter().map(|socket| format!("{} for {}", socket.address(), socket.key())).collect())
    }

    #[test]
    fn a_socket_of_systemd_belongs_to_the_host_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        for name in ["outgoing", "/never"] {
            let path = folder.path().join(name.trim_start_matches('/'));
            let found = bound(&settings, passed(&path, Owner::Systemd(name.to_owned()))).unwrap();
            assert_eq!(found[1..], [format!("{}|unix for {name}", path.display())]);
            assert!(path.exists(), "it is systemd's");
        }
        let path = folder.path().join("p");
        let error = bound(&settings, passed(&path, Owner::Systemd("mtpolicyd.socket".into()))).unwrap_err();
        assert!(error.contains("as \"mtpolicyd.socket\", and no VirtualHost answers there"), "{error}");
    }

    #[test]
    fn a_socket_of_the_predecessor_belongs_to_its_address_or_goes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let found = bound(&settings, passed(&folder.path().join("old"), Owner::Daemon(None))).unwrap();
        assert_eq!(found, ["127.0.0.1:0 for 0"]);
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let same = PassedSocket::describe(&settings.addresses[0], &Owner::Daemon(None));
        let socket = PassedSocket::from_predecessor(&same, tcp.into()).unwrap();
        let bound = bind_all(&settings, &UnixSocketOptions::default(), vec![socket]).unwrap();
        assert_eq!(bound.len(), 1);
        assert_eq!(bound[0].tcp_address(), Some(address), "not a new one");
    }

    #[test]
    fn what_is_described_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        for (number, owner) in
            [Owner::Systemd("incoming".to_owned()), Owner::Daemon(Some((1, u64::MAX))), Owner::Daemon(None)]
                .into_iter()
                .enumerate()
        {
            let path = folder.path().join(number.to_string());
            let address = ListenAddress::Unix(path.clone());
            let description = PassedSocket::describe(&address, &owner);
            let listener = UnixListener::bind(&path).unwrap();
            let read = PassedSocket::from_predecessor(&description, listener.into()).unwrap();
            assert_eq!((read.address, read.owner), (address, owner));
        }
    }

    #[test]
    fn only_sockets_that_listen_are_taken() {
        let refused = |descriptor: OwnedFd| {
            PassedSocket::new(descriptor, None, Owner::Daemon(None)).unwrap_err().to_string()
        };
        let file = tempfile::tempfile().unwrap();
        assert!(refused(file.into()).contains("not a stream socket that listens"));
        let connected = std::os::unix::net::UnixStream::pair().unwrap().0;
        assert!(refused(connected.into()).contains("not a stream socket that listens"));
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(refused(datagrams.into()).contains("not a stream socket that listens"));
    }
}
