//! The daemon's own crontab.
//!
//! Knows: tasks, the calendar, the service. Must not know: what a task does.

use super::privileges::Identity;
use super::process::ProcessError;
use super::service::Service;
use super::{Shared, StartError, identity};
use crate::hygiene::Schedule;
use crate::log::messages::daemon;
use crate::log::{self, Destination, LogSettings};
use crate::settings::Settings;
use crate::tasks::{Period, When};
use crate::upkeep;
use crate::value::Switch;
use jiff::{SignedDuration, ZonedDateTime};
use nix::unistd::Uid;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long the tasks of the start may keep the ports from opening. What takes longer goes on beside the
/// requests.
const START_LIMIT: Duration = Duration::from_secs(2);

/// The latest second of an hour's first minute at which the tasks begin. Daemons that share a database
/// begin at different ones, by their process ids.
const SPREAD_SECONDS: u32 = 60;

/// The longest sleep: a clock that jumps is noticed after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Looks whether the connections answer, and does the tasks of the start: what does not work is logged.
pub async fn prepare(service: Arc<Service>) {
    let tasks = tokio::spawn(async move {
        tokio::join!(
            service.settings.connections.ping_all(START_LIMIT),
            upkeep::run(&service.settings.tasks, When::Start, service.world()),
        );
    });
    if tokio::time::timeout(START_LIMIT, tasks).await.is_err() {
        daemon::starting_without();
    }
}

/// Does the tasks of some periods and ends, as the user that the daemon would run as. Returns how many
/// failed.
pub fn run_tasks(path: &Path, periods: &[Period], level: u8) -> Result<usize, StartError> {
    let (settings, _) = Settings::load(path, None).map_err(StartError::Configuration)?;
    let format = log::Format::Text;
    let log = log::open(&LogSettings { level, internals: false, destination: Destination::Stderr, format })?;
    super::process::restrict_new_files();
    // Else files that a task makes would be out of the daemon's reach.
    identity(&settings.globals)?.assume()?;
    let _log = log.start()?;
    let service = Service::new(settings, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut failed = 0;
        for period in periods {
            failed += upkeep::run(&service.settings.tasks, When::Every(*period), service.world()).await;
        }
        failed
    }))
}

/// What a look at the servers has found.
#[derive(Default)]
pub struct Look {
    /// What requests would not be allowed to do.
    pub denied: Vec<String>,
    /// Which servers do not answer, and why.
    pub unanswered: Vec<String>,
}

/// Looks at the servers as the user that the daemon would run as, or another one. Someone who can't become
/// that user is told nothing about servers that do not answer: they may answer to that user.
pub fn look(settings: Settings, user: Option<&str>) -> Result<Look, ProcessError> {
    let globals = &settings.globals;
    let group = globals.group.as_deref().filter(|_| user.is_none());
    let identity = Identity::resolve(user.or(globals.user.as_deref()), group, None)?;
    let own = Uid::effective();
    let is_same = own.is_root() || identity.user.is_none_or(|user| user == own);
    let mut look = identity.lend(|| look_as_ourselves(settings))?;
    if !is_same {
        look.unanswered.clear();
    }
    Ok(look)
}

fn look_as_ourselves(settings: Settings) -> Look {
    let mut look = Look::default();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return look;
    };
    let service = Service::new(settings, None);
    runtime.block_on(async {
        look.unanswered = service.settings.connections.unanswered(START_LIMIT).await;
        let until = tokio::time::Instant::now() + START_LIMIT;
        for task in service.settings.tasks.iter().filter(|task| task.when == When::Check) {
            let looked = tokio::time::timeout_at(until, task.run(service.world().clone())).await;
            if let Ok(Err(why)) = looked {
                look.denied.push(format!("{}: {why}", task.plugin));
            }
        }
    });
    look
}

/// Does the tasks of each hour, and tests the DNS lists, until the daemon ends.
pub async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = run_forever(&shared) => {}
        () = test_lists(&shared) => {}
        () = shared.closing.cancelled() => {}
    }
}

async fn test_lists(shared: &Shared) {
    let mut schedule = Schedule::default();
    loop {
        let service = shared.service.load_full();
        let next = schedule.round(&service.settings.remembered.lists, service.world()).await;
        drop(service);
        tokio::time::sleep_until(next).await;
    }
}

