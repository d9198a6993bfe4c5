//! One who is told of events: in their order, each until it is taken, with pauses that grow.
//!
//! Knows: when an event is sent again. Must not know: how it is sent, what an event says.

use super::queue::Queue;
use super::{ReceiverView, command, mail, webhook};
use crate::events::{Event, Events};
use crate::log::messages::events as messages;
use crate::metrics::Cells;
use crate::settings::{NotifySettings, Way};
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// The pause before an event is sent again, at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What is counted: events that were taken, given up, and dropped.
const RESULTS: usize = 3;
const DELIVERED: usize = 0;
const FAILED: usize = 1;
const DROPPED: usize = 2;

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver has the event.
    Taken,
    /// It has not, or has not said so; it may take it later.
    Later(String),
    /// It never will.
    GivenUp(String),
}

/// A receiver.
pub struct Receiver {
    name: String,
    settings: ArcSwap<NotifySettings>,
    events: Arc<Events>,
    queue: Mutex<Queue>,
    /// Something was added to the queue.
    wake: Notify,
    /// The settings are others.
    changed: Notify,
    counted: Cells<RESULTS>,
    /// Why it takes nothing, if so.
    problem: Mutex<Option<String>>,
    stop: CancellationToken,
}

impl Receiver {
    /// Begins to tell this one.
    pub fn start(settings: NotifySettings, events: &Arc<Events>) -> Arc<Receiver> {
        let receiver = Arc::new(Receiver {
            name: settings.name.clone(),
            settings: ArcSwap::from_pointee(settings),
            events: events.clone(),
            queue: Mutex::default(),
            wake: Notify::new(),
            changed: Notify::new(),
            counted: Cells::default(),
            problem: Mutex::default(),
            stop: CancellationToken::new(),
        });
        tokio::spawn(receiver.clone().run());
        receiver
    }

    /// The name of its block.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It is told otherwise from now on.
    pub fn change(&self, settings: NotifySettings) {
        self.settings.store(Arc::new(settings));
        self.changed.notify_one();
    }

    /// It is told nothing more.
    pub fn stop(&self) {
        self.stop.cancel();
        let left = self.queue().len();
        if left > 0 {
            messages::left(&self.name, left);
        }
    }

    /// Something has happened.
    pub fn offer(&self, event: &Arc<Event>) {
        if !self.settings.load().wants(event) {
            return;
        }
        let has_room = self.queue().offer(event, Instant::now());
        if has_room {
            self.wake.notify_one();
        } else {
            self.dropped(1);
        }
    }

    /// How it does.
    pub fn view(&self) -> ReceiverView {
        ReceiverView {
            name: self.name.clone(),
            way: self.settings.load().way.word().to_owned(),
            waiting: self.queue().len(),
            delivered: self.counted.get(DELIVERED),
            failed: self.counted.get(FAILED),
            dropped: self.counted.get(DROPPED),
            problem: self.problem().clone(),
        }
    }

    /// Tells it of one event, once.
    pub async fn deliver(&self, event: &Event) -> Delivery {
        let settings = self.settings.load_full();
        match &settings.way {
            Way::Webhook { service, secret } => {
                webhook::deliver(service, secret.as_ref(), event, settings.timeout).await
            }
            Way::Mail { server, to, from } => {
                mail::deliver(server, to, from, event, &self.events.own_mail).await
            }
            Way::Command { program, arguments } => {
                command::deliver(program, arguments, event, settings.timeout).await
            }
        }
    }

    /// Tells it of everything, until it is stopped.
    async fn run(self: Arc<Receiver>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.tell_all() => {}
        }
    }

    async fn tell_all(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let event = self.next().await;
            match self.deliver(&event).await {
                Delivery::Taken => {
                    self.done(DELIVERED);
                    pause = FIRST_PAUSE;
                    if self.problem().take().is_some() {
                        messages::taken_again(&self.name);
                    }
                }
                Delivery::GivenUp(why) => {
                    self.done(FAILED);
                    messages::given_up(&self.name, event.kind, why);
                }
                Delivery::Later(why) => {
                    if self.problem().replace(why.clone()).is_none() {
                        messages::not_taken(&self.name, why);
                    }
                    tokio::select! {
                        () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                        () = self.changed.notified() => pause = FIRST_PAUSE,
                    }
                }
            }
        }
    }

    /// The event that is next, when there is one. It stays in the queue.
    async fn next(&self) -> Arc<Event> {
        loop {
            let (dropped, front, due) = {
                let mut queue = self.queue();
                (queue.release(Instant::now(), &self.events), queue.front(), queue.due())
            };
            self.dropped(dropped);
            if let Some(event) = front {
                return event;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn done(&self, result: usize) {
        self.counted.add(result, 1);
        self.queue().pop();
    }

    fn dropped(&self, count: u64) {
        if count > 0 {
            self.counted.add(DROPPED, count);
            // One line is enough until it takes events again.
            if self.counted.get(DROPPED) == count || self.counted.get(DROPPED).is_multiple_of(100) {
                messages::dropped(&self.name, self.counted.get(DROPPED));
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
