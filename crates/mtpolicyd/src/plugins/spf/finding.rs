//! What came of a check, as the session keeps it for the other recipients of a message.
//!
//! Knows: outcomes. Must not know: what comes of them.

use serde_json::{Value, json};
use spf::{Outcome, Request, Verdict};

/// How much of a term is kept: a header has no room for more, and a record has some 64 KiB.
const MAX_TERM_CHARS: usize = 200;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub verdict: Verdict,
    /// The reason in our words.
    pub text: String,
    /// What the domain says about it; empty where nobody asked.
    pub explanation: String,
    /// The term of the record that decided.
    pub mechanism: Option<String>,
    /// What went wrong.
    pub problem: Option<String>,
}

impl Finding {
    /// What a check has found.
    pub fn of(request: &Request, outcome: &Outcome) -> Finding {
        Finding {
            verdict: outcome.verdict,
            text: outcome.describe(request),
            explanation: String::new(),
            mechanism: outcome.mechanism().map(|term| term.chars().take(MAX_TERM_CHARS).collect()),
            problem: outcome.problem.clone(),
        }
    }

    /// That nobody knows now whether this counts, and why.
    pub fn undecided(&self, why: &str) -> Finding {
        if self.verdict == Verdict::TempError {
            return self.clone();
        }
        let text = format!("{why}, and without them: {}", self.text);
        Finding { verdict: Verdict::TempError, text, ..self.clone() }
    }

    /// As it is kept, together with what it is about.
    pub fn kept(&self, request: &Request) -> String {
        let Finding { verdict, text, explanation, mechanism, problem } = self;
        json!([about(request), verdict.to_string(), text, explanation, mechanism, problem]).to_string()
    }

    /// What was kept, if it is about the same.
    pub fn recall(kept: &str, request: &Request) -> Option<Finding> {
        let Value::Array(parts) = serde_json::from_str(kept).ok()? else { return None };
        let [of, verdict, text, explanation, mechanism, problem] = <[Value; 6]>::try_from(parts).ok()?;
        let verdict = Verdict::ALL.into_iter().find(|known| verdict == known.to_string().as_str())?;
        let string = |value: Value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        (of == about(request).as_str()).then_some(())?;
        let (text, explanation) = (string(text)?, string(explanation)?);
        Some(Finding { verdict, text, explanation, mechanism: string(mechanism), problem: string(problem) })
    }
}

fn about(request: &Request) -> String {
    format!("{} {}", request.client, request.subject())
}
