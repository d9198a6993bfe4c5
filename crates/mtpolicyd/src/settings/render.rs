//! What is said about a configuration file: for a terminal like a compiler does, for a log in one line each.
//!
//! Knows: diagnostics and the text of the files. Must not know: what they mean.

pub use config_general::Severity;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use config_general::{Diagnostic, Sources, Span};

/// Options whose lines are never shown; a data source may have a password in it.
const SECRET_OPTIONS: [&str; 3] = ["password", "sentinel_password", "dsn"];

/// Everything that was said about a file, in file order.
#[derive(Debug)]
pub struct Messages {
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    /// Where secrets stand.
    secrets: Vec<Span>,
}

impl Messages {
    pub(super) fn new(sources: Sources, mut diagnostics: Vec<Diagnostic>, secrets: Vec<Span>) -> Messages {
        diagnostics.sort_by_key(|diagnostic| diagnostic.span);
        Messages { sources, diagnostics, secrets }
    }

    /// Whether anything of it is a mistake.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// One line each, for a log: `file:line:column: message; help`.
    pub fn lines(&self) -> impl Iterator<Item = (Severity, String)> {
        self.diagnostics.iter().map(|diagnostic| {
            let place = diagnostic.span.map(|span| self.place(span)).unwrap_or_default();
            let help = diagnostic.help.as_ref().map(|help| format!("; {}", help.replace('\n', " ")));
            (diagnostic.severity, format!("{place}{}{}", diagnostic.message, help.unwrap_or_default()))
        })
    }

    /// The lines that the span is on, not the whole file: it may have megabytes.
    fn snippet(&self, span: Span) -> Snippet<'_, Annotation<'_>> {
        let source = self.sources.get(span.source);
        let (start, end) = (span.start as usize, span.end as usize);
        let from = source.text[..start].rfind('\n').map_or(0, |before| before + 1);
        let to = source.text[end..].find('\n').map_or(source.text.len(), |behind| end + behind);
        // The carriage return of a CRLF file would be shown as a character of the line.
        let to = from + source.text[from..to].trim_end_matches('\r').len();
        let (start, end) = (start.min(to), end.min(to));
        let marked = AnnotationKind::Primary.span(start - from..end - from);
        let lines = Snippet::source(&source.text[from..to]).path(source.path.to_string_lossy());
        lines.line_start(self.sources.position(span).line as usize).annotation(marked)
    }

    /// Whether a line may hold a password: what a service manager catches of the daemon's output is a log.
    fn is_secret(&self, span: Span) -> bool {
        let text = &self.sources.get(span.source).text;
        let from = text[..span.start as usize].rfind('\n').map_or(0, |before| before + 1);
        let line = text[from..].trim_start();
        let behind = text[span.end as usize..].find('\n').map_or(text.len(), |end| span.end as usize + end);
        let overlaps = |secret: &Span| {
            secret.source == span.source && secret.start as usize <= behind && from <= secret.end as usize
        };
        SECRET_OPTIONS.iter().any(|option| line.starts_with(option)) || self.secrets.iter().any(overlaps)
    }

    fn place(&self, span: Span) -> String {
        let at = self.sources.position(span);
        format!("{}:{}:{}: ", self.sources.get(span.source).path.display(), at.line, at.column)
    }
}

/// As a compiler prints it: what is wrong, where, the line with a caret, what to write.
impl std::fmt::Display for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for diagnostic in &self.diagnostics {
            let level = match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
            };
            let help = diagnostic.help.as_deref().map(|help| Level::HELP.message(help));
            let shown = diagnostic.span.filter(|span| !self.is_secret(*span));
            let group = match (shown, diagnostic.span) {
                (Some(span), _) => {
                    let title = level.primary_title(diagnostic.message.as_str());
                    title.element(self.snippet(span)).elements(help)
                }
                (None, place) => {
                    let place = place.map(|span| self.place(span)).unwrap_or_default();
                    let title = level.primary_title(format!("{place}{}", diagnostic.message));
                    Group::with_title(title).elements(help)
                }
            };
            writeln!(f, "{}\n", Renderer::plain().render(&[group]))?;
        }
        Ok(())
    }
}
