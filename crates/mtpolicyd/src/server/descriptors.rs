//! Open files that one process gives to another: over a UNIX socket, or by a number that systemd left open.
//!
//! Knows: descriptors. Must not know: what they are for.

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{sendmsg, socketpair};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Longest text beside a descriptor: a path and a few words.
const MAX_TEXT: usize = 16 * 1024;

/// Two connected sockets that keep messages apart; both are closed on `exec`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a text, and a descriptor beside it. The receiver gets one of its own for the same open file.
pub fn send(socket: impl AsFd, text: &[u8], descriptor: Option<RawFd>) -> io::Result<()> {
    let descriptor: Vec<RawFd> = descriptor.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&descriptor)];
    let beside = if descriptor.is_empty() { &[][..] } else { &rights[..] };
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<UnixAddr>(socket, &[IoSlice::new(text)], beside, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The next text and the descriptor beside it, which is closed on `exec`; `None` when the other side has
/// closed.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; MAX_TEXT];
    let into = &mut [IoSliceMut::new(&mut text)];
    let received = recvmsg(socket, into, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    let descriptor = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    text.truncate(received.bytes);
    Ok((received.bytes > 0).then_some((text, descriptor)))
}

/// Makes the descriptor with this number one that has an owner, closed on `exec`.
///
/// Only for numbers that whoever started the process has left open for it, before anything else is opened:
/// the old number is free afterwards. It goes over a socket and back, since the kernel's copy can be owned
/// without a promise that only `unsafe` code can give.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    let (ours, theirs) = pair()?;
    send(&ours, b"adopt", Some(number))?;
    let adopted = receive(&theirs)?.and_then(|(_, descriptor)| descriptor);
    nix::unistd::close(number)?;
    adopted.ok_or_else(|| io::Error::other("the descriptor did not arrive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::IntoRawFd;

    #[test]
    fn a_descriptor_arrives_beside_its_text() {
        let (ours, theirs) = pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&ours, b"a file", Some(file.as_raw_fd())).unwrap();
        send(&ours, b"no file", None).unwrap();
        drop(ours);
        let (text, received) = receive(&theirs).unwrap().unwrap();
        assert_eq!(text, b"a file");
        File::from(received.unwrap()).write_all(b"written there").unwrap();
        let (mut file, mut found) = (file, String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut found).unwrap();
        assert_eq!(found, "written there");
        let (text, none) = receive(&theirs).unwrap().unwrap();
        assert!(text == b"no file" && none.is_none());
        assert!(receive(&theirs).unwrap().is_none(), "the other side has closed");
    }

    #[test]
    fn a_number_gets_an_owner() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"the same").unwrap();
        let number = file.into_raw_fd();
        let mut adopted = File::from(adopt(number).unwrap());
        let mut found = String::new();
        adopted.rewind().unwrap();
        adopted.read_to_string(&mut found).unwrap();
        assert_eq!(found, "the same");
        let flags = nix::fcntl::fcntl(&adopted, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, nix::libc::FD_CLOEXEC);
        assert_eq!(adopt(1_000_000).unwrap_err().raw_os_error(), Some(nix::libc::EBADF));
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let (ours, theirs) = pair().unwrap();
        send(&ours, &vec![b'x'; MAX_TEXT + 1], None).unwrap();
        assert!(receive(&theirs).unwrap_err().to_string().contains("too long"));
    }
}
