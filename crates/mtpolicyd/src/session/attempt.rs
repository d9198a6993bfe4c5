//! Names of attempts to count something in a store.
//!
//! A store that does not answer may have counted or not. So an attempt has a name by which the store knows it
//! again, and one whose outcome is unknown leaves its name in the session: the request that Postfix repeats
//! is the same attempt.
//!
//! Knows: sessions. Must not know: what is counted, stores.

use super::Session;
use std::hash::{BuildHasher, Hasher, RandomState};

/// An attempt to count.
#[derive(Debug)]
pub struct Attempt {
    /// The field of the session that has the name while the outcome is unknown.
    field: String,
    name: String,
    is_repeated: bool,
}

impl Attempt {
    /// The attempt that has left its name in this field, or a new one.
    pub fn of(session: &Session, field: String) -> Attempt {
        match session.result(&field) {
            Some(name) => Attempt { name: name.to_owned(), field, is_repeated: true },
            // Nobody else has it: a number from the random keys of a hash.
            None => {
                let name = format!("{:016x}", RandomState::new().build_hasher().finish());
                Attempt { name, field, is_repeated: false }
            }
        }
    }

    /// What the store knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It is over: after an error the session has its name from now on, and else no longer.
    pub fn settle<T, E>(self, session: &mut Session, outcome: Result<T, E>) -> Result<T, E> {
        match &outcome {
            Ok(_) if self.is_repeated => session.clear(&self.field),
            Ok(_) => {}
            Err(_) => session.set_for_message(&self.field, &self.name),
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_keeps_its_name_until_its_outcome_is_known() {
        let mut session = Session::default();
        let attempt = |session: &Session| Attempt::of(session, "limit-attempt".to_owned());
        let [first, other] = [(); 2].map(|()| attempt(&session));
        assert_ne!(first.name(), other.name());
        let name = first.name().to_owned();
        first.settle(&mut session, Err::<(), ()>(())).unwrap_err();
        session.begin(b"bob@example.org");
        assert_eq!(attempt(&session).name(), name);
        attempt(&session).settle(&mut session, Err::<(), ()>(())).unwrap_err();
        assert_eq!(attempt(&session).name(), name);
        attempt(&session).settle(&mut session, Ok::<(), ()>(())).unwrap();
        assert_ne!(attempt(&session).name(), name);
        assert!(session.is_empty());
    }
}
