//! What is known about somebody is removed.
//!
//! Knows: addresses as people write them. Must not know: where decisions are kept.

use super::call::{Answer, Call, Problem, ok};
use super::decisions::off_the_runtime;
use serde::{Deserialize, Serialize};

/// About whom everything is to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whom {
    /// The whole address of a mailbox, or a login.
    pub address: String,
}

/// How many decisions were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenView {
    /// Of those in the journal.
    pub journal: u64,
    /// Of those in memory, of which many are in the journal too.
    pub memory: u64,
}

pub(super) async fn forget(mut call: Call) -> Answer {
    std::mem::take(&mut call.query).finish()?;
    let Whom { address } = call.json()?;
    let address = address.trim().to_owned();
    check(&address).map_err(Problem::bad)?;
    let (who, recorder) = (call.peer.name().await, call.shared.service.load().recorder().clone());
    call.shared.events.forget(&address);
    let forgotten = off_the_runtime(move || recorder.forget(&address, &who)).await?;
    let forgotten = forgotten.map_err(|why| Problem::unavailable(format!("not removed: {why}")))?;
    ok(&ForgottenView { journal: forgotten.journal, memory: forgotten.memory })
}

/// Refuses what does not name one person.
fn check(address: &str) -> Result<(), String> {
    /// A login of one letter would take half of the journal with it.
    const SHORTEST: usize = 2;
    if address.starts_with('@') || address.ends_with('@') || address.chars().any(char::is_whitespace) {
        return Err(format!("`{address}` is not the whole address of a mailbox, nor a login"));
    }
    if address.len() < SHORTEST {
        return Err("the whole address of a mailbox is needed, or a login".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn one_person_is_forgotten_at_a_time() {
        for address in ["bob@example.org", "bob", "~k3f9q2ab@example.org"] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        for address in ["", "b", "@example.org", "bob@", "bob@example.org alice@example.org"] {
            assert!(check(address).is_err(), "{address}");
        }
    }
}
