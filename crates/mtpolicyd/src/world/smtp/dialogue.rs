//! What is said to an SMTP server to learn whether it would take a message (RFC 5321), without sending one.
//!
//! Knows: the order of the commands, what their replies mean. Must not know: which server, who asks.

use super::address::Mailbox;
use super::link::{Link, Lost};
use super::reply::{Capabilities, Reply, Status};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;

/// Whether the connection is encrypted.
#[derive(Clone)]
pub enum Encryption {
    /// Never.
    None,
    /// If the server can.
    Opportunistic(Arc<ClientConfig>),
    /// Or there is none.
    Required(Arc<ClientConfig>),
}

/// What a message would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sends it; none is the null sender.
    pub sender: Option<Mailbox>,
    /// Who is to have it.
    pub recipient: Mailbox,
    /// Its size in bytes, if it is known.
    pub size: Option<u64>,
}

/// Whether a server would take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It would.
    Accepted,
    /// It would not.
    Refused(Refusal),
    /// It can't be asked, and why.
    Unknown(String),
}

/// Why a message would not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it would not be taken later either.
    pub is_permanent: bool,
    /// Whether it is so whoever sends: the recipient's address is the reason, or no server can be asked.
    pub for_all_senders: bool,
    /// What the server said.
    pub message: String,
}

/// Why there is no conversation.
#[derive(Debug)]
pub enum NotOpen {
    /// The server can't be used.
    Lost(Lost),
    /// Its TLS does not work; without, it may.
    Handshake(Lost),
}

impl From<Lost> for NotOpen {
    fn from(lost: Lost) -> NotOpen {
        NotOpen::Lost(lost)
    }
}

impl NotOpen {
    /// Whichever it is.
    pub fn into_lost(self) -> Lost {
        match self {
            NotOpen::Lost(lost) | NotOpen::Handshake(lost) => lost,
        }
    }
}

/// A connection on which both have said hello.
pub struct Conversation {
    link: Link,
    capabilities: Capabilities,
    /// Whether the server offered to encrypt.
    pub offers_tls: bool,
    is_used: bool,
}

impl Conversation {
    /// Connects and says hello, encrypted if that is wanted.
    pub async fn open(
        address: SocketAddr,
        name: ServerName<'static>,
        helo: &str,
        encryption: &Encryption,
    ) -> Result<Conversation, NotOpen> {
        let mut link = Link::connect(address).await?;
        success(link.reply().await?)?;
        let mut capabilities = hello(&mut link, helo).await?;
        let offers_tls = capabilities.starttls;
        let (config, is_required) = match encryption {
            Encryption::None => (None, false),
            Encryption::Opportunistic(config) => (Some(config), false),
            Encryption::Required(config) => (Some(config), true),
        };
        if let Some(config) = config.filter(|_| offers_tls) {
            if link.command("STARTTLS").await?.code == 220 {
                link = link.encrypt(config.clone(), name).await.map_err(NotOpen::Handshake)?;
                capabilities = hello(&mut link, helo).await?;
            } else if is_required {
                return Err(Lost("it does not encrypt, though its TLSA records ask for it".to_owned()).into());
            }
        } else if is_required {
            return Err(Lost("it does not encrypt, though its TLSA records ask for it".to_owned()).into());
        }
        Ok(Conversation { link, capabilities, offers_tls, is_used: false })
    }

    /// Whether the server looks at sizes.
    pub fn looks_at_sizes(&self) -> bool {
        self.capabilities.size
    }

    /// Asks about a message.
    pub async fn judge(&mut self, message: &Message) -> Result<Judgement, Lost> {
        if std::mem::replace(&mut self.is_used, true) {
            success(self.link.command("RSET").await?)?;
        }
        let needs_utf8 = |mailbox: &Mailbox| mailbox.needs_utf8();
        let utf8 = needs_utf8(&message.recipient) || message.sender.as_ref().is_some_and(needs_utf8);
        if utf8 && !self.capabilities.smtputf8 {
            return Ok(Judgement::Unknown("the server takes no addresses in UTF-8".to_owned()));
        }
        let sender = message.sender.as_ref().map_or_else(|| "<>".to_owned(), Mailbox::path);
        let mut command = format!("MAIL FROM:{sender}");
        let size = message.size.filter(|_| self.capabilities.size);
        if let Some(size) = size {
            command.push_str(&format!(" SIZE={size}"));
        }
        if utf8 {
            command.push_str(" SMTPUTF8");
        }
        let reply = self.link.command(&command).await?;
        if !reply.is_success() {
            // A server that does not want mail from this sender, or from us, says nothing of the recipient.
            let is_permanent = size.is_some() && reply.is_permanent() && is_of_size(&reply);
            return Ok(Judgement::Refused(refusal(&reply, is_permanent, false)));
        }
        let reply = self.link.command(&format!("RCPT TO:{}", message.recipient.path())).await?;
        if reply.is_success() {
            return Ok(Judgement::Accepted);
        }
        let is_permanent = reply.is_permanent();
        let for_all_senders = is_permanent && is_of_address(&reply);
        Ok(Judgement::Refused(refusal(&reply, is_permanent, for_all_senders)))
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.link.quit().await;
    }
}

/// Says hello: in the old way where the new one is not understood.
async fn hello(link: &mut Link, helo: &str) -> Result<Capabilities, Lost> {
    let reply = link.command(&format!("EHLO {helo}")).await?;
    if reply.is_success() {
        return Ok(reply.capabilities());
    }
    success(link.command(&format!("HELO {helo}")).await?)?;
    Ok(Capabilities::default())
}

/// What a reply says; the class of its enhanced code is that of what it counts as.
fn refusal(reply: &Reply, is_permanent: bool, for_all_senders: bool) -> Refusal {
    let mut message = reply.text();
    if !is_permanent && matches!(reply.status(), Some(Status(5, ..))) {
        message.replace_range(..1, "4");
    }
    Refusal { is_permanent, for_all_senders, message }
}

fn success(reply: Reply) -> Result<(), Lost> {
    if reply.is_success() { Ok(()) } else { Err(Lost(reply.text())) }
}

/// Whether MAIL was refused for the size (RFC 1870 section 6.1).
fn is_of_size(reply: &Reply) -> bool {
    reply.code == 552 || matches!(reply.status(), Some(Status(_, 3, 4) | Status(_, 2, 3)))
}

/// Whether RCPT was refused for the address: there is none such, or its mailbox is closed (RFC 3463 section
/// 3.2 and 3.3, RFC 7505). Other codes are about routes, policy, or who sends (5.1.7, 5.1.8).
fn is_of_address(reply: &Reply) -> bool {
    matches!(reply.status(), Some(Status(_, 1, 1..=4 | 6 | 10) | Status(_, 2, 1)))
}
