//! A connection to a server: TCP or a UNIX socket.
//!
//! Knows: sockets. Must not know: what goes over the connection.

use crate::Endpoint;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

/// When the kernel begins to ask an idle connection whether its other end is still there, so that one that a
/// firewall has dropped is noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection that is not encrypted.
#[derive(Debug)]
pub enum Socket {
    /// By TCP.
    Tcp(TcpStream),
    /// By a UNIX socket.
    Unix(UnixStream),
}

impl Socket {
    /// Connects. Of several addresses of a host each but the last one has its share of `limit`, so that one
    /// that does not answer leaves some to the next; the caller bounds the whole.
    ///
    /// # Errors
    /// That of the last address.
    pub async fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<Socket> {
        let (host, port) = match endpoint {
            Endpoint::Unix(path) => return UnixStream::connect(path).await.map(Socket::Unix),
            Endpoint::Tcp { host, port } => (host.as_str(), *port),
        };
        let found = lookup_host((host, port)).await;
        let mut addresses = or_loopback(host, port, found.map(Iterator::collect))?;
        let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let Some(last) = addresses.pop() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        };
        for address in addresses {
            if let Ok(Ok(stream)) = timeout(share, TcpStream::connect(address)).await {
                return Socket::tcp(stream);
            }
        }
        Socket::tcp(TcpStream::connect(last).await?)
    }

    fn tcp(stream: TcpStream) -> io::Result<Socket> {
        // A question is one write, and the server can't go on before it has all of it.
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(Socket::Tcp(stream))
    }
}

/// Reads and writes with whichever it is.
macro_rules! delegate {
    ($Type:ident, $($Variant:ident)*) => {
        impl AsyncRead for $Type {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($Type::$Variant(stream) => Pin::new(stream).poll_read(context, buffer),)*
                }
            }
        }

        impl AsyncWrite for $Type {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($Type::$Variant(stream) => Pin::new(stream).poll_write(context, bytes),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($Type::$Variant(stream) => Pin::new(stream).poll_flush(context),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($Type::$Variant(stream) => Pin::new(stream).poll_shutdown(context),)*
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($Type::$Variant(stream) => Pin::new(stream).poll_write_vectored(context, slices),)*
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self { $($Type::$Variant(stream) => stream.is_write_vectored(),)* }
            }
        }
    };
}

delegate!(Socket, Tcp Unix);

// Behind the macro, which it uses.
#[cfg(feature = "tls")]
mod encrypted;
#[cfg(feature = "memcached")]
mod ready;
#[cfg(feature = "tls")]
pub use encrypted::Stream;

/// The addresses that were found. `localhost` is this machine, also where no /etc/hosts and no name server
/// says so (RFC 6761, 6.3), as on a machine that has just been made.
fn or_loopback(host: &str, port: u16, found: io::Result<Vec<SocketAddr>>) -> io::Result<Vec<SocketAddr>> {
    found.or_else(|error| {
        let is_local = host.eq_ignore_ascii_case("localhost");
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if is_local { Ok(loopback.map(|ip: IpAddr| SocketAddr::new(ip, port)).into()) } else { Err(error) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_needs_no_name_service() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let nothing = || Err(io::Error::other("Temporary failure in name resolution"));
        let loopback = or_loopback("LocalHost", 12345, nothing()).unwrap();
        assert_eq!(loopback, [address("127.0.0.1:12345"), address("[::1]:12345")]);
        assert!(or_loopback("localhost.example", 12345, nothing()).is_err());
        let listed = vec![address("127.0.0.2:12345")];
        assert_eq!(or_loopback("localhost", 12345, Ok(listed.clone())).unwrap(), listed);
    }
}
