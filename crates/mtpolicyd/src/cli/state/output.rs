//! Entries and changes as they are printed.
//!
//! Knows: the columns of each kind. Must not know: where entries come from.

use crate::cli::status::span;
use crate::cli::terminal::{Paint, Style, grouped, or_dash, safe, table};
use crate::state::{Changed, Condition, Count, Entry, Kind, printable};
use jiff::Timestamp;
use serde::Serialize;

/// The longest address in a table.
const MAX_COLUMN: usize = 50;

/// One object a line.
pub fn json_lines(values: &[impl Serialize]) -> String {
    let line = |value| serde_json::to_string(value).map(|text| text + "\n").unwrap_or_default();
    values.iter().map(line).collect()
}

/// A key, or a part of one, at most this long.
fn short(text: &str, most: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 3).chain("...".chars()).collect()
}

/// Entries as a table, or as JSON.
pub fn entries(kind: Kind, entries: &[Entry], style: &Style, is_show: bool) -> String {
    if style.is_json {
        return json_lines(entries);
    }
    if entries.is_empty() {
        return String::new();
    }
    let now = Timestamp::now().as_second();
    let heads: &[&str] = match kind {
        Kind::Greylist => &["plugin", "client", "from", "to", "first seen", "may pass", "state"],
        Kind::Awl => &["plugin", "client", "domain", "messages", "last seen", "state"],
        Kind::Quota => &["plugin", "key", "period", "counted", "state"],
        Kind::Limits => &["plugin", "key", "counted"],
        Kind::Honeypot => &["plugin", "client", "until", "state"],
    };
    let mut rows = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    for entry in entries {
        rows.push(row(kind, entry, style, now));
        if is_show {
            rows.extend(full_since(entry, style));
        }
    }
    table(&rows)
}

fn row(kind: Kind, entry: &Entry, style: &Style, now: i64) -> Vec<String> {
    let plugin = safe(&entry.plugin);
    let cell = |text: &Option<String>| short(or_dash(text.as_deref().unwrap_or_default()), MAX_COLUMN);
    let time = |at: Option<i64>| at.map_or_else(|| "-".to_owned(), |at| moment(at, now, style));
    let state = state_of(entry, style);
    // What can't be read is named by its key.
    let first = if entry.client.is_some() { cell(&entry.client) } else { short(&entry.key, MAX_COLUMN) };
    match kind {
        Kind::Greylist => {
            // Nobody sends with an empty name; a message may have no sender.
            let sender = entry.sender.as_deref().map(|from| if from.is_empty() { "<>" } else { from });
            let passes = match entry.passes_at {
                Some(at) if entry.state == Condition::Waiting => format!("in {}", span_until(at, now)),
                Some(_) => "now".to_owned(),
                None => "-".to_owned(),
            };
            let from = cell(&sender.map(str::to_owned));
            vec![plugin, first, from, cell(&entry.recipient), time(entry.first_seen), passes, state]
        }
        Kind::Awl => {
            let counted = entry.counts.first().map_or_else(|| "-".to_owned(), used);
            vec![plugin, first, cell(&entry.domain), counted, time(entry.last_seen), state]
        }
        Kind::Quota => {
            let counted = counts(entry);
            vec![plugin, short(&entry.key, MAX_COLUMN), cell(&entry.period), counted, state]
        }
        Kind::Limits => {
            let counted = if entry.counts.is_empty() { state } else { limits(entry, style) };
            vec![plugin, short(&entry.key, MAX_COLUMN), counted]
        }
        Kind::Honeypot => vec![plugin, first, time(entry.expires_at), state],
    }
}

fn state_of(entry: &Entry, style: &Style) -> String {
    let paint = match entry.state {
        Condition::Ready | Condition::Whitelisted | Condition::Below => Paint::Good,
        Condition::Waiting | Condition::Counting => Paint::Mild,
        Condition::Full | Condition::Trapped | Condition::Unreadable => Paint::Bad,
    };
    let state = style.paint(paint, &entry.state.to_string());
    match &entry.value {
        Some(value) => format!("{state}: {}", short(value, MAX_COLUMN)),
        None => state,
    }
}

/// `200/200`, or `200` where there is no limit.
fn used(count: &Count) -> String {
    match count.limit {
        Some(limit) => format!("{}/{}", grouped(count.count), grouped(limit)),
        None => grouped(count.count),
    }
}

fn counts(entry: &Entry) -> String {
    let counts = entry.counts.iter().map(|count| format!("{} {}", count.name, used(count)));
    safe(&counts.collect::<Vec<_>>().join("  "))
}

/// `1m 3/30   1h 200/200 FULL, next free in 11 min 20 s`
fn limits(entry: &Entry, style: &Style) -> String {
    let one = |count: &Count| {
        let mut text = format!("{} {}", safe(&count.name), used(count));
        if count.is_full() {
            text += &format!(" {}", style.paint(Paint::Bad, "FULL"));
            text += &count.free_in.map(|free| format!(", next free in {}", span(free))).unwrap_or_default();
        }
        text
    };
    entry.counts.iter().map(one).collect::<Vec<_>>().join("   ")
}

/// Since when limits are full.
fn full_since(entry: &Entry, style: &Style) -> Option<Vec<String>> {
    let now = Timestamp::now().as_second();
    let since = entry.counts.iter().filter_map(|count| {
        let since = count.full_since?;
        Some(format!("{} full since {}", safe(&count.name), moment(since, now, style)))
    });
    let since = since.collect::<Vec<_>>().join(", ");
    (!since.is_empty()).then(|| vec![String::new(), String::new(), since])
}

/// A time of today without its day.
fn moment(at: i64, now: i64, style: &Style) -> String {
    const HALF_A_DAY: i64 = 12 * 3600;
    let Ok(time) = Timestamp::from_second(at) else { return at.to_string() };
    let form = if (now - at).abs() < HALF_A_DAY { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" };
    style.time(&time.to_string(), form)
}

fn span_until(at: i64, now: i64) -> String {
    span(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}

/// What was changed, each with what undoes it.
pub fn changes(kind: Kind, changed: &[Changed], style: &Style) -> String {
    if style.is_json {
        return json_lines(changed);
    }
    let line = |change: &Changed| {
        let undo = match &change.undo {
            Some(undo) => printable(&undo.command(kind)),
            None => "nothing can undo this".to_owned(),
        };
        let Changed { plugin, key, done, .. } = change;
        format!("{} {}: {}\nundo: {undo}\n", safe(plugin), printable(key), printable(done))
    };
    changed.iter().map(line).collect()
}
