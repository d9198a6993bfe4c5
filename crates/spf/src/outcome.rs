//! What came of a check, and the way to it.
//!
//! Knows: verdicts, terms. Must not know: how they were evaluated.

use crate::macros::MacroText;
use crate::request::{Identity, Request};
use std::fmt;

/// The results of RFC 7208, 2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no record, or no domain to ask.
    None,
    /// The domain says nothing about the client.
    Neutral,
    /// The client may send for the domain.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// Nobody knows now.
    TempError,
    /// What the domain publishes can't be evaluated.
    PermError,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 7] = [
        Verdict::None,
        Verdict::Neutral,
        Verdict::Pass,
        Verdict::Fail,
        Verdict::SoftFail,
        Verdict::TempError,
        Verdict::PermError,
    ];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::None => "none",
            Verdict::Neutral => "neutral",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::SoftFail => "softfail",
            Verdict::TempError => "temperror",
            Verdict::PermError => "permerror",
        })
    }
}

/// A term on the way to the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose record it is.
    pub domain: String,
    /// The term as it stands there; `None` where the record has none that matches, or is itself the problem.
    pub term: Option<String>,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The result.
    pub verdict: Verdict,
    /// The terms that led to it, from the record of the domain that was asked, through `include` and
    /// `redirect`, to the term that matched or failed. Never empty.
    pub trace: Vec<Step>,
    /// What went wrong, for the two errors.
    pub problem: Option<String>,
    /// The domain whose record counts in the end, through `redirect`, and where that explains failures.
    pub(crate) decided_by: String,
    pub(crate) exp: Option<MacroText>,
}

impl Outcome {
    /// A temporary error before there was another result: who calls has no time left.
    pub fn too_late(request: &Request) -> Outcome {
        Outcome {
            problem: Some("there was no result in time".to_owned()),
            ..Outcome::plain(Verdict::TempError, &request.domain)
        }
    }

    /// A verdict that no term led to.
    pub(crate) fn plain(verdict: Verdict, domain: &str) -> Outcome {
        let step = Step { domain: domain.to_owned(), term: None };
        Outcome { verdict, trace: vec![step], problem: None, decided_by: domain.to_owned(), exp: None }
    }

    /// The term that matched in the record of the domain that was asked or that it redirects to: what
    /// `mechanism=` in a Received-SPF header is about.
    pub fn mechanism(&self) -> Option<&str> {
        let step = self.trace.iter().find(|step| step.domain == self.decided_by)?;
        step.term.as_deref()
    }

    /// The result in one line, for people; it begins with the domain. Long texts of others are cut.
    pub fn describe(&self, request: &Request) -> String {
        let way = self.way();
        let client = request.client;
        let subject = excerpt(&request.subject());
        let act = match request.identity {
            Identity::Helo => format!("call itself {subject}"),
            Identity::MailFrom => format!("send mail as {subject}"),
        };
        match self.verdict {
            Verdict::None => format!("{way}: there is no SPF record"),
            Verdict::Neutral => format!("{way}: it is not said whether {client} may {act}"),
            Verdict::Pass => format!("{way}: {client} may {act}"),
            Verdict::Fail => format!("{way}: {client} may not {act}"),
            Verdict::SoftFail => format!("{way}: {client} probably may not {act}"),
            Verdict::TempError | Verdict::PermError => {
                format!("{way}: {}", self.problem.as_deref().unwrap_or("unknown problem"))
            }
        }
    }

    /// The terms of the trace; of many the first and the last.
    fn way(&self) -> String {
        let mut steps = Vec::new();
        for (n, step) in self.trace.iter().enumerate() {
            let is_shown = n == 0 || n + SHOWN_STEPS > self.trace.len();
            match &step.term {
                _ if !is_shown => {
                    if n == 1 {
                        steps.push("...".to_owned());
                    }
                }
                Some(term) => steps.push(format!("{} ({})", excerpt(&step.domain), excerpt(term))),
                None => steps.push(excerpt(&step.domain)),
            }
        }
        steps.join(", ")
    }
}

/// A description of this many steps or more shows one less: the first and the last ones.
const SHOWN_STEPS: usize = 4;

/// The longest text of others in a description, in characters.
const EXCERPT: usize = 100;

/// The beginning of a text of others.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
