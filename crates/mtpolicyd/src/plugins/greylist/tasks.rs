//! What a Greylist does without a request: its table is made at the start, and what has expired goes every
//! hour.
//!
//! Knows: tasks, where tickets and the auto-whitelist are. Must not know: requests.

use super::awl::Awl;
use super::ticket::Tickets;
use crate::log::messages::tasks as messages;
use crate::plugin::{Made, Setup, TASK_LIMIT};
use crate::tasks::{Period, TaskResult, When};
use backends::BackendError;
use tokio::time::Instant;

/// Makes the table at the start; removes every hour what has expired.
pub fn leave_tasks(setup: &Setup<'_, '_>, tickets: &Tickets, awl: Option<&Awl>) {
    if let Some(Awl::Table(table)) = awl {
        let made = table.clone();
        setup.task(When::Start, move |_| {
            let table = made.clone();
            async move { told(messages::whitelist_ready(), table.prepare(task_deadline()).await) }
        });
        setup.look_at_rights(table.sql(), table.needs(), Made::AtStart);
        let expired = table.clone();
        setup.task(When::Every(Period::Hourly), move |world| {
            let table = expired.clone();
            async move {
                let removed = table.expire(world.clock.now(), task_deadline()).await;
                removed.map(messages::whitelist_expired).map_err(|error| error.to_string())
            }
        });
    }
    setup.expire_hourly(tickets.store());
}

fn task_deadline() -> Instant {
    Instant::now() + TASK_LIMIT
}

fn told(done: String, result: Result<(), BackendError>) -> TaskResult {
    result.map(|()| done).map_err(|error| error.to_string())
}
