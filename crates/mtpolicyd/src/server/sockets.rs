//! Binding of the listen sockets, while the process still has the rights for it.
//!
//! Knows: sockets, the file of a UNIX socket, who owns it. Must not know: requests, settings.

use super::passed::Owner;
use crate::address::ListenAddress;
use nix::unistd::{Gid, Uid};
use safe_files::{Folder, Standing};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections that may wait for `accept`; after a restart every smtpd of a busy Postfix comes at once.
/// The kernel cuts it to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;

/// Owner, group and mode of a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocketOptions {
    /// Owner of the file; the process itself if not given.
    pub owner: Option<Uid>,
    /// Group of the file; that of the process if not given.
    pub group: Option<Gid>,
    /// Permission bits; to connect one needs the right to write.
    pub mode: u32,
}

impl Default for UnixSocketOptions {
    /// Everybody may connect: Postfix runs under another uid, and TCP on the loopback is as open.
    fn default() -> Self {
        UnixSocketOptions { owner: None, group: None, mode: 0o666 }
    }
}

/// A socket that is bound, not yet known to a runtime.
#[derive(Debug)]
pub struct BoundSocket {
    address: ListenAddress,
    socket: Socket,
    file: Option<SocketFile>,
    /// The host that answers there, in the words of [`crate::settings::Settings::host`].
    key: String,
    owner: Owner,
}

/// A listening socket of the runtime.
#[derive(Debug)]
pub enum Listener {
    /// TCP, IPv4 or IPv6.
    Tcp(tokio::net::TcpListener),
    /// A UNIX stream socket, and its file if that is the daemon's: removed when this is dropped.
    Unix(tokio::net::UnixListener, Option<SocketFile>),
}

/// The file of a UNIX socket; dropped, it is removed if it is still the one that was made here.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// It is another process's now.
    left: AtomicBool,
}

/// Binds; an error names the address. A TCP port does not listen before the runtime has it, so that whoever
/// waits for the daemon finds it ready; a UNIX socket does, since one where nobody listens counts as left
/// over.
///
/// The socket is non-blocking and is closed on `exec`. The file of a UNIX socket where nobody listens any
/// more is replaced; a file of another kind never is.
pub fn bind(address: &ListenAddress, options: &UnixSocketOptions) -> io::Result<BoundSocket> {
    let bound = match address {
        ListenAddress::Tcp(tcp) => bind_tcp(*tcp).map(|socket| (socket, None)),
        ListenAddress::Unix(path) => bind_unix(path, options).map(|(socket, file)| (socket, Some(file))),
    };
    let (socket, file) = bound.map_err(|error| naming(address, &error))?;
    let owner = Owner::Daemon(file.as_ref().map(SocketFile::identity));
    Ok(BoundSocket { address: address.clone(), socket, file, key: address.vhost_key(), owner })
}

impl BoundSocket {
    /// One that another process has bound.
    pub(super) fn passed(
        address: ListenAddress,
        socket: Socket,
        file: Option<SocketFile>,
        key: String,
        owner: Owner,
    ) -> BoundSocket {
        BoundSocket { address, socket, file, key, owner }
    }

    /// Finds the file of a UNIX socket again once a folder above it has become the root of the file system.
    pub fn confine(&mut self, root: &Path) {
        if let Some(file) = &mut self.file {
            super::process::confine(&mut file.path, root);
        }
    }

    /// The address as configured.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The host that answers there.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Who has made it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The TCP address that the kernel gave: the port is known also when 0 was asked for.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    fn listen(&self) -> io::Result<()> {
        // One of systemd listens already, with the backlog that its unit says.
        if matches!(self.owner, Owner::Systemd(_)) {
            return Ok(());
        }
        self.socket.listen(BACKLOG).map_err(|error| naming(&self.address, &error))
    }

    /// Lets the socket listen and hands it to the runtime; to be called inside one.
    pub fn into_listener(self) -> io::Result<Listener> {
        Ok(match self.address {
            ListenAddress::Tcp(_) => {
                self.listen()?;
                Listener::Tcp(tokio::net::TcpListener::from_std(self.socket.into())?)
            }
            ListenAddress::Unix(_) => {
                Listener::Unix(tokio::net::UnixListener::from_std(self.socket.into())?, self.file)
            }
        })
    }
}

