//! How results are printed: colors, times, tables, and foreign text that can't harm a terminal.
//!
//! Knows: terminals. Must not know: what is printed.

use crate::log::{escape, printable};
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io::{IsTerminal, Write};

/// How the results of a command are printed.
pub struct Style {
    /// As JSON.
    pub is_json: bool,
    /// The results go to a terminal.
    pub is_terminal: bool,
    has_color: bool,
    zone: TimeZone,
}

/// What a piece of text is, for its color.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Nothing happened to the message.
    Good,
    /// Something was done about it.
    Bad,
    /// Something in between.
    Mild,
    /// Less important.
    Dim,
}

impl Style {
    /// That of the command line and the environment.
    pub fn of(matches: &ArgMatches) -> Style {
        let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
        let is_terminal = std::io::stdout().is_terminal();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let has_color = match text("color") {
            Some("always") => true,
            Some("never") => false,
            _ => is_terminal && !is_plain,
        };
        let zone = if matches.get_flag("utc") { TimeZone::UTC } else { TimeZone::system() };
        Style { is_json: text("format") == Some("json"), is_terminal, has_color, zone }
    }

    /// Text in a color, if there are colors.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => "32",
            Paint::Bad => "31",
            Paint::Mild => "33",
            Paint::Dim => "2",
        };
        if self.has_color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A time of RFC 3339 in the zone of the reader, in a form of strftime(3).
    pub fn time(&self, time: &str, form: &str) -> String {
        match time.parse::<Timestamp>() {
            Ok(time) => time.to_zoned_datetime(self.zone.clone()).strftime(form).to_string(),
            Err(_) => safe(time),
        }
    }
}

/// Foreign text as it may stand on a terminal: one line without control characters.
pub fn safe(text: &str) -> String {
    escape(text.as_bytes()).into_owned()
}

/// A line that the daemon has written, which has escaped what is not its own.
pub fn own(text: &str) -> String {
    /// More than a line of a configuration.
    const MAX_LINE: usize = 4096;
    printable(text, MAX_LINE)
}

/// Foreign text, at most this many characters.
pub fn short(text: &str, most: usize) -> String {
    let text = safe(text);
    if text.chars().count() <= most {
        return text;
    }
    let kept: String = text.chars().take(most.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// A text or, in its place, a dash.
pub fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A number with commas: `1,204`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&String::from_utf8_lossy(group));
    }
    text
}

/// A number of things: `1 decision`, `2 decisions`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Microseconds as milliseconds: `21.4`.
#[allow(clippy::cast_precision_loss, reason = "a tenth of a millisecond is shown")]
pub fn milliseconds(micros: u64) -> String {
    format!("{:.1}", micros as f64 / 1000.0)
}

/// A number of points without needless zeros: `2.5`, `6`.
pub fn points(points: f64) -> String {
    let text = format!("{points:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Rows with columns as wide as their widest cell; the last one is not filled up.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Writes results. `false` once nobody reads them any more, such as behind head(1).
pub fn print(text: &str) -> bool {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_send_does_not_move_the_cursor() {
        assert_eq!(safe("a\u{1b}[2J\u{202e}b\nc"), "a\\x1b[2J\\xe2\\x80\\xaeb\\x0ac");
        assert_eq!(short(&"x".repeat(10_000), 20), "xxxxxxxxxxxxxxxxx...");
        assert_eq!(short("abc", 3), "abc");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, -0.0, 2.5, 6.0, -1.25, 0.0001].map(points), ["0", "0", "2.5", "6", "-1.25", "0"]);
        assert_eq!(
            (counted(1, "decision"), counted(2, "decision")),
            ("1 decision".into(), "2 decisions".into())
        );
        assert_eq!(milliseconds(21_449), "21.4");
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["a", "bb", "c"]), row(["aaa", "b", ""])]), "a    bb  c\naaa  b\n");
    }
}
