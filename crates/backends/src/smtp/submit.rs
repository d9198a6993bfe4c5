//! Hands a message to a server (RFC 5321).
//!
//! Knows: the order of the commands, what their replies mean. Must not know: what the message says.

use super::connection::{Connection, Lost};
use super::message::{Letter, NotSubmitted};
use super::reply::Reply;
use crate::{Endpoint, OptionError};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// A server that messages are handed to.
#[derive(Clone, Debug)]
pub struct Submission {
    server: Endpoint,
    /// What this machine calls itself.
    helo: String,
    limit: Duration,
}

impl From<Lost> for NotSubmitted {
    fn from(Lost(why): Lost) -> NotSubmitted {
        NotSubmitted::Later(why)
    }
}

impl Submission {
    /// For this server. One message may take that long.
    ///
    /// # Errors
    /// Never in this build.
    pub fn new(server: Endpoint, helo: String, limit: Duration) -> Result<Submission, OptionError> {
        Ok(Submission { server, helo, limit })
    }

    /// Hands a message over. `opened` is told from which address, and what it returns is kept until the
    /// connection is closed.
    ///
    /// # Errors
    /// The server has not taken it, or has not said so.
    pub async fn submit<T>(
        &self,
        letter: &Letter,
        opened: impl FnOnce(SocketAddr) -> T,
    ) -> Result<(), NotSubmitted> {
        let late = || NotSubmitted::Later(format!("not within {} seconds", self.limit.as_secs()));
        timeout(self.limit, self.hand_over(letter, opened)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn hand_over<T>(
        &self,
        letter: &Letter,
        opened: impl FnOnce(SocketAddr) -> T,
    ) -> Result<(), NotSubmitted> {
        let mut connection = Connection::connect_to(&self.server).await?;
        let _open = connection.local_address().map(opened);
        success(connection.reply().await?)?;
        let hello = connection.command(&format!("EHLO {}", self.helo)).await?;
        if !hello.is_success() {
            success(connection.command(&format!("HELO {}", self.helo)).await?)?;
        }
        success(connection.command("MAIL FROM:<>").await?)?;
        success(connection.command(&format!("RCPT TO:{}", letter.to.path())).await?)?;
        let reply = connection.command("DATA").await?;
        if reply.code != 354 {
            return Err(refusal(&reply));
        }
        success(connection.command(&data(&letter.text)).await?)?;
        connection.quit().await;
        Ok(())
    }
}

/// The text as it goes over the connection: the end of each line, a dot at the beginning of a line twice,
/// and one alone at the end.
fn data(text: &str) -> String {
    let mut data = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        if line.starts_with('.') {
            data.push('.');
        }
        data.push_str(line);
        data.push_str("\r\n");
    }
    data.push('.');
    data
}

fn success(reply: Reply) -> Result<(), NotSubmitted> {
    if reply.is_success() { Ok(()) } else { Err(refusal(&reply)) }
}

fn refusal(reply: &Reply) -> NotSubmitted {
    let text = format!("{} {}", reply.code, reply.text());
    if reply.is_permanent() { NotSubmitted::Refused(text) } else { NotSubmitted::Later(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_message_ends_it() {
        assert_eq!(data("Subject: x\n\n.\n..a\nb\n"), "Subject: x\r\n\r\n..\r\n...a\r\nb\r\n.");
    }
}
