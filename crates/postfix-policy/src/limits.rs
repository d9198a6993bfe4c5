//! How much a peer may send before it is refused.

/// Bytes in one request, its final empty line included.
///
/// Postfix sends about 1 KiB. A client certificate's subject or a long sender can add some; a mebibyte leaves
/// room for what later versions send, and bounds what a hostile peer can make one connection hold.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Bytes in one line of a request, its line break excluded.
///
/// Postfix cuts what it takes from SMTP at 2 KiB, but certificates and `policy_context` have no such bound.
/// The original was seen to answer lines of 200,000 bytes, and so must its replacement.
pub const MAX_LINE_BYTES: usize = 256 << 10;

/// Attributes in one request.
///
/// Postfix 3.12 sends about 35. Names are compared one after the other, so this also bounds what looking one
/// up can cost.
pub const MAX_ATTRIBUTES: usize = 2048;

/// Bytes in one answer of another policy server, its final empty line included.
///
/// Room for a list of restrictions or the attributes for debugging that a server may add; Postfix itself has
/// no bound here. What is passed on is cut by [`Reply`](crate::Reply).
#[cfg(feature = "client")]
pub const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Attributes in one answer of another policy server: only the first `action` counts.
#[cfg(feature = "client")]
pub const MAX_ANSWER_ATTRIBUTES: usize = 128;

/// The bounds that one [`Decoder`](crate::Decoder) keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) message_bytes: usize,
    pub(crate) line_bytes: usize,
    pub(crate) attributes: usize,
}

impl Limits {
    pub(crate) const REQUEST: Limits =
        Limits { message_bytes: MAX_REQUEST_BYTES, line_bytes: MAX_LINE_BYTES, attributes: MAX_ATTRIBUTES };

    /// An answer is mostly one line, so a line may fill it.
    #[cfg(feature = "client")]
    pub(crate) const ANSWER: Limits = Limits {
        message_bytes: MAX_ANSWER_BYTES,
        line_bytes: MAX_ANSWER_BYTES,
        attributes: MAX_ANSWER_ATTRIBUTES,
    };
}
