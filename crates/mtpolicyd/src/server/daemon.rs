//! The daemon at work: it accepts until a signal says otherwise, and ends without losing a request.
//!
//! Knows: signals, listeners, the processes before and after this one. Must not know: how a process is set
//! up, requests.

use super::console::{self, ConsolePort};
use super::control::{self, Order};
use super::handover::{Handover, Offer, Predecessor, Successor};
use super::listeners::Listeners;
use super::log_level::LogLevel;
use super::metrics;
use super::notify::Notify;
use super::privileges::Identity;
use super::process::{self, Background, PidFile};
use super::reload::Reload;
use super::sockets::BoundSocket;
use super::{ServeOptions, Shared, StartError, events, scheduler};
use crate::log::LogHandle;
use crate::log::messages::daemon;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How long connections go on after a handover. Postfix uses none for longer than
/// `smtpd_policy_service_max_ttl`, 1000 seconds.
const AFTER_HANDOVER: Duration = Duration::from_mins(20);

/// What is bound beside the ports of Postfix, and where orders arrive.
pub(super) type Doors = (control::Bound, metrics::Bound, console::Bound, mpsc::Receiver<Order>);

/// A daemon whose process is set up.
pub(super) struct Daemon<'a> {
    pub(super) options: &'a ServeOptions,
    pub(super) identity: Identity,
    /// What a successor runs.
    pub(super) program: PathBuf,
    pub(super) log: &'a LogHandle,
    pub(super) pid_file: Option<&'a PidFile>,
    pub(super) notify: Arc<Notify>,
    pub(super) predecessor: Option<&'a Predecessor>,
    pub(super) shared: Arc<Shared>,
}

/// Why the daemon accepts no more.
enum Ending {
    Told,
    Interrupted,
    HandedOver(Successor),
}

