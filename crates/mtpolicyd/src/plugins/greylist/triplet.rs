//! Sender, client and recipient: what greylisting is about.
//!
//! Knows: addresses of the envelope. Must not know: stores, what becomes of the message.

use super::sender::without_tags;
use postfix_policy::Request;
use std::borrow::Cow;

/// Sender, client and recipient of a request. The two addresses are those that Postfix will understand, in
/// lower case, so that a retry may spell them otherwise.
pub struct Triplet<'a> {
    pub sender: Cow<'a, [u8]>,
    pub client: &'a [u8],
    pub recipient: Cow<'a, [u8]>,
    /// The sender as it is written. Earlier versions and the original knew it under that.
    written_sender: Cow<'a, [u8]>,
    written_recipient: &'a [u8],
}

impl<'a> Triplet<'a> {
    /// Reads the addresses of a request. What is missing counts as empty.
    pub fn of(request: &'a Request, client: &'a [u8], ignore_tags: bool) -> Triplet<'a> {
        let (mut sender, written) = (request.sender().key(), request.get("sender").unwrap_or_default());
        let mut written_sender = Cow::Borrowed(written);
        if ignore_tags {
            sender = Cow::Owned(without_tags(&sender).into_owned());
            written_sender = without_tags(written);
        }
        let recipient = request.recipient().key();
        let written_recipient = request.get("recipient").unwrap_or_default();
        Triplet { sender, client, recipient, written_sender, written_recipient }
    }

    /// The same with the addresses as they are written.
    pub fn as_written(&self) -> Triplet<'_> {
        Triplet {
            sender: Cow::Borrowed(&self.written_sender),
            recipient: Cow::Borrowed(self.written_recipient),
            written_sender: Cow::Borrowed(&self.written_sender),
            ..*self
        }
    }
}

impl std::fmt::Display for Triplet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [sender, client, recipient] =
            [&*self.sender, self.client, &*self.recipient].map(String::from_utf8_lossy);
        write!(f, "{sender},{client},{recipient}")
    }
}
