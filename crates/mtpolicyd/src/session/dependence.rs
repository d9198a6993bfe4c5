//! Whether what is being found out depends on the recipient.
//!
//! Reading is what makes a finding depend on something, so it is noted where something is read: by the
//! session itself, by `FieldRef` and `Cx::attribute`, and by `Session::depend_on` where a plugin reads the
//! request otherwise. Hence the notes are made through a shared reference.
//!
//! Knows: nothing else. Must not know: fields, plugins.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a finding depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depends {
    /// On client, sender or whatever else is the same for all recipients of the message.
    #[default]
    OnMessage,
    /// On the recipient of the request too.
    OnRecipient,
}

/// What the plugin whose turn it is has looked at.
#[derive(Debug, Default)]
pub(super) struct Dependence {
    /// Whether the recipient is part of that.
    now: AtomicBool,
    /// Whether any plugin has ever looked at the recipient in this session: from then on fields may differ
    /// from recipient to recipient, also those that are missing for this one.
    ever: AtomicBool,
}

impl Dependence {
    pub(super) fn now(&self) -> Depends {
        if self.now.load(Relaxed) { Depends::OnRecipient } else { Depends::OnMessage }
    }

    pub(super) fn set(&self, depends: Depends) {
        self.now.store(depends == Depends::OnRecipient, Relaxed);
    }

    pub(super) fn ever(&self) -> bool {
        self.ever.load(Relaxed)
    }

    pub(super) fn note_recipient(&self) {
        self.now.store(true, Relaxed);
        self.ever.store(true, Relaxed);
    }
}

impl Clone for Dependence {
    fn clone(&self) -> Dependence {
        Dependence { now: AtomicBool::new(self.now.load(Relaxed)), ever: AtomicBool::new(self.ever()) }
    }
}

impl PartialEq for Dependence {
    /// What the plugin whose turn it was has looked at is not part of what is remembered.
    fn eq(&self, other: &Dependence) -> bool {
        self.ever() == other.ever()
    }
}
