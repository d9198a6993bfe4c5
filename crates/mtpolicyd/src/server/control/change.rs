//! What the control socket has the daemon do: read its configuration again, log more or less.
//!
//! Knows: orders, and how their results are shown. Must not know: how they are carried out.

use super::call::{Answer, Call, Problem, respond};
use crate::log::MAX_LEVEL;
use crate::log::messages::daemon as messages;
use crate::server::StartError;
use crate::settings::{Messages, Severity};
use decisions::rfc3339;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// The longest time for which the level of the log may be set: whoever wants it for longer writes it into the
/// configuration.
const LONGEST_LEVEL: u64 = 7 * 86_400;

/// What the daemon is told to do.
pub enum Order {
    /// Read the configuration again, and say what came of it.
    Reload(oneshot::Sender<ReloadView>),
    /// Have a new process of the program take over the ports, and say which one has, or why none.
    HandOver(oneshot::Sender<Result<u32, String>>),
    /// Log as much as this level says.
    LogLevel {
        /// 0 to 4.
        level: u8,
        /// For how long; until the next reload if nothing is said.
        time: Option<Duration>,
        /// Told when it is done.
        done: oneshot::Sender<()>,
    },
}

/// What came of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadView {
    /// Whether the new configuration is in use.
    pub reloaded: bool,
    /// The hash of the configuration in use.
    pub hash: String,
    /// The mistakes of the file.
    pub mistakes: usize,
    /// Another reason why it is not in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What there is to say about the file, one line each.
    pub messages: Vec<MessageView>,
    /// The same with the lines of the file, for a terminal.
    pub text: String,
}

/// Something about a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageView {
    /// `error`, `warning` or `notice`.
    pub severity: String,
    /// What it is, with file, line and column.
    pub text: String,
}

impl ReloadView {
    /// Of a file that is in use.
    pub fn reloaded(messages: &Messages) -> ReloadView {
        ReloadView { reloaded: true, ..ReloadView::about(messages) }
    }

    /// Of one that is not.
    pub fn refused(error: &StartError) -> ReloadView {
        match error {
            StartError::Configuration(messages) => ReloadView::about(messages),
            other => ReloadView { error: Some(other.to_string()), ..ReloadView::default() },
        }
    }

    fn about(messages: &Messages) -> ReloadView {
        let lines = messages.lines().map(|(severity, text)| {
            let severity = match severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Notice => "notice",
            };
            MessageView { severity: severity.to_owned(), text }
        });
        let (mistakes, text) = (messages.errors(), messages.to_string());
        ReloadView { mistakes, messages: lines.collect(), text, ..ReloadView::default() }
    }
}

/// What came of a handover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverView {
    /// The process that answers now; `None` if it is still this one.
    pub process: Option<u32>,
    /// Why no other one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How much is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelView {
    /// 0 to 4.
    pub level: u8,
    /// When the level of the configuration returns, in RFC 3339; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedLevel {
    level: u8,
    #[serde(default)]
    seconds: Option<u64>,
}

pub(super) async fn reload(call: Call) -> Answer {
    messages::reload_requested(call.peer.name().await);
    call.audit("reload").await;
    let (verdict, told) = oneshot::channel();
    order(&call, Order::Reload(verdict)).await?;
    let view = told.await.map_err(|_| ending())?;
    let status = if view.reloaded { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    Ok(respond(status, &view))
}

pub(super) async fn hand_over(call: Call) -> Answer {
    messages::handover_requested(call.peer.name().await);
    let (verdict, told) = oneshot::channel();
    order(&call, Order::HandOver(verdict)).await?;
    let (status, process, error) = match told.await.map_err(|_| ending())? {
        Ok(process) => (StatusCode::OK, Some(process), None),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, None, Some(error)),
    };
    Ok(respond(status, &HandoverView { process, error }))
}

pub(super) async fn log_level(call: Call) -> Answer {
    let WantedLevel { level, seconds } = call.json()?;
    if level > MAX_LEVEL {
        return Err(Problem::bad(format!("{level} is not a level from 0 to {MAX_LEVEL}")));
    }
    if seconds.is_some_and(|seconds| !(1..=LONGEST_LEVEL).contains(&seconds)) {
        return Err(Problem::bad("a level is set for a second at least, and for seven days at most"));
    }
    let time = seconds.map(Duration::from_secs);
    let until = time.and_then(|time| SystemTime::now().checked_add(time)).map(rfc3339);
    let how_long = seconds.map_or_else(|| "until the next reload".to_owned(), |it| format!("for {it} s"));
    call.audit(&format!("log level {level}, {how_long}")).await;
    messages::log_level_requested(call.peer.name().await, level, how_long);
    let (done, told) = oneshot::channel();
    order(&call, Order::LogLevel { level, time, done }).await?;
    told.await.map_err(|_| ending())?;
    super::call::ok(&LogLevelView { level, until })
}

async fn order(call: &Call, order: Order) -> Result<(), Problem> {
    call.shared.desk.orders.send(order).await.map_err(|_| ending())
}

fn ending() -> Problem {
    Problem::unavailable("the daemon is ending, or another process has taken over; try again")
}