impl Daemon<'_> {
    /// Says which configuration is in use from now on.
    pub(super) fn tell_configuration(&self) {
        let service = self.shared.service.load();
        daemon::configuration_in_use(self.options.config.display(), &service.settings.fingerprint);
    }

    /// Opens the ports and answers until the end.
    pub(super) async fn run(
        &self,
        sockets: Vec<BoundSocket>,
        (control, metrics, console, mut orders): Doors,
        background: Option<Background>,
    ) -> Result<(), StartError> {
        let mut signals = Signals::new()?;
        process::release_signals()?;
        let mut listeners = Listeners::default();
        self.shared.service.load().keep_decisions();
        // A port that listens tells others that the daemon is ready, so that comes last.
        scheduler::prepare(self.shared.service.load_full()).await;
        let ports = sockets.into_iter().map(TryInto::try_into);
        listeners.start(ports.collect::<std::io::Result<_>>()?, &self.shared);
        listeners.start_control(control, &self.shared)?;
        listeners.metrics = metrics::start(metrics, &self.shared);
        listeners.console = ConsolePort::start(console, &self.shared);
        self.shared.desk.update(|in_use| in_use.ports = listeners.addresses());
        self.succeed(&listeners)?;
        self.shared.events.apply(&self.shared.service.load());
        let told = tokio::spawn(events::run(self.shared.clone()));
        let hourly = tokio::spawn(scheduler::run(self.shared.clone()));
        let watch = tokio::spawn(events::watch(self.shared.clone()));
        let notify = self.notify.clone();
        let alive = tokio::spawn(async move { notify.keep_alive().await });
        background.as_ref().map_or(Ok(()), Background::ready)?;
        daemon::listening(env!("CARGO_PKG_VERSION"), listeners.names());
        self.tell_configuration();
        self.notify.ready(&format!("answering on {}", listeners.names()));
        match self.work(&mut signals, &mut orders, &mut listeners).await {
            Ending::Told => {
                self.notify.stopping();
                daemon::shutting_down();
                if let Some(successor) = self.offer(&mut signals, &listeners).await {
                    hourly.abort();
                    watch.abort();
                    successor.take_over(self, &listeners);
                }
                self.end(listeners).await;
            }
            Ending::Interrupted => {
                self.notify.stopping();
                daemon::shutting_down();
                self.end(listeners).await;
            }
            Ending::HandedOver(successor) => {
                // From here on the service manager listens to the successor only.
                hourly.abort();
                watch.abort();
                alive.abort();
                successor.take_over(self, &listeners);
                self.finish_conversations(&mut signals, listeners).await;
            }
        }
        // It has been told to end by now, and says what it leaves.
        let _ = told.await;
        Ok(())
    }

    /// Tells the predecessor, if there is one, that it may let go: requests are answered here. What was its
    /// own is this process's now.
    fn succeed(&self, listeners: &Listeners) -> Result<(), StartError> {
        let Some(predecessor) = self.predecessor else { return Ok(()) };
        self.pid_file.map_or(Ok(()), PidFile::record)?;
        predecessor.ready(&listeners.sockets(), self.pid_file.is_some())?;
        listeners.own_files(&[]);
        Ok(())
    }

    async fn work(
        &self,
        signals: &mut Signals,
        orders: &mut mpsc::Receiver<Order>,
        listeners: &mut Listeners,
    ) -> Ending {
        let (mut reload, mut handover) = (Reload::default(), Handover::default());
        let mut log_level = LogLevel::default();
        loop {
            // What a successor is given does not change while it starts.
            tokio::select! {
                _ = signals.terminate.recv() => return Ending::Told,
                _ = signals.interrupt.recv() => return Ending::Interrupted,
                _ = signals.reopen.recv() => self.log.reopen(),
                _ = signals.reload.recv(), if !handover.is_running() => reload.request(self, None),
                Some(order) = orders.recv(), if !handover.is_running() => match order {
                    Order::Reload(verdict) => reload.request(self, Some(verdict)),
                    Order::HandOver(verdict) if reload.is_running() => {
                        let _ = verdict.send(Err("a reload is in progress; try again".to_owned()));
                    }
                    Order::HandOver(verdict) => handover.request(self, listeners, Some(verdict)),
                    Order::LogLevel { level, time, done } => {
                        log_level.set(level, time, self);
                        // Who has left does not want to know.
                        let _ = done.send(());
                    }
                },
                () = log_level.ended() => log_level.fall_back(self),
                read = reload.finished() => {
                    reload.finish(read, self, listeners).await;
                    log_level.reapply(self);
                }
                _ = signals.hand_over.recv(), if !reload.is_running() => {
                    handover.request(self, listeners, None);
                }
                started = handover.finished() => match started {
                    Ok(successor) => return Ending::HandedOver(successor),
                    Err(error) => self.stay(&error),
                },
            }
        }
    }

    /// Goes on as before, since nobody has taken over.
    fn stay(&self, error: &std::io::Error) {
        daemon::not_handed_over(error);
        self.notify.ready("the handover has failed, see the log; this process stays in service");
        // The other process may have come as far as that.
        if let Some(Err(error)) = self.pid_file.map(PidFile::record) {
            daemon::stopped(error);
        }
    }

    /// Answers on the connections there are until their clients close them. A client of Postfix stays with
    /// its connection, so that the session of a message stays here as well.
    async fn finish_conversations(&self, signals: &mut Signals, listeners: Listeners) {
        listeners.stop().await;
        self.shared.conversations.close();
        let mut limit = std::pin::pin!(tokio::time::sleep(AFTER_HANDOVER));
        loop {
            tokio::select! {
                () = self.shared.conversations.wait() => {
                    daemon::handover_finished();
                    break;
                }
                () = &mut limit => break,
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.reload.recv() => self.log.reopen(),
                _ = signals.reopen.recv() => self.log.reopen(),
            }
        }
        self.end(Listeners::default()).await;
    }

    /// Goes on for a moment, if there are clients, so that a daemon that is started now finds the ports open
    /// and takes them: that one, once it serves requests. A second signal ends the waiting. A service manager
    /// starts the next daemon only when this one has ended, so nobody would come.
    async fn offer(&self, signals: &mut Signals, listeners: &Listeners) -> Option<Successor> {
        if self.notify.is_heard() || self.shared.conversations.is_empty() {
            return None;
        }
        let offer = Offer::new(self, listeners)?;
        tokio::select! {
            successor = offer.taken() => successor,
            _ = signals.terminate.recv() => None,
            _ = signals.interrupt.recv() => None,
        }
    }

    /// Stops accepting, then waits for the requests in flight, no longer than one may take.
    async fn end(&self, listeners: Listeners) {
        /// Beyond the deadline of the requests, for writing their answers.
        const GRACE: Duration = Duration::from_secs(1);
        self.shared.closing.cancel();
        listeners.stop().await;
        self.shared.conversations.close();
        let longest = self.shared.service.load().request_timeout() + GRACE;
        if tokio::time::timeout(longest, self.shared.conversations.wait()).await.is_err() {
            daemon::connections_left(self.shared.conversations.len());
        }
        if tokio::time::timeout(GRACE, self.shared.service.load_full().finish()).await.is_err() {
            daemon::sessions_left();
        }
        let recorder = self.shared.service.load().recorder().clone();
        // It blocks for some seconds at most, and says itself what is lost.
        let _ = tokio::task::spawn_blocking(move || recorder.journal().end()).await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
    hand_over: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }
}
