//! What must not be shown.
//!
//! Knows: that it is secret. Must not know: what it opens.

/// A password, a token or a key. It can't be printed: there is neither `Display` nor `Debug`, and what holds
/// one has no `Debug` either.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);
