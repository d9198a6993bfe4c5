//! The numbers as text: OpenMetrics 1.0 (draft-richih-opsawg-openmetrics-00), and the older format of
//! Prometheus, version 0.0.4.
//!
//! Knows: the two formats. Must not know: any number.

use super::{BUCKETS, Family, Page, Sample, Type, Value};
use std::fmt::Write;
use std::time::UNIX_EPOCH;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Open,
    Plain,
}

/// The numbers in OpenMetrics.
pub fn open_metrics(page: &Page) -> String {
    let mut text = write(page, Format::Open);
    text.push_str("# EOF\n");
    text
}

/// The numbers in the text format 0.0.4.
pub fn plain(page: &Page) -> String {
    write(page, Format::Plain)
}

fn write(page: &Page, format: Format) -> String {
    let mut text = String::with_capacity(64 << 10);
    for (family, samples) in page.families() {
        // Writing to a string does not fail.
        let _ = head(&mut text, family, format);
        for sample in samples {
            let _ = series(&mut text, family, sample, format);
        }
    }
    text
}

fn head(text: &mut String, family: &Family, format: Format) -> std::fmt::Result {
    let name = match format {
        Format::Open => family.name.to_owned(),
        Format::Plain => family.sample_name(),
    };
    let kind = match (family.kind, format) {
        (Type::Counter, _) => "counter",
        (Type::Gauge, _) | (Type::Info, Format::Plain) => "gauge",
        (Type::Histogram, _) => "histogram",
        (Type::Info, Format::Open) => "info",
    };
    writeln!(text, "# TYPE {name} {kind}")?;
    if format == Format::Open && !family.unit.is_empty() {
        writeln!(text, "# UNIT {name} {}", family.unit)?;
    }
    writeln!(text, "# HELP {name} {}", escaped(&family.help_line(), format == Format::Open))
}

fn series(text: &mut String, family: &Family, sample: &Sample, format: Format) -> std::fmt::Result {
    let labels = labels(family, sample);
    let name = family.sample_name();
    match &sample.value {
        Value::Whole(number) => writeln!(text, "{name}{} {number}", braces(&labels)),
        Value::Real(number) => writeln!(text, "{name}{} {number}", braces(&labels)),
        Value::Observed(observed) => {
            let bounds = BUCKETS.iter().map(|bound| bound.1).chain(["+Inf"]);
            for ((bound, count), example) in bounds.zip(observed.cumulative).zip(observed.examples) {
                let separator = if labels.is_empty() { "" } else { "," };
                write!(text, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}")?;
                if let Some((id, seconds)) = example.filter(|_| format == Format::Open) {
                    let time = id.time().duration_since(UNIX_EPOCH).unwrap_or_default();
                    write!(text, " # {{id=\"{id}\"}} {seconds} {:.2}", time.as_secs_f64())?;
                }
                text.push('\n');
            }
            writeln!(text, "{name}_sum{} {}", braces(&labels), observed.sum)?;
            writeln!(text, "{name}_count{} {}", braces(&labels), observed.count())
        }
    }
}

fn labels(family: &Family, sample: &Sample) -> String {
    let pairs = family.labels.iter().zip(&sample.labels);
    pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true))).collect::<Vec<_>>().join(",")
}

fn braces(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// A text in which a backslash, the end of a line and, in labels and in OpenMetrics, a quote stand for
/// themselves.
fn escaped(text: &str, with_quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if with_quotes => escaped.push_str("\\\""),
            // A name of the configuration may hold anything, but nothing that moves a reader's cursor.
            c if c.is_control() => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}
