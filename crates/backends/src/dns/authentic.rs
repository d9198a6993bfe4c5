//! Questions whose answer DNSSEC has to prove: by a name server that validates and can be believed.
//!
//! Knows: the DNS, the flag AD. Must not know: what is proved, what for.

use super::{Answer, Dns, Question};

/// An answer, and whether it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentic {
    /// The answer.
    pub answer: Answer,
    /// Whether a name server that is believed says that DNSSEC proves it. Of "no such records" nothing is
    /// known.
    pub is_proved: bool,
}

impl Dns {
    /// Whether an answer can be proved at all.
    pub fn can_prove(&self) -> bool {
        match self {
            Dns::Resolver(resolver) => resolver.is_believed(),
            Dns::Fake(_) => true,
        }
    }

    /// The answer to a question, and whether it is proved.
    pub async fn lookup_authentic(&self, question: &Question) -> Authentic {
        match self {
            Dns::Resolver(resolver) => {
                let (answer, says_so) = resolver.lookup_with_proof(question).await;
                Authentic { answer, is_proved: says_so && resolver.is_believed() }
            }
            Dns::Fake(zone) => Authentic { answer: zone.answer(question), is_proved: zone.proves(question) },
        }
    }
}
