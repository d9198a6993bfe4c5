//! Events of `tracing` as lines, plain or JSON.
//!
//! Knows: events and their fields, the fields of the line a request gets. Must not know: where lines go.

use super::escape::{Escaper, MAX_VALUE, push_json};
use super::{Format, REQUEST};
use std::fmt::{self, Debug, Write};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Longest message and longest action of a line, in bytes: a line stays below the 8 KiB that rsyslog takes.
const MAX_TEXT: usize = 4096;

/// What an ordinary line needs, in bytes, so that it is allocated once.
const USUAL_LINE: usize = 256;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) format: Format,
    /// Whether a plain line begins with the time: where nobody else notes it.
    pub(super) stamped: bool,
}

impl Style {
    /// The line of an event, without a line end.
    pub(super) fn line(self, event: &Event<'_>) -> String {
        let level = *event.metadata().level();
        let is_request = event.metadata().target() == REQUEST;
        let mut line = self.start((!is_request).then_some(level));
        match (self.format, is_request) {
            (Format::Text, true) => event.record(&mut RequestText { line: &mut line, separator: "" }),
            (Format::Text, false) => event.record(&mut Text(&mut line)),
            (Format::Json, _) => event.record(&mut Json(&mut line)),
        }
        self.end(line)
    }

    /// A line of the log about itself.
    pub(super) fn notice(self, level: Level, text: &str) -> String {
        let mut line = self.start(Some(level));
        match self.format {
            Format::Text => drop(Escaper::new(&mut line, MAX_TEXT).write_str(text)),
            Format::Json => {
                line.push_str(",\"message\":");
                push_json(&mut line, text.as_bytes(), MAX_TEXT);
            }
        }
        self.end(line)
    }

    fn start(self, level: Option<Level>) -> String {
        let mut line = String::with_capacity(USUAL_LINE);
        match self.format {
            Format::Text => {
                if self.stamped {
                    push_time(&mut line);
                    line.push(' ');
                }
                line.push_str(level.map_or("", prefix));
            }
            Format::Json => {
                line.push_str("{\"time\":\"");
                push_time(&mut line);
                // A request is logged at level 1 since the original does so; it is not a warning.
                match level {
                    Some(level) => drop(write!(line, "\",\"level\":\"{}\"", name(level))),
                    None => line.push_str("\",\"event\":\"request\""),
                }
            }
        }
        line
    }

    fn end(self, mut line: String) -> String {
        if matches!(self.format, Format::Json) {
            line.push('}');
        }
        line
    }
}

/// UTC as in RFC 3339, with microseconds.
fn push_time(line: &mut String) {
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(line));
}

/// As Postfix marks its lines.
fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error: ",
        Level::WARN => "warning: ",
        _ => "",
    }
}

/// The names of the levels that `log_level` has in the manual, in full.
fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "notice",
        Level::DEBUG => "info",
        Level::TRACE => "debug",
    }
}

/// `message name=value name=value`
struct Text<'a>(&'a mut String);

impl Text<'_> {
    fn field(&mut self, field: &Field) -> Escaper<'_> {
        if field.name() == "message" {
            return Escaper::new(self.0, MAX_TEXT);
        }
        let _ = write!(self.0, " {}=", field.name());
        Escaper::new(self.0, MAX_VALUE)
    }
}

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.field(field), "{value:?}");
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        let out = self.field(field);
        if is_message { out } else { out.values() }.push(value.as_bytes());
    }
    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.field(field).values().push(value);
    }
}

/// `NAME: instance=I, type=T, t=12ms, plugin=P, result=R, client=C, ...`
struct RequestText<'a> {
    line: &'a mut String,
    separator: &'static str,
}

impl RequestText<'_> {
    /// In quotes, so that an address like `"a, recipient=b"@c` is not a field of its own.
    fn quoted(&mut self, value: &[u8]) {
        self.line.push('"');
        let mut escaper = Escaper::new(self.line, MAX_VALUE).values();
        for (n, piece) in value.split(|byte| *byte == b'"').enumerate() {
            if n > 0 {
                escaper.push_hex(b'"');
            }
            escaper.push(piece);
        }
        self.line.push('"');
    }
}

impl Visit for RequestText<'_> {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_bytes(field, value.as_bytes());
    }
    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        if field.name() == "host" {
            Escaper::new(self.line, MAX_VALUE).values().push(value);
            return self.line.push_str(": ");
        }
        self.line.push_str(self.separator);
        self.separator = ", ";
        self.line.push_str(field.name());
        self.line.push('=');
        match field.name() {
            "result" => Escaper::new(self.line, MAX_TEXT).values().push(value),
            "sender" if value.is_empty() => self.line.push_str("<>"),
            "sender" | "recipient" | "login" if value.iter().any(|byte| b" ,\"".contains(byte)) => {
                self.quoted(value);
            }
            _ => Escaper::new(self.line, MAX_VALUE).values().push(value),
        }
    }
    fn record_f64(&mut self, _: &Field, milliseconds: f64) {
        // Whole milliseconds of a time, which is never negative.
        let _ = write!(self.line, "{}t={}ms", self.separator, milliseconds as u64);
        self.separator = ", ";
    }
}

/// `,"name":value` for each field.
struct Json<'a>(&'a mut String);

impl Json<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push(',');
        push_json(self.0, field.name().as_bytes(), MAX_VALUE);
        self.0.push(':');
    }

    fn plain(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        let _ = self.0.write_fmt(value);
    }
}

impl Visit for Json<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_bytes(field, value.as_bytes());
    }
    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.name(field);
        match field.name() {
            // No plugin decided; no plugin has an empty name.
            "plugin" if value.is_empty() => self.0.push_str("null"),
            "message" | "result" => push_json(self.0, value, MAX_TEXT),
            _ => push_json(self.0, value, MAX_VALUE),
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, format_args!("{value}"));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, format_args!("{value}"));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // What is not a number in JSON (infinity) becomes null.
        let value = serde_json::Value::from(value);
        self.plain(field, format_args!("{value}"));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, format_args!("{value}"));
    }
}
