//! What is said about a configuration file: for a terminal like a compiler does, for a log in one line each.
//!
//! Knows: diagnostics and the text of the files. Must not know: what they mean.

pub use config_general::Severity;

use super::allow::Allows;
use super::secrets::{Secrecy, Shown};
use crate::options::codes::Code;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use config_general::{Diagnostic, Sources, Span};
use serde::Serialize;
use std::borrow::Cow;

/// Everything that was said about a file: the mistakes last, so that they are what a terminal and
/// `systemctl status`, which shows ten lines, end with; each severity in file order.
#[derive(Debug)]
pub struct Messages {
    sources: Sources,
    /// Each with what may be shown of its line.
    diagnostics: Vec<(Diagnostic, Shown)>,
    /// How many plugins were read.
    plugins: usize,
    /// Doubts without a place that the file allows.
    allowed: Vec<&'static Code>,
}

/// One of them, for a program.
#[derive(Debug, Serialize)]
pub struct Finding<'a> {
    /// Its code.
    pub code: &'static str,
    /// `error`, `warning` or `notice`.
    pub severity: String,
    /// The file, if it is about a place.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The character in the line, from 1.
    pub column: Option<u32>,
    /// What is wrong.
    pub message: Cow<'a, str>,
    /// What to write instead.
    pub help: Option<&'a str>,
}

impl<'a> Finding<'a> {
    /// Something that is not about a place in the file.
    pub fn without_place(code: &Code, message: &'a str) -> Finding<'a> {
        Finding {
            code: code.id,
            severity: code.severity().to_string(),
            file: None,
            line: None,
            column: None,
            message: Cow::Borrowed(message),
            help: None,
        }
    }
}

impl Messages {
    /// Those of these files, with their comments and the number of their plugins. What a comment allows is
    /// left out.
    pub(super) fn new(
        sources: Sources,
        mut diagnostics: Vec<Diagnostic>,
        comments: &[Span],
        secrecy: &Secrecy<'_>,
        plugins: usize,
    ) -> Messages {
        let allows = Allows::read(comments, &sources);
        let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
        diagnostics.retain(|doubt| is_error(doubt) || !allows.silence(doubt, secrecy.root, &sources));
        // A mistake keeps parts of the file from being looked at.
        let is_whole = !diagnostics.iter().any(is_error);
        diagnostics.extend(allows.complaints(is_whole));
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
        Messages { sources, diagnostics, plugins, allowed: allows.without_place() }
    }

    /// Whether anything of it is a mistake.
    pub fn has_errors(&self) -> bool {
        self.has(Severity::Error)
    }

    /// How many mistakes there are.
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|(diagnostic, _)| diagnostic.severity == Severity::Error).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.diagnostics.iter().filter(|(diagnostic, _)| diagnostic.severity == Severity::Warning).count()
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

    /// How many files were read.
    pub fn files(&self) -> usize {
        self.sources.len()
    }

    /// How many plugins were read.
    pub fn plugins(&self) -> usize {
        self.plugins
    }

    /// Whether the file allows a doubt that has no place in it.
    pub fn allows(&self, code: &Code) -> bool {
        self.allowed.iter().any(|allowed| allowed.id == code.id)
    }

    /// Each for a program.
    pub fn findings(&self) -> impl Iterator<Item = Finding<'_>> {
        self.diagnostics.iter().map(|(diagnostic, _)| {
            let at = diagnostic.span.map(|span| self.sources.position(span));
            let path = diagnostic.span.map(|span| &self.sources.get(span.source).path);
            Finding {
                code: diagnostic.code.id,
                severity: diagnostic.severity.to_string(),
                file: path.map(|path| path.display().to_string()),
                line: at.map(|at| at.line),
                column: at.map(|at| at.column),
                message: Cow::Borrowed(&diagnostic.message),
                help: diagnostic.help.as_deref(),
            }
        })
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
                    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.id);
                    title.element(snippet).elements(help)
                }
                None => {
                    let place = diagnostic.span.map(|span| self.place(span)).unwrap_or_default();
                    let title = level.primary_title(format!("{place}{}", diagnostic.message));
                    let title = title.id(diagnostic.code.id);
                    Group::with_title(title).elements(help)
                }
            };
            writeln!(f, "{}\n", Renderer::plain().render(&[group]))?;
        }
        Ok(())
    }
}
