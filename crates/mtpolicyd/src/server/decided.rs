//! What comes of a request: a reply, or which plugin failed and what Postfix is told then.
//!
//! Knows: replies, `on_error`. Must not know: how a request is answered.

use crate::chain::DEFERRED;
use crate::log::messages::daemon;
use crate::plugin::{Error, OnError, Progress, Undecided};
use crate::settings::VirtualHost;
use postfix_policy::Reply;
use std::sync::Arc;

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// Postfix gets an action.
    Reply(Reply),
    /// The connection is closed without one; Postfix tries again, then runs its default action.
    Close,
}

/// What the line of a request shows if its connection was closed without an answer.
const CLOSED: &str = "(connection closed)";

/// What Postfix is told when a check has failed; `None` closes the connection.
pub(super) fn action_of(on_error: OnError) -> Option<&'static str> {
    match on_error {
        OnError::Close => None,
        OnError::Defer => Some(DEFERRED),
        OnError::Dunno | OnError::Continue => Some("dunno"),
    }
}

/// What comes of a request.
pub(super) struct Decided {
    /// The plugin that decided, or failed.
    pub(super) plugin: Option<Arc<str>>,
    /// What Postfix is told; `None` closes the connection.
    pub(super) reply: Option<Reply>,
}

impl Decided {
    pub(super) fn by_nobody(reply: Option<Reply>) -> Decided {
        Decided { plugin: None, reply }
    }

    /// How the line of the request shows it: nothing if no plugin decided, as in the original.
    pub(super) fn result(&self) -> &str {
        match &self.reply {
            None => CLOSED,
            Some(reply) if self.plugin.is_some() || *reply != Reply::dunno() => reply.as_str(),
            Some(_) => "",
        }
    }

    pub(super) fn answer(self, host: &str) -> Answer {
        let Some(reply) = self.reply else { return Answer::Close };
        if let Some(warning) = reply.warning() {
            daemon::action_changed(host, self.plugin.as_deref().unwrap_or_default(), warning);
        }
        Answer::Reply(reply)
    }
}

/// Why a chain did not end.
pub(super) struct Failure {
    pub(super) plugin: Arc<str>,
    pub(super) on_error: OnError,
    /// The time was over.
    pub(super) is_late: bool,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn of_plugin(error: Error, host: &VirtualHost) -> Failure {
        let text = error.to_string();
        match error {
            Error::In { plugin, on_error, .. } => {
                Failure { plugin, on_error: on_error.unwrap_or(host.on_error), is_late: false, text }
            }
            _ => Failure { plugin: "".into(), on_error: host.on_error, is_late: false, text },
        }
    }

    pub(super) fn too_late(progress: Progress, host: &VirtualHost) -> Failure {
        let plugin = host.chain.name(progress.step()).cloned().unwrap_or_default();
        let text = format!("plugin {plugin}: the request took longer than request_timeout");
        // Each backend has ended before, by an outage of its own; what takes longer than all of them may be
        // the request's own doing. So Postfix gets an answer rather than its default action.
        let on_error = match progress.on_error().unwrap_or(host.on_error) {
            OnError::Close => OnError::Defer,
            other => other,
        };
        Failure { plugin, on_error, is_late: true, text }
    }

    /// The message does not pass by this failure if an earlier check could not find out: not by Postfix's
    /// default action either, which it runs after a connection that was closed.
    pub(super) fn despite(mut self, undecided: Option<&Undecided>) -> Failure {
        if undecided.is_some() {
            self.on_error = OnError::Defer;
        }
        self
    }
}

pub(super) fn report_failure(host: &VirtualHost, instance: &[u8], failure: &impl std::fmt::Display) {
    let instance = String::from_utf8_lossy(instance);
    daemon::request_failed(&host.name, instance, failure);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(on_error: OnError) -> Failure {
        Failure { plugin: "p".into(), on_error, is_late: false, text: String::new() }
    }

    #[test]
    fn an_outage_does_not_let_pass_what_could_not_be_judged() {
        let undecided = Undecided { plugin: "p".into(), number: 0, cause: "odd".to_owned() };
        for (on_error, despite) in [
            (OnError::Dunno, OnError::Defer),
            (OnError::Continue, OnError::Defer),
            (OnError::Close, OnError::Defer),
            (OnError::Defer, OnError::Defer),
        ] {
            assert_eq!(failure(on_error).despite(Some(&undecided)).on_error, despite);
            assert_eq!(failure(on_error).despite(None).on_error, on_error);
        }
    }

    #[test]
    fn every_decision_can_be_shown() {
        assert_eq!(Decided::by_nobody(None).result(), CLOSED);
        assert_eq!(Decided::by_nobody(Some(Reply::dunno())).result(), "");
        assert_eq!(Decided::by_nobody(Some(Reply::new(DEFERRED))).result(), DEFERRED);
        let by_plugin = Decided { plugin: Some("p".into()), reply: Some(Reply::dunno()) };
        assert_eq!(by_plugin.result(), "dunno");
    }
}
