//! The Postfix policy delegation protocol: requests and replies as bytes, with limits.
//!
//! A policy server is asked `name=value` lines, closed by an empty line, and answers in the same form:
//! `action=...` and an empty line. One connection carries many questions, one after the other.
//!
//! - [`Decoder`] finds [`Request`]s in the bytes of a connection, whatever way they were cut into reads.
//! - [`Reply`] is an answer that Postfix can't misread: exactly one line of printable UTF-8.
//! - [`refuses`] tells whether a message passes with an action.
//! - [`Mailbox`] is a sender or recipient as Postfix will understand it, which is not always as it is
//!   written.
//! - [`check_action`] says beforehand what Postfix would make of an action's text.
//! - `client` (with the feature of that name) asks other policy servers.
//!
//! Nothing else here knows what an attribute means, nor what a daemon does with it. The protocol is
//! described in Postfix's `SMTPD_POLICY_README`, the actions in access(5).
//!
//! ```
//! use bytes::BytesMut;
//! use postfix_policy::{Decoder, Reply};
//!
//! let mut input = BytesMut::from("request=smtpd_access_policy\nsender=alice@example.org\n\n");
//! let request = Decoder::default().decode(&mut input)?.expect("the request is whole");
//! assert_eq!(request.get("sender"), Some(&b"alice@example.org"[..]));
//!
//! let mut output = Vec::new();
//! Reply::new("reject not today").write_to(&mut output);
//! assert_eq!(output, b"action=reject not today\n\n");
//! # Ok::<(), postfix_policy::ProtocolError>(())
//! ```

mod action;
mod advice;
#[cfg(feature = "client")]
pub mod client;
mod decoder;
mod error;
pub mod limits;
mod mailbox;
mod reply;
mod request;

pub use action::{MAX_HEADER_BYTES, MAX_OTHER_ACTION_BYTES, MAX_REPLY_ACTION_BYTES, refuses};
pub use advice::check_action;
pub use decoder::Decoder;
pub use error::ProtocolError;
pub use mailbox::{Mailbox, canonical_domain, folded, quoted_local_part, without_extension};
pub use reply::{Reply, ReplyWarning};
pub use request::Request;
