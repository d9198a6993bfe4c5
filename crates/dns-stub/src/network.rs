//! Sockets: ports for questions, connections for what is too long for them.
//!
//! Knows: system calls. Must not know: what a message says, which server is asked.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

use crate::answer::Error;
use crate::channel::Channel;
use crate::engine::Engine;
use crate::message::HEADER;
use crate::random::Random;
use crate::server::Server;
#[cfg(test)]
use crate::simulation::FakeNetwork;

/// The number of messages that one system call sends or receives.
pub(crate) const BATCH: usize = 16;

/// The room for one received message. What fills it was longer, and is fetched over TCP.
const MAX_RECEIVED: usize = 4_096;

/// Ports below are other programs' by right.
const FIRST_PORT: u16 = 1_024;

/// The number of random ports to try before the system chooses one.
const PORT_TRIES: usize = 8;

/// Where channels lead.
pub(crate) enum Network {
    /// To servers.
    System,
    /// To a test.
    #[cfg(test)]
    Fake(Arc<FakeNetwork>),
}

/// What is below a channel.
pub(crate) enum Link {
    /// A connected socket.
    Udp(UdpSocket),
    /// The queue of the task that has the connection.
    Tcp(UnboundedSender<Arc<[u8]>>),
    /// The number of the channel.
    #[cfg(test)]
    Fake { number: u64, is_tcp: bool, network: Arc<FakeNetwork> },
}

impl Network {
    /// Opens a port to a server. Needs a runtime.
    pub fn open_port(
        &self,
        engine: &Arc<Engine>,
        server: &Arc<Server>,
        now: Instant,
    ) -> io::Result<Arc<Channel>> {
        match self {
            Self::System => {
                let socket = connect(server.address, &engine.random)?;
                let channel = Arc::new(Channel::new(Arc::clone(server), Link::Udp(socket), now));
                let reader = tokio::spawn(read_port(Arc::downgrade(engine), Arc::clone(&channel)));
                channel.read_by(reader.abort_handle());
                Ok(channel)
            }
            #[cfg(test)]
            Self::Fake(network) => network.open(server, false, now),
        }
    }

    /// Opens a connection to a server; what is sent meanwhile waits for it. Needs a runtime.
    pub fn open_stream(
        &self,
        engine: &Arc<Engine>,
        server: &Arc<Server>,
        patience: Duration,
        now: Instant,
    ) -> io::Result<Arc<Channel>> {
        match self {
            Self::System => {
                let (sender, messages) = unbounded_channel();
                let channel = Arc::new(Channel::new(Arc::clone(server), Link::Tcp(sender), now));
                let (engine, stream) = (Arc::downgrade(engine), Arc::clone(&channel));
                let reader = tokio::spawn(read_stream(engine, stream, messages, patience));
                channel.read_by(reader.abort_handle());
                Ok(channel)
            }
            #[cfg(test)]
            Self::Fake(network) => network.open(server, true, now),
        }
    }
}

impl Link {
    pub fn is_tcp(&self) -> bool {
        match self {
            Self::Udp(_) => false,
            Self::Tcp(_) => true,
            #[cfg(test)]
            Self::Fake { is_tcp, .. } => *is_tcp,
        }
    }

    /// Sends messages. What the system has no room for is lost, as on the way to the server.
    pub fn send(&self, messages: &[Arc<[u8]>]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                messages.chunks(BATCH).try_for_each(|batch| send_batch(socket.as_raw_fd(), batch))
            }
            Self::Tcp(sender) => {
                // A connection that has ended says so itself.
                messages.iter().for_each(|message| drop(sender.send(Arc::clone(message))));
                Ok(())
            }
            #[cfg(test)]
            Self::Fake { number, is_tcp, network } => network.send(*number, *is_tcp, messages),
        }
    }
}

/// A socket with a random port that takes messages of this server only.
fn connect(server: SocketAddr, random: &Random) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let bind = |port: u16| {
        let local = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        socket.bind(&local.into())
    };
    let random_port = || {
        let offset = random.below(usize::from(u16::MAX - FIRST_PORT) + 1);
        FIRST_PORT + u16::try_from(offset).unwrap_or(0)
    };
    // A port may be taken, or forbidden.
    if !(0..PORT_TRIES).any(|_| bind(random_port()).is_ok()) {
        bind(0)?;
    }
    socket.connect(&server.into())?;
    UdpSocket::from_std(socket.into())
}

/// What a thread needs to receive.
struct Inbox {
    buffers: Box<[[u8; MAX_RECEIVED]; BATCH]>,
    lengths: [usize; BATCH],
    headers: MultiHeaders<()>,
}