async fn run_forever(shared: &Shared) {
    let offset = SignedDuration::from_secs(i64::from(std::process::id() % SPREAD_SECONDS));
    let mut done = ZonedDateTime::now();
    loop {
        let now = ZonedDateTime::now();
        match next_step(&done, &now, offset) {
            Step::Wait(wait) => tokio::time::sleep(wait.min(LONGEST_SLEEP)).await,
            Step::Do(periods) => {
                done = now;
                let service = shared.service.load_full();
                for period in periods.into_iter().filter(|_| runs_tasks(&service)) {
                    upkeep::run(&service.settings.tasks, When::Every(period), service.world()).await;
                }
            }
            Step::Forget => done = now,
        }
    }
}

/// What the clock says.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// No full hour has come yet.
    Wait(Duration),
    /// One has, and perhaps more than an hour has begun.
    Do(Vec<Period>),
    /// The clock was set back: what it has left behind comes again.
    Forget,
}

/// What is to be done now, if everything was done up to another time. An hour's tasks begin `offset` later.
fn next_step(done: &ZonedDateTime, now: &ZonedDateTime, offset: SignedDuration) -> Step {
    if now < done {
        return Step::Forget;
    }
    let left = now.duration_until(&next_hour(done)) + offset;
    if left.is_positive() {
        Step::Wait(left.unsigned_abs())
    } else {
        Step::Do(upkeep::begun_between(done, now))
    }
}

/// The option `cron`; without it, whether no crontab does the tasks.
pub fn runs_tasks(service: &Service) -> bool {
    service.settings.globals.cron.map_or_else(|| !upkeep::has_crontab(), |cron| cron == Switch::On)
}

/// The next full hour of the local time.
fn next_hour(local: &ZonedDateTime) -> ZonedDateTime {
    let into_the_hour = SignedDuration::from_mins(i64::from(local.minute()))
        + SignedDuration::from_secs(i64::from(local.second()))
        + SignedDuration::from_nanos(i64::from(local.subsec_nanosecond()));
    local + (SignedDuration::from_hours(1) - into_the_hour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Period::{Daily, Hourly, Monthly, Weekly};

    const OFFSET: SignedDuration = SignedDuration::from_secs(37);

    fn at(time: &str) -> ZonedDateTime {
        time.parse().unwrap()
    }

    fn step(done: &str, now: &str) -> Step {
        next_step(&at(done), &at(now), OFFSET)
    }

    #[test]
    fn an_hour_begins_with_its_offset() {
        let wait = |seconds| Step::Wait(Duration::from_secs(seconds));
        assert_eq!(step("2026-11-25T05:00:37[UTC]", "2026-11-25T05:59:37[UTC]"), wait(60));
        assert_eq!(step("2026-11-25T05:00:37[UTC]", "2026-11-25T06:00:36[UTC]"), wait(1));
        assert_eq!(step("2026-11-25T05:00:37[UTC]", "2026-11-25T06:00:37[UTC]"), Step::Do(vec![Hourly]));
        let started = step("2026-11-25T05:12:00.5[UTC]", "2026-11-25T05:12:00.5[UTC]");
        assert_eq!(started, Step::Wait(Duration::from_millis(48 * 60_000 + 36_500)));
        let half = step("2026-11-25T05:30:37[Asia/Kolkata]", "2026-11-25T06:00:37[Asia/Kolkata]");
        assert_eq!(half, Step::Do(vec![Hourly]), "full hours are those of the place");
    }

    #[test]
    fn a_midnight_that_summer_time_leaves_out_counts() {
        // Lebanon's clocks go from 00:00 to 01:00 in the night to the last Sunday of March.
        let night = step("2026-03-28T23:00:37[Asia/Beirut]", "2026-03-29T01:00:37[Asia/Beirut]");
        assert_eq!(night, Step::Do(vec![Hourly, Daily, Weekly]));
        // In the United States 01:00 comes twice: two hours, one day.
        let first = step(
            "2026-11-01T00:00:37-04:00[America/New_York]",
            "2026-11-01T01:00:37-04:00[America/New_York]",
        );
        let again = step(
            "2026-11-01T01:00:37-04:00[America/New_York]",
            "2026-11-01T01:00:37-05:00[America/New_York]",
        );
        assert_eq!((first, again), (Step::Do(vec![Hourly]), Step::Do(vec![Hourly])));
    }

    #[test]
    fn a_clock_that_is_set_loses_no_day_and_never_stops_the_tasks() {
        let forward = step("2026-11-30T22:00:37[UTC]", "2026-12-01T03:20:00[UTC]");
        assert_eq!(forward, Step::Do(vec![Hourly, Daily, Monthly]));
        assert_eq!(step("2026-11-30T22:00:37[UTC]", "2016-01-01T00:00:00[UTC]"), Step::Forget);
    }
}
