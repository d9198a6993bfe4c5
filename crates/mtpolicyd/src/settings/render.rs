//! What is said about a configuration file: for a terminal like a compiler does, for a log in one line each.
//!
//! Knows: diagnostics and the text of the files. Must not know: what they mean.

pub use config_general::Severity;

use super::secrets::{Secrecy, Shown};
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use config_general::{Diagnostic, Sources, Span};
use std::borrow::Cow;

/// Everything that was said about a file: the mistakes last, so that they are what a terminal and
/// `systemctl status`, which shows ten lines, end with; each severity in file order.
#[derive(Debug)]
pub struct Messages {
    sources: Sources,
    /// Each with what may be shown of its line.
    diagnostics: Vec<(Diagnostic, Shown)>,
}

impl Messages {
    pub(super) fn new(sources: Sources, mut diagnostics: Vec<Diagnostic>, secrecy: &Secrecy<'_>) -> Messages {
        let rank = |severity| match severity {
            Severity::Notice => 0,
            Severity::Warning => 1,
            Severity::Error => 2,
        };
        diagnostics.sort_by_key(|diagnostic| (rank(diagnostic.severity), diagnostic.span));
        let shown = |diagnostic: &Diagnostic| {
            diagnostic.span.map_or(Shown::Nothing, |span| secrecy.shown(span, &sources))
        };
        let diagnostics = diagnostics.into_iter().map(|diagnostic| {
            let shown = shown(&diagnostic);
            (diagnostic, shown)
        });
        let diagnostics = diagnostics.collect();
        Messages { sources, diagnostics }
    }

    /// Whether anything of it is a mistake.
    pub fn has_errors(&self) -> bool {
        self.has(Severity::Error)
    }

    /// How many mistakes there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|(diagnostic, _)| diagnostic.severity == Severity::Error).count()
    }

    /// Whether anything of it is a surprise.
    pub fn has_warnings(&self) -> bool {
        self.has(Severity::Warning)
    }

    fn has(&self, severity: Severity) -> bool {
        self.diagnostics.iter().any(|(diagnostic, _)| diagnostic.severity == severity)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// One line each, for a log: `file:line:column: message; help`.
    pub fn lines(&self) -> impl Iterator<Item = (Severity, String)> {
        self.diagnostics.iter().map(|(diagnostic, _)| {
            let place = diagnostic.span.map(|span| self.place(span)).unwrap_or_default();
            let help = diagnostic.help.as_ref().map(|help| format!("; {}", help.replace('\n', " ")));
            (diagnostic.severity, format!("{place}{}{}", diagnostic.message, help.unwrap_or_default()))
        })
    }

    /// The lines that the span is on, not the whole file: it may have megabytes. `until` is where they are
    /// cut off, if what follows is not for everybody.
    fn snippet(&self, span: Span, until: Option<usize>) -> Snippet<'_, Annotation<'_>> {
        let source = self.sources.get(span.source);
        let (start, end) = (span.start as usize, span.end as usize);
        let from = source.text[..start].rfind('\n').map_or(0, |before| before + 1);
        let to = source.text[end..].find('\n').map_or(source.text.len(), |behind| end + behind);
        // The carriage return of a CRLF file would be shown as a character of the line.
        let to = from + source.text[from..to].trim_end_matches('\r').len();
        let (start, end) = (start.min(to), end.min(to));
        let marked = AnnotationKind::Primary.span(start - from..end - from);
        let line = match until {
            None => Cow::Borrowed(&source.text[from..to]),
            Some(until) => Cow::Owned(format!("{} ...", &source.text[from..until.min(to)])),
        };
        let lines = Snippet::source(line).path(source.path.to_string_lossy());
        lines.line_start(self.sources.position(span).line as usize).annotation(marked)
    }

    fn place(&self, span: Span) -> String {
        let at = self.sources.position(span);
        format!("{}:{}:{}: ", self.sources.get(span.source).path.display(), at.line, at.column)
    }
}

/// As a compiler prints it: what is wrong, where, the line with a caret, what to write.
impl std::fmt::Display for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (diagnostic, shown) in &self.diagnostics {
            let level = match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
                Severity::Notice => Level::INFO.with_name("notice"),
            };
            let help = diagnostic.help.as_deref().map(|help| Level::HELP.message(help));
            let snippet = diagnostic.span.and_then(|span| match shown {
                Shown::Lines => Some(self.snippet(span, None)),
                Shown::Until(until) => Some(self.snippet(span, Some(*until))),
                Shown::Nothing => None,
            });
            let group = match snippet {
                Some(snippet) => {
                    let title = level.primary_title(diagnostic.message.as_str());
                    title.element(snippet).elements(help)
                }
                None => {
                    let place = diagnostic.span.map(|span| self.place(span)).unwrap_or_default();
                    let title = level.primary_title(format!("{place}{}", diagnostic.message));
                    Group::with_title(title).elements(help)
                }
            };
            writeln!(f, "{}\n", Renderer::plain().render(&[group]))?;
        }
        Ok(())
    }
}
