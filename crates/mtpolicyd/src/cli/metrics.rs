//! `mtpolicyd metrics`: the numbers of the daemon, for people and scripts.
//!
//! Knows: how numbers are printed. Must not know: where they come from.

use super::control::{Daemon, FOUND, NOTHING, Outcome, with_format};
use super::terminal::{Paint, Style, print, safe, table};
use crate::metrics::{FamilyView, MetricsView, SeriesView};
use clap::{Arg, ArgMatches, Command};

/// Its options.
pub fn command() -> Command {
    let name = Arg::new("name").value_name("NAME");
    with_format(Command::new("metrics").about("Show the numbers of the running daemon"))
        .arg(name.help("Only those whose names contain this text, such as `dnslist`"))
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let wanted = matches.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    let MetricsView { families } = daemon.get("/v1/metrics.json")?;
    let families: Vec<_> = families.into_iter().filter(|family| family.name.contains(wanted)).collect();
    for family in &families {
        let shown = if style.is_json { json(family) } else { text(family, &style) };
        if !print(&shown) {
            break;
        }
    }
    Ok(if families.is_empty() { NOTHING } else { FOUND })
}

fn json(family: &FamilyView) -> String {
    serde_json::to_string(family).map(|text| text + "\n").unwrap_or_default()
}

fn text(family: &FamilyView, style: &Style) -> String {
    let FamilyView { name, kind, help, series, .. } = family;
    let mut rows = Vec::new();
    if let Some(first) = series.first().filter(|first| !first.labels.is_empty()) {
        let heads = values(kind).iter().map(|head| (*head).to_owned());
        rows.push(first.labels.keys().map(|label| safe(label)).chain(heads).collect());
    }
    for one in series {
        rows.push(one.labels.values().map(|label| safe(label)).chain(cells(kind, one)).collect());
    }
    format!("{}\n{}\n{}\n", safe(name), style.paint(Paint::Dim, &safe(help)), table(&rows))
}

/// The heads of the columns behind the labels.
fn values(kind: &str) -> &'static [&'static str] {
    match kind {
        "histogram" => &["count", "mean", "half within", "99 % within"],
        "info" => &[],
        _ => &["value"],
    }
}

fn cells(kind: &str, series: &SeriesView) -> Vec<String> {
    let SeriesView { value, sum, .. } = series;
    match kind {
        "histogram" => {
            let mean = sum.filter(|_| *value > 0.0).map(|sum| number(sum / value));
            let within = |part| bound(series, part).map_or_else(|| "-".to_owned(), number);
            vec![number(*value), mean.unwrap_or_else(|| "-".to_owned()), within(0.5), within(0.99)]
        }
        "info" => Vec::new(),
        _ => vec![number(*value)],
    }
}

/// The smallest bound within which this part of all observations lies; `None` if none of them has it, or
/// there are no observations.
fn bound(series: &SeriesView, part: f64) -> Option<f64> {
    let wanted = series.value * part;
    #[allow(clippy::cast_precision_loss, reason = "it is compared with a part")]
    let found = series.buckets.iter().find(|(_, count)| *count as f64 >= wanted);
    found.filter(|_| series.value > 0.0).map(|(bound, _)| *bound)
}

/// A number without needless digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 {
        return format!("{value}");
    }
    let text = format!("{value:.6}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_a_line() {
        let buckets = vec![(0.001, 1), (0.01, 9), (0.1, 10)];
        let series = SeriesView { value: 10.0, sum: Some(0.05), buckets, ..SeriesView::default() };
        assert_eq!(cells("histogram", &series), ["10", "0.005", "0.01", "0.1"]);
        let empty = SeriesView { sum: Some(0.0), ..SeriesView::default() };
        assert_eq!(cells("histogram", &empty), ["0", "-", "-", "-"]);
        assert_eq!(number(1.25), "1.25");
    }
}
