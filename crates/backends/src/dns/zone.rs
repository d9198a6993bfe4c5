//! A name service that is a map: for tests, and wherever no question may leave the process.
//!
//! Knows: questions and answers. Must not know: the network, time.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Answer, Failure, Question, RecordType};

/// Answers by question; whatever is not in it does not exist. It remembers what it was asked.
#[derive(Default)]
pub struct Zone {
    answers: HashMap<Question, Answer>,
    proved: HashSet<Question>,
    asked: Mutex<Vec<Question>>,
}

impl Zone {
    /// Adds a name with one address.
    pub fn address(self, name: &str, address: impl Into<Ipv4Addr>) -> Self {
        self.with(Question::new(name, RecordType::A), Answer::Addresses(Arc::from([address.into()])))
    }

    /// Adds a name with one TXT record of one string.
    pub fn text(self, name: &str, text: &str) -> Self {
        let record = Box::from([Box::from(text.as_bytes())]);
        self.with(Question::new(name, RecordType::Txt), Answer::Texts(Arc::from([record])))
    }

    /// Adds a name whose servers are down.
    pub fn failing(self, name: &str) -> Self {
        let failed = Answer::Failed(Failure::Server("Server Failure"));
        RecordType::ALL
            .into_iter()
            .fold(self, |zone, record_type| zone.with(Question::new(name, record_type), failed.clone()))
    }

    /// Adds any answer.
    pub fn with(mut self, question: Question, answer: Answer) -> Self {
        self.answers.insert(question, answer);
        self
    }

    /// Adds any answer, which DNSSEC proves.
    pub fn proved(mut self, question: Question, answer: Answer) -> Self {
        self.proved.insert(question.clone());
        self.with(question, answer)
    }

    /// Whether DNSSEC proves the answer to a question.
    pub(super) fn proves(&self, question: &Question) -> bool {
        self.proved.contains(question)
    }

    /// Everything that was asked, in order.
    pub fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a name was asked about, whatever the type.
    pub fn count(&self, name: &str) -> usize {
        self.asked().iter().filter(|question| *question.name == *name).count()
    }

    pub(super) fn answer(&self, question: &Question) -> Answer {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(question.clone());
        self.answers.get(question).cloned().unwrap_or(Answer::Nothing)
    }
}
