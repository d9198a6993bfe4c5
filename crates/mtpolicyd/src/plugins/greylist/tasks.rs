//! What a Greylist does without a request: its table is made at the start, and what has expired goes every
//! hour.
//!
//! Knows: tasks, where tickets and the auto-whitelist are. Must not know: requests.

use super::awl::{Awl, Entry};
use super::awl_table::AwlTable;
use super::client::{ClientKey, Clients};
use super::ticket::Tickets;
use crate::facts::World;
use crate::intake::{Intake, KnownClient};
use crate::log::messages::tasks as messages;
use crate::plugin::{Made, Setup, TASK_LIMIT};
use crate::tasks::{Period, When};
use backends::{BackendError, Call, Failure};
use postfix_policy::canonical_domain;

/// Entries that are added in one transaction.
const ENTRIES_AT_ONCE: usize = 500;

/// Makes the table at the start; removes every hour what has expired.
pub fn leave_tasks(setup: &Setup<'_, '_>, tickets: &Tickets, awl: Option<&Awl>) {
    if let Some(Awl::Table { table, .. }) = awl {
        let made = table.clone();
        setup.task(When::Start, move |_| {
            let table = made.clone();
            async move { prepare(&table).await.map_err(|error| error.to_string()) }
        });
        setup.look_at_rights(table.sql(), table.schema(), Made::AtStart);
        let expired = table.clone();
        setup.task(When::Every(Period::Hourly), move |world| {
            let table = expired.clone();
            async move {
                let removed = table.expire(world.clock.now(), task_call()).await;
                removed.map(messages::whitelist_expired).map_err(|error| error.to_string())
            }
        });
    }
    setup.expire_hourly(tickets.store());
}

/// Has clients that another program knew put on the auto-whitelist, as if they had come back often enough.
pub fn leave_intake(setup: &Setup<'_, '_>, awl: Option<&Awl>, clients: Clients, threshold: u64) {
    let Some(awl) = awl.cloned() else { return };
    let prefixes = match clients.key {
        ClientKey::Ip => Some([32, 128]),
        ClientKey::Net => Some([clients.ipv4_prefix, clients.ipv6_prefix]),
        ClientKey::Name | ClientKey::Spf => None,
    };
    let take = move |known: Vec<KnownClient>, world: World| {
        let awl = awl.clone();
        async move {
            let entries: Vec<_> = known
                .iter()
                .map(|known| Entry {
                    domain: canonical_domain(known.sender_domain.as_bytes()).into_owned(),
                    client: clients.of_address(known.client),
                    last_seen: known.last_seen,
                })
                .collect();
            let now = world.clock.now();
            let mut taken = 0;
            for entries in entries.chunks(ENTRIES_AT_ONCE) {
                let added = awl.add_known(entries, threshold, now, task_call()).await;
                taken += added.map_err(|error| error.to_string())?;
            }
            Ok(taken)
        }
    };
    setup.env.tasks.intakes.add(Intake::new(setup.name, prefixes, take));
}

fn task_call() -> Call<'static> {
    Call::within(TASK_LIMIT)
}

/// Makes the table as it should be, and its rows too: what was done.
async fn prepare(table: &AwlTable) -> Result<String, BackendError> {
    table.prepare(task_call()).await?;
    match table.merge_spellings(task_call()).await {
        // Without the right they count for messages with the same spelling.
        Ok(0) | Err(BackendError { failure: Failure::Denied(_), .. }) => Ok(messages::whitelist_ready()),
        Ok(moved) => Ok(messages::whitelist_spellings_merged(moved)),
        Err(error) => Err(error),
    }
}
