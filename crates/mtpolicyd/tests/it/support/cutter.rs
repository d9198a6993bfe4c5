//! A way to a server that breaks before a command arrives, or after it has been executed and before its reply
//! has arrived.
//!
//! Knows: the first byte of a reply. Must not know: what the commands are for.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// When a connection breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Before the server hears of the command.
    Before,
    /// When its reply begins with this byte.
    AfterReply(u8),
}

/// Passes connections on to the server, and breaks the first one over which a script with this word among its
/// keys was executed. Returns the port, and how many such scripts there were.
pub fn cut_at_first(server: u16, word: &'static str) -> (u16, Arc<AtomicUsize>) {
    // A script may be unknown, which is an error.
    cut(server, word, Cut::AfterReply(b'*'))
}

/// The same for any command, and before it as well.
pub fn cut(server: u16, word: &'static str, cut: Cut) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("it works");
    let port = listener.local_addr().expect("it works").port();
    let executed = Arc::new(AtomicUsize::new(0));
    let counted = executed.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let executed = counted.clone();
            std::thread::spawn(move || pass_on(client, server, (word.as_bytes(), cut), &executed));
        }
    });
    (port, executed)
}

fn pass_on(mut client: TcpStream, server: u16, (word, cut): (&[u8], Cut), executed: &Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(("127.0.0.1", server)).expect("it works");
    let is_asked = Arc::new(AtomicBool::new(false));
    let (to_client, from_server) =
        (client.try_clone().expect("it works"), server.try_clone().expect("it works"));
    let (asked, counted) = (is_asked.clone(), executed.clone());
    let replies = std::thread::spawn(move || pass_replies(to_client, from_server, cut, &asked, &counted));
    // A command may arrive in several pieces.
    let (mut piece, mut seen) = (vec![0; 65536], Vec::new());
    while let Ok(length @ 1..) = client.read(&mut piece) {
        seen.extend_from_slice(&piece[..length]);
        if seen.windows(word.len()).any(|bytes| bytes == word) {
            seen.clear();
            if cut == Cut::Before && executed.fetch_add(1, Ordering::Relaxed) == 0 {
                break;
            }
            is_asked.store(true, Ordering::SeqCst);
        }
        seen.drain(..seen.len().saturating_sub(word.len() - 1));
        if server.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    let _ = replies.join();
}

/// Passes on what the server sends, up to the reply that is to be lost. The client of a test sends its next
/// command when it has the reply to the one before.
fn pass_replies(
    mut client: TcpStream,
    mut server: TcpStream,
    cut: Cut,
    is_asked: &AtomicBool,
    executed: &AtomicUsize,
) {
    let mut reply = vec![0; 65536];
    while let Ok(length @ 1..) = server.read(&mut reply) {
        let is_meant = is_asked.swap(false, Ordering::SeqCst) && cut == Cut::AfterReply(reply[0]);
        if is_meant && executed.fetch_add(1, Ordering::Relaxed) == 0
            || client.write_all(&reply[..length]).is_err()
        {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}