thread_local! {
    static INBOX: RefCell<Inbox> = RefCell::new(Inbox {
        buffers: Box::new([[0; MAX_RECEIVED]; BATCH]),
        lengths: [0; BATCH],
        headers: MultiHeaders::preallocate(BATCH, None),
    });
    static OUTBOX: RefCell<MultiHeaders<()>> = RefCell::new(MultiHeaders::preallocate(BATCH, None));
}

/// Sends up to [`BATCH`] messages with one system call, or a few.
fn send_batch(socket: RawFd, mut messages: &[Arc<[u8]>]) -> io::Result<()> {
    while !messages.is_empty() {
        let sent = OUTBOX.with_borrow_mut(|headers| {
            let mut slices = [[IoSlice::new(&[])]; BATCH];
            for (slice, message) in slices.iter_mut().zip(messages) {
                *slice = [IoSlice::new(message)];
            }
            let count = messages.len().min(BATCH);
            let nothing: [ControlMessage<'_>; 0] = [];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            sendmmsg(socket, headers, &slices[..count], [None::<()>; BATCH], nothing, flags)
                .map(Iterator::count)
        });
        match sent {
            Ok(0) | Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(()),
            Ok(count) => messages = &messages[count.min(messages.len())..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives up to [`BATCH`] messages with one system call.
fn receive_batch(socket: RawFd, inbox: &mut Inbox) -> io::Result<usize> {
    let mut slices = inbox.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
    let received = recvmmsg(socket, &mut inbox.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
    let mut count = 0;
    for (length, message) in inbox.lengths.iter_mut().zip(received) {
        (*length, count) = (message.bytes, count + 1);
    }
    Ok(count)
}

/// Hands on what comes to a port, until the channel is closed, which ends the task.
async fn read_port(engine: Weak<Engine>, channel: Arc<Channel>) {
    let Link::Udp(socket) = &channel.link else { return };
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let Some(engine) = engine.upgrade() else { return };
        // What does not fill the batch was all there is: to say so saves the system call that would find it
        // out.
        let received = socket.try_io(Interest::READABLE, || match receive(&engine, &channel, socket) {
            Ok(count) if count < BATCH => Err(io::ErrorKind::WouldBlock.into()),
            other => other.map(drop),
        });
        match received {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => engine.failed(&channel, Some(error.into())),
        }
    }
}

/// Passes on the messages that have arrived. Returns their number.
fn receive(engine: &Arc<Engine>, channel: &Channel, socket: &UdpSocket) -> io::Result<usize> {
    INBOX.with_borrow_mut(|inbox| {
        let count = receive_batch(socket.as_raw_fd(), inbox)?;
        let messages = inbox.buffers.iter().zip(&inbox.lengths).take(count);
        engine.received(channel, messages.map(|(buffer, &length)| &buffer[..length]));
        Ok(count)
    })
}

/// Whether a message was cut off, or may have been.
pub(crate) fn is_cut(message: &[u8]) -> bool {
    message.len() >= MAX_RECEIVED
}

/// Connects, sends what comes and hands on what is answered, until the channel is closed.
async fn read_stream(
    engine: Weak<Engine>,
    channel: Arc<Channel>,
    messages: UnboundedReceiver<Arc<[u8]>>,
    patience: Duration,
) {
    let failure = match timeout(patience, TcpStream::connect(channel.server.address)).await {
        Ok(Ok(stream)) => {
            let _ = converse(&engine, &channel, stream, messages).await;
            None
        }
        Ok(Err(error)) => Some(error.into()),
        Err(_) => Some(Error::Unreachable(io::ErrorKind::TimedOut)),
    };
    if let Some(engine) = engine.upgrade() {
        engine.failed(&channel, failure);
    }
}

/// Sends and receives until either fails.
async fn converse(
    engine: &Weak<Engine>,
    channel: &Arc<Channel>,
    mut stream: TcpStream,
    mut messages: UnboundedReceiver<Arc<[u8]>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.split();
    let (mut inbox, mut outbox) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else { return Ok(()) };
                outbox.clear();
                frame(&message, &mut outbox);
                while let Ok(message) = messages.try_recv() {
                    frame(&message, &mut outbox);
                }
                writer.write_all(&outbox).await?;
            }
            read = reader.read_buf(&mut inbox) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let Some(engine) = engine.upgrade() else { return Ok(()) };
                while let Some(end) = frame_end(&inbox)? {
                    engine.received(channel, [&inbox[2..end]].into_iter());
                    inbox.drain(..end);
                }
            }
        }
    }
}

/// Appends a message behind its length (RFC 1035 section 4.2.2).
fn frame(message: &[u8], out: &mut Vec<u8>) {
    // Questions are short.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
}

/// Where the first message ends, if it is there; an error if it is too short to be one.
fn frame_end(inbox: &[u8]) -> io::Result<Option<usize>> {
    let Some(length) = inbox.first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length < HEADER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((inbox.len() >= 2 + length).then_some(2 + length))
}