impl Listener {
    /// Says whether the file of a UNIX socket goes with this process or is left to another one, which has the
    /// socket as well.
    pub fn owns_file(&self, owns: bool) {
        if let Listener::Unix(_, Some(file)) = self {
            file.left.store(!owns, Ordering::Relaxed);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl SocketFile {
    /// One that the predecessor has made, and that is its own until this process has taken over.
    pub(super) fn of_predecessor(path: &Path, (device, inode): (u64, u64)) -> SocketFile {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        SocketFile { path, device, inode, left: AtomicBool::new(true) }
    }

    fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let every_address = address.is_ipv6() && address.ip().is_unspecified();
    match bind_to(address) {
        // `[::]` stands for all addresses: on a machine without IPv6 these are the IPv4 ones.
        Err(error) if every_address && has_no_ipv6(&error) => {
            bind_to(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        result => result,
    }
}

fn bind_to(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait until old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL].iter().any(|code| error.raw_os_error() == Some(*code as i32))
}

fn bind_unix(path: &Path, options: &UnixSocketOptions) -> io::Result<(Socket, SocketFile)> {
    let (folder, name) = Folder::above(path)?;
    remove_stale(&folder, &name, path)?;
    // Where another user could exchange the file before it has its owner and mode, it gets both in a folder
    // that nobody else can enter, and then its name.
    let exchangeable = Uid::effective().is_root() && folder.standing() != Standing::Root;
    let private = exchangeable.then(|| folder.private()).transpose()?;
    let file = match &private {
        Some(private) => private.folder().path()?.join(&name),
        None => path.to_owned(),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&file)?)?;
    let made = private.as_ref().map_or(&folder, |private| private.folder()).stat(&name)?;
    // Absolute, since the working directory may be another one at the end.
    let path = std::path::absolute(path)?;
    let made = SocketFile { path, device: made.st_dev, inode: made.st_ino, left: AtomicBool::new(false) };
    // Before `listen`: nobody can connect while the file has the rights that the umask gave it.
    if options.owner.is_some() || options.group.is_some() {
        let (owner, group) = (options.owner.map(Uid::as_raw), options.group.map(Gid::as_raw));
        std::os::unix::fs::lchown(&file, owner, group)?;
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(options.mode))?;
    socket.listen(BACKLOG)?;
    if let Some(private) = &private {
        private.move_out(&name, &name)?;
    }
    Ok((socket, made))
}

/// Makes room for the socket if its file is left over from a daemon that is gone.
fn remove_stale(folder: &Folder, name: &OsStr, path: &Path) -> io::Result<()> {
    let found = match folder.stat(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.st_mode & nix::libc::S_IFMT != nix::libc::S_IFSOCK {
        let message = "a file that is not a socket is in the way; remove it or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Else a daemon with a full backlog would make us wait.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => folder.remove(name),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

/// The error again, with the address and what can be done.
fn naming(address: &ListenAddress, error: &io::Error) -> io::Error {
    let hint = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, ListenAddress::Tcp(_)) => "; is another daemon running?",
        (io::ErrorKind::PermissionDenied, ListenAddress::Tcp(_)) => "; ports below 1024 need root",
        (io::ErrorKind::NotFound, ListenAddress::Unix(_)) => "; the directory has to exist",
        (io::ErrorKind::PermissionDenied, ListenAddress::Unix(_)) => {
            "; the daemon's user has to write to the directory, and to be in the group of `socket_group`"
        }
        (io::ErrorKind::ReadOnlyFilesystem, ListenAddress::Unix(_)) => {
            "; a systemd unit names its directory with ReadWritePaths="
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        // Without the right to do so it stays, and the next start finds that nobody listens.
        safe_files::remove_same(&self.path, (self.device, self.inode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn tcp(text: &str) -> ListenAddress {
        ListenAddress::Tcp(text.parse().unwrap())
    }

    fn unix(path: &Path) -> io::Result<BoundSocket> {
        bind(&ListenAddress::Unix(path.to_owned()), &UnixSocketOptions::default())
    }

    #[test]
    fn a_port_is_bound_once() {
        let first = bind(&tcp("127.0.0.1:0"), &UnixSocketOptions::default()).unwrap();
        let port = first.tcp_address().unwrap().port();
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "it does not listen yet");
        first.listen().unwrap();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let address = tcp(&format!("127.0.0.1:{port}"));
        let error = bind(&address, &UnixSocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
        drop(first);
        bind(&address, &UnixSocketOptions::default()).unwrap();
    }

    #[test]
    fn the_any_address_takes_ipv4_too() {
        let any = bind(&tcp("[::]:0"), &UnixSocketOptions::default()).unwrap();
        any.listen().unwrap();
        std::net::TcpStream::connect(("127.0.0.1", any.tcp_address().unwrap().port())).unwrap();
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        let bound = unix(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
        let options = UnixSocketOptions { mode: 0o600, ..UnixSocketOptions::default() };
        let _bound = bind(&ListenAddress::Unix(path.clone()), &options).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        let living = UnixListener::bind(&path).unwrap();
        let error = unix(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("p.sock|unix: another process listens there"), "{error}");
        drop(living);
        assert!(path.exists());
        let bound = unix(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(bound);
    }

    #[test]
    fn a_file_of_another_kind_is_never_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(unix(&path).unwrap_err().to_string().contains("not a socket is in the way"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(unix(&link).is_err());
        assert!(
            unix(&directory.path().join("none/p.sock"))
                .unwrap_err()
                .to_string()
                .contains("directory has to exist")
        );
    }

    #[test]
    fn the_file_of_a_successor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        let old = unix(&path).unwrap();
        // Kept under another name, so that the new file can't get the same inode.
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        let new = unix(&path).unwrap();
        drop(old);
        assert!(path.exists());
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_runtime_takes_both_kinds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.sock");
        let Listener::Unix(listener, _file) = unix(&path).unwrap().into_listener().unwrap() else {
            panic!("TCP")
        };
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().await.unwrap();
        let bound = bind(&tcp("127.0.0.1:0"), &UnixSocketOptions::default()).unwrap();
        let address = bound.tcp_address().unwrap();
        let Listener::Tcp(listener) = bound.into_listener().unwrap() else { panic!("UNIX") };
        let _client = std::net::TcpStream::connect(address).unwrap();
        listener.accept().await.unwrap();
    }
}
