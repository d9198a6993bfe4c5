//! What is said to an SMTP server to learn whether it would take a message (RFC 5321), without sending one.
//!
//! Knows: the order of the commands, what their replies mean. Must not know: which server, who asks.

use super::address::Mailbox;
use super::connection::{Connection, Lost};
use super::findings::{Judgement, Message, Refusal};
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

/// Whose words a text for a reply may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// Those of the server, which is the administrator's.
    Theirs,
    /// Only ours. Strangers choose the server, so its words are not passed on to them, nor to others.
    Ours,
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
    connection: Connection,
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
        let mut connection = Connection::connect(address).await?;
        success(connection.reply().await?)?;
        let mut capabilities = hello(&mut connection, helo).await?;
        let offers_tls = capabilities.starttls;
        let (config, is_required) = match encryption {
            Encryption::None => (None, false),
            Encryption::Opportunistic(config) => (Some(config), false),
            Encryption::Required(config) => (Some(config), true),
        };
        if let Some(config) = config.filter(|_| offers_tls) {
            // Some servers announce TLS, and hang up on whoever wants it.
            if connection.command("STARTTLS").await.map_err(NotOpen::Handshake)?.code == 220 {
                connection = connection.encrypt(config.clone(), name).await.map_err(NotOpen::Handshake)?;
                capabilities = hello(&mut connection, helo).await.map_err(NotOpen::Handshake)?;
            } else if is_required {
                return Err(Lost("it does not encrypt, though its TLSA records ask for it".to_owned()).into());
            }
        } else if is_required {
            return Err(Lost("it does not encrypt, though its TLSA records ask for it".to_owned()).into());
        }
        Ok(Conversation { connection, capabilities, offers_tls, is_used: false })
    }

    /// Whether the server looks at sizes.
    pub fn looks_at_sizes(&self) -> bool {
        self.capabilities.size
    }

    /// Asks about a message.
    pub async fn judge(&mut self, message: &Message, wording: Wording) -> Result<Judgement, Lost> {
        if std::mem::replace(&mut self.is_used, true) {
            success(self.connection.command("RSET").await?)?;
        }
        let needs_utf8 = |mailbox: &Mailbox| mailbox.needs_utf8();
        let utf8 = needs_utf8(&message.recipient) || message.sender.as_ref().is_some_and(needs_utf8);
        if utf8 && !self.capabilities.smtputf8 {
            return Ok(Judgement::Refused(no_utf8(&message.recipient)));
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
        let reply = self.connection.command(&command).await?;
        if !reply.is_success() {
            // A server that does not want mail from this sender, or from us, says nothing of the recipient.
            let is_permanent = size.is_some() && reply.is_permanent() && is_of_size(&reply);
            return Ok(Judgement::Refused(refusal(&reply, is_permanent, false, message, wording)));
        }
        let reply = self.connection.command(&format!("RCPT TO:{}", message.recipient.path())).await?;
        if reply.is_success() {
            return Ok(Judgement::Accepted);
        }
        let is_permanent = reply.is_permanent() && !is_about_us(&reply);
        let for_all_senders = is_permanent && is_of_address(&reply);
        Ok(Judgement::Refused(refusal(&reply, is_permanent, for_all_senders, message, wording)))
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.connection.quit().await;
    }
}

/// Says hello: in the old way where the new one is not understood.
async fn hello(connection: &mut Connection, helo: &str) -> Result<Capabilities, Lost> {
    let reply = connection.command(&format!("EHLO {helo}")).await?;
    if reply.is_success() {
        return Ok(reply.capabilities());
    }
    success(connection.command(&format!("HELO {helo}")).await?)?;
    Ok(Capabilities::default())
}

/// What a reply says; the class of its enhanced code is that of what it counts as.
fn refusal(
    reply: &Reply,
    is_permanent: bool,
    for_all_senders: bool,
    message: &Message,
    wording: Wording,
) -> Refusal {
    let mut said = reply.text();
    if !is_permanent && matches!(reply.status(), Some(Status(5, ..))) {
        said.replace_range(..1, "4");
    }
    if wording == Wording::Theirs {
        return Refusal { is_permanent, for_all_senders, message: said, said: None };
    }
    let class = if is_permanent { 5 } else { 4 };
    let code = reply.status().map(|Status(_, subject, detail)| format!("{class}.{subject}.{detail} "));
    let what = if is_permanent && is_of_size(reply) {
        "takes no message of this size"
    } else if is_permanent && is_of_address(reply) {
        "does not know this address"
    } else if is_permanent {
        "takes no mail for this address"
    } else {
        "takes no mail for this address at the moment"
    };
    let domain = message.recipient.domain();
    let message = format!("{}the mail server of {domain} {what}", code.unwrap_or_default());
    Refusal { is_permanent, for_all_senders, message, said: Some(said) }
}

/// An address that its server can't have, as far as it says; whether it can later is not known.
fn no_utf8(recipient: &Mailbox) -> Refusal {
    let message = format!("4.6.7 the mail server of {} takes no addresses in UTF-8", recipient.domain());
    Refusal { is_permanent: false, for_all_senders: false, message, said: None }
}

fn success(reply: Reply) -> Result<(), Lost> {
    if reply.is_success() { Ok(()) } else { Err(Lost(reply.text())) }
}

/// Whether MAIL was refused for the size (RFC 1870 section 6.1).
fn is_of_size(reply: &Reply) -> bool {
    reply.code == 552 || matches!(reply.status(), Some(Status(_, 3, 4) | Status(_, 2, 3)))
}

/// Whether RCPT was refused for the address: there is none such, or its mailbox is closed (RFC 3463 section
/// 3.2 and 3.3, RFC 7505). Other codes are about routes, policy, or the sender (5.1.7, 5.1.8).
fn is_of_address(reply: &Reply) -> bool {
    matches!(reply.status(), Some(Status(_, 1, 1..=4 | 6 | 10) | Status(_, 2, 1)))
}

/// Whether RCPT was refused though the address may be right: for who we are or what our own sender is, for
/// policy, for the network, or for the dialogue (RFC 3463 section 3.2, 3.4, 3.5, 3.6 and 3.8). Servers that
/// want no mail from us at all say so only here, as Postfix does by default.
fn is_about_us(reply: &Reply) -> bool {
    match reply.status() {
        Some(Status(_, 1, 7 | 8) | Status(_, 3, 2 | 3 | 5) | Status(_, 4 | 5 | 7, _)) => true,
        Some(_) => false,
        // Commands and their order, and logins that are asked for (RFC 5321 section 4.2.3, RFC 4954).
        None => matches!(reply.code, 500..=504 | 530 | 534 | 535 | 538),
    }
}
