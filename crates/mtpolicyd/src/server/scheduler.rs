//! The daemon's own crontab.
//!
//! Knows: tasks, the calendar, the service. Must not know: what a task does.

use super::service::Service;
use super::{Shared, StartError, identity};
use crate::log::{self, Destination, LogSettings};
use crate::settings::Settings;
use crate::tasks::{Period, When};
use crate::upkeep;
use crate::value::Switch;
use jiff::Timestamp;
use jiff::tz::TimeZone;
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
        tracing::warn!("a connection is slow or down: the ports open without it");
    }
}

/// Does the tasks of some periods and ends, as whoever the daemon would run as: how many failed.
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

/// What requests would not be allowed to do: a line for each. Databases that can't be reached say nothing.
pub fn look(settings: Settings) -> Vec<String> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let service = Service::new(settings, None);
    runtime.block_on(async {
        let mut lines = Vec::new();
        let until = tokio::time::Instant::now() + START_LIMIT;
        for task in service.settings.tasks.iter().filter(|task| task.when == When::Check) {
            let looked = tokio::time::timeout_at(until, task.run(service.world().clone())).await;
            if let Ok(Err(why)) = looked {
                lines.push(format!("{}: {why}", task.plugin));
            }
        }
        lines
    })
}

/// Does the tasks of each hour until the daemon ends.
pub async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = run_forever(&shared) => {}
        () = shared.closing.cancelled() => {}
    }
}

async fn run_forever(shared: &Shared) {
    let offset = Duration::from_secs(u64::from(std::process::id() % SPREAD_SECONDS));
    let mut next = next_hour(Timestamp::now());
    loop {
        let wait = Duration::try_from(Timestamp::now().duration_until(next + offset)).unwrap_or_default();
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
            // After a jump back the next hour is an earlier one.
            next = next.min(next_hour(Timestamp::now()));
            continue;
        }
        let service = shared.service.load_full();
        if runs_tasks(&service) {
            for period in upkeep::due_at(&next.to_zoned_datetime(TimeZone::system())) {
                upkeep::run(&service.settings.tasks, When::Every(period), service.world()).await;
            }
        }
        next = next_hour(Timestamp::now());
    }
}

/// The option `cron`; without it, whether no crontab does the tasks.
pub fn runs_tasks(service: &Service) -> bool {
    service.settings.globals.cron.map_or_else(|| !upkeep::has_crontab(), |cron| cron == Switch::On)
}

/// The next full hour of the local time.
fn next_hour(now: Timestamp) -> Timestamp {
    let local = now.to_zoned_datetime(TimeZone::system());
    let into_the_hour = i64::from(local.minute()) * 60 + i64::from(local.second());
    let left = Duration::from_secs(u64::try_from(3600 - into_the_hour).unwrap_or(3600));
    Timestamp::from_second(now.as_second()).unwrap_or(now) + left
}
