//! What is wrong with a file, or surprising in it; bounded, and sorted by place.

use std::fmt;

use crate::code::{Code, text};
use crate::limits::Limits;
use crate::source::{Sources, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but a line may not mean what its writer thinks.
    Warning,
    /// The file means what its writer thinks; still there is something to know.
    Notice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        })
    }
}

/// One mistake or surprise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind it is.
    pub code: &'static Code,
    /// How bad it is.
    pub severity: Severity,
    /// The place, if it is about one.
    pub span: Option<Span>,
    /// What is wrong; names the key or block.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// One or two lines for people: `file:line:column: error: message`, then the help.
    pub fn display<'a>(&'a self, sources: &'a Sources) -> impl fmt::Display + 'a {
        Shown { diagnostic: self, sources }
    }
}

struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    sources: &'a Sources,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { severity, span, message, help, .. } = self.diagnostic;
        if let Some(span) = span {
            let position = self.sources.position(*span);
            let path = self.sources.get(span.source).path.display();
            write!(f, "{path}:{}:{}: ", position.line, position.column)?;
        }
        write!(f, "{severity}: {message}")?;
        match help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Collects diagnostics up to a bound for each severity, so that warnings can't crowd out an error.
pub(crate) struct Diagnostics {
    kept: Vec<Diagnostic>,
    most: usize,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    pub(crate) fn new(limits: &Limits) -> Diagnostics {
        Diagnostics { kept: Vec::new(), most: limits.diagnostics.max(1), errors: 0, warnings: 0 }
    }

    /// Notes a mistake.
    pub(crate) fn error(
        &mut self,
        code: &'static Code,
        span: impl Into<Option<Span>>,
        message: String,
        help: Option<String>,
    ) {
        self.errors += 1;
        if self.errors <= self.most {
            let (severity, span) = (Severity::Error, span.into());
            self.kept.push(Diagnostic { code, severity, span, message, help });
        }
    }

    /// Whether a further warning is kept; for those that cost time to word. Counts it if not.
    pub(crate) fn wants_warning(&mut self) -> bool {
        let wanted = self.warnings < self.most;
        self.warnings += usize::from(!wanted);
        wanted
    }

    /// Notes a surprise.
    pub(crate) fn warning(
        &mut self,
        code: &'static Code,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.warnings += 1;
        if self.warnings <= self.most {
            let (message, help) = (message.into(), Some(help.into()));
            self.kept.push(Diagnostic { code, severity: Severity::Warning, span: Some(span), message, help });
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Everything kept, in file order, and a last line for each severity of which there was more.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.kept.sort_by_key(|diagnostic| diagnostic.span);
        let counts = [(&text::MORE_ERRORS, self.errors), (&text::MORE_WARNINGS, self.warnings)];
        for (code, count) in counts {
            let severity = code.severity();
            let Some(more) = count.checked_sub(self.most).filter(|&more| more > 0) else { continue };
            let s = if more == 1 { "" } else { "s" };
            let message = format!("and {more} more {severity}{s}");
            self.kept.push(Diagnostic { code, severity, span: None, message, help: None });
        }
        self.kept
    }
}
