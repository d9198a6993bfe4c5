//! What is looked at from time to time, so that it is told when something begins and when it has ended.
//!
//! Knows: where the state of things is, what has been told of them. Must not know: who is told.

mod edges;

use crate::connections::BackendState;
use crate::events::{EventKind, Events};
use crate::server::Shared;
use crate::server::service::Service;
use edges::{Edges, LateRequests, Losses, UNUSED_FOR};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// How often.
const LOOK: Duration = Duration::from_secs(2);
/// How often servers are asked whether they answer, in looks. One that has changed is asked at the next one
/// too: it is told of what has been so twice.
const BACKENDS: u32 = 5;
/// How often the file is looked at, in looks.
const FILE: u32 = 15;

/// How long servers may take to answer, until they count as not answering.
const BACKENDS_LIMIT: Duration = Duration::from_secs(3);

/// Looks until the daemon ends.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut watch = Watch::default();
    let look_again_and_again = async {
        loop {
            watch.look(&shared).await;
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = look_again_and_again => {}
        () = shared.closing.cancelled() => {}
    }
}

/// What was seen so far.
#[derive(Default)]
struct Watch {
    looks: u32,
    edges: Edges,
    /// A server is not as it was told: it is asked again soon.
    is_unsure: bool,
    late: LateRequests,
    losses: Losses,
    /// The journal could not be written at the last look. Somebody may lock it for a moment.
    is_journal_failing: bool,
}

impl Watch {
    async fn look(&mut self, shared: &Shared) {
        let service = shared.service.load_full();
        let events = service.world().events.clone();
        self.edges.begin_round();
        events.end_limits(&service.world().clock);
        self.look_at_lists(&service, &events);
        self.look_at_journal(&service, &events);
        self.look_at_requests(&events);
        self.look_at_configuration(shared, &events).await;
        self.look_at_backends(&service, &events).await;
        self.edges.end_round(EventKind::ListQuarantined);
        self.looks = self.looks.wrapping_add(1);
    }

    fn look_at_lists(&mut self, service: &Service, events: &Events) {
        for used in &service.settings.remembered.lists {
            let condition = service.world().lists.condition(used.list.zone());
            let name = used.list.label();
            let state = condition.is_quarantined.then(|| {
                let advice = "No message is refused because of it. `mtpolicyd lists --test` shows what it \
                              answers; remove it if it was closed.";
                (format!("DNS list {name} is quarantined: {}", condition.state), advice.to_owned())
            });
            let well = format!("DNS list {name} is well again");
            self.edges.see(EventKind::ListQuarantined, &name, state, &well, events);
        }
    }

    fn look_at_journal(&mut self, service: &Service, events: &Events) {
        let status = service.recorder().journal().get().map(|journal| journal.status());
        let file = status.as_ref().map(|status| status.file.clone()).unwrap_or_default();
        let lost = status.as_ref().map_or(0, |status| status.lost);
        let is_losing = self.losses.are_fresh(lost, Instant::now());
        let failure = status.and_then(|status| status.failure);
        let is_sure = std::mem::replace(&mut self.is_journal_failing, failure.is_some());
        let state = match failure.filter(|_| is_sure) {
            Some(why) => Some((
                format!("the journal can't be written: {why}"),
                "Look at the disk and the rights of the file; requests are answered as before.".to_owned(),
            )),
            None if is_losing => Some((
                format!("the journal loses decisions, {lost} so far"),
                "The disk may be too slow for it; `record = acted` in `<Journal>` writes less.".to_owned(),
            )),
            None => None,
        };
        self.edges.see(EventKind::JournalFailing, &file, state, "the journal is written again", events);
        self.edges.end_round(EventKind::JournalFailing);
    }

    fn look_at_requests(&mut self, events: &Events) {
        let late = self.late.in_the_last_minute(events.late_requests(), Instant::now());
        let state = late.map(|count| {
            let advice = "`mtpolicyd top` shows which plugin takes the time, `mtpolicyd status` which server \
                          does not answer.";
            (format!("{count} requests in a minute took nine tenths of request_timeout"), advice.to_owned())
        });
        self.edges.see(EventKind::DeadlineMissed, "", state, "requests are answered in time again", events);
    }

    async fn look_at_configuration(&mut self, shared: &Shared, events: &Events) {
        let in_use = shared.desk.in_use();
        let path = shared.desk.config().to_owned();
        let name = path.display().to_string();
        let refused = in_use.refused.as_ref().map(|why| {
            let advice =
                format!("The old configuration stays in use. `mtpolicyd check -c {name}` shows where.");
            (format!("{name} was not loaded: {why}"), advice)
        });
        let is_refused = refused.is_some();
        let well = format!("{name} was loaded");
        self.edges.see(EventKind::ReloadRefused, &name, refused, &well, events);
        let is_known_changed = self.edges.is_told(EventKind::ConfigurationChanged, &name);
        if !self.looks.is_multiple_of(FILE) && !is_known_changed {
            return;
        }
        // The disk may be slow.
        let changed = tokio::task::spawn_blocking(move || path.metadata()?.modified()).await;
        let changed = changed.ok().and_then(Result::ok).filter(|changed| *changed > in_use.read);
        let is_old = |changed: SystemTime| {
            SystemTime::now().duration_since(changed).is_ok_and(|age| age >= UNUSED_FOR)
        };
        let state = changed.filter(|changed| !is_refused && is_old(*changed)).map(|_| {
            let advice = "`mtpolicyd check` looks at it, and `mtpolicyd reload` uses it.".to_owned();
            (format!("{name} has changed since it was loaded"), advice)
        });
        let well = format!("the configuration in use is that of {name}");
        self.edges.see(EventKind::ConfigurationChanged, &name, state, &well, events);
    }

    /// Servers are asked only if somebody is told of them: the log has what requests find out.
    async fn look_at_backends(&mut self, service: &Arc<Service>, events: &Events) {
        if service.settings.notify.is_empty() || !(self.is_unsure || self.looks.is_multiple_of(BACKENDS)) {
            return;
        }
        self.is_unsure = false;
        for (name, _, state) in service.settings.connections.states(BACKENDS_LIMIT).await {
            let down = match state {
                BackendState::Local => continue,
                BackendState::Up => None,
                BackendState::Down(why) => Some(why),
            };
            let is_sure = self.edges.is_confirmed(&name, down.is_some());
            self.is_unsure |= !is_sure;
            if is_sure {
                let state = down.map(|why| {
                    let advice = "Requests go on as `on_error` of the plugins says. `mtpolicyd status` shows \
                                  all servers.";
                    (format!("connection {name} does not answer: {why}"), advice.to_owned())
                });
                let well = format!("connection {name} answers again");
                self.edges.see(EventKind::BackendDown, &name, state, &well, events);
            }
        }
        self.edges.end_round(EventKind::BackendDown);
    }
}
