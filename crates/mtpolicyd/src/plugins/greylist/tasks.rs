//! What a Greylist does without a request: its table is made at the start, and what has expired goes every
//! hour.
//!
//! Knows: tasks, where tickets and the auto-whitelist are. Must not know: requests.

use super::awl::Awl;
use super::ticket::Tickets;
use crate::plugin::{Setup, TASK_LIMIT};
use crate::tasks::{Period, TaskResult, When};
use backends::BackendError;
use tokio::time::Instant;

/// Makes the table at the start; removes every hour what has expired.
pub fn leave_tasks(setup: &Setup<'_, '_>, tickets: &Tickets, awl: Option<&Awl>) {
    if let Some(Awl::Table(table)) = awl {
        let made = table.clone();
        setup.task(When::Start, move |_| {
            let table = made.clone();
            async move { told("the auto-whitelist is there", table.prepare(task_deadline()).await) }
        });
        setup.look_at_rights(table.sql(), table.needs());
        let expired = table.clone();
        setup.task(When::Every(Period::Hourly), move |world| {
            let table = expired.clone();
            async move {
                let removed = table.expire(world.clock.now(), task_deadline()).await;
                removed
                    .map(|removed| format!("{removed} entries of the auto-whitelist have expired"))
                    .map_err(|error| error.to_string())
            }
        });
    }
    setup.expire_hourly(tickets.store());
}

fn task_deadline() -> Instant {
    Instant::now() + TASK_LIMIT
}

fn told(done: &str, result: Result<(), BackendError>) -> TaskResult {
    result.map(|()| done.to_owned()).map_err(|error| error.to_string())
}
