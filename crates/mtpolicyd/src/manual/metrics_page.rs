//! The page of the numbers: every one as it is declared, in Markdown.
//!
//! Knows: the declarations of the numbers. Must not know: where they come from.

use crate::metrics::{BUCKETS, FAMILIES, Family, Type};
use std::fmt::Write;

/// What stands before the numbers.
const ABOUT: &str = "\
# Metrics

Every number that the daemon has for monitoring. `mtpolicyd metrics` prints them, and with the block
`<Metrics>` Prometheus and programs like it read them:

```conf
<Metrics>
  listen = \"127.0.0.1:9125\"
</Metrics>
```

| path | answer |
|---|---|
| `/metrics` | the numbers, in OpenMetrics 1.0 for readers that ask for it, else in the text format 0.0.4 |
| `/healthz` | `ok`: the daemon runs |
| `/readyz` | 200 and `ready`, or 503 if a server does not answer and a virtual host has `on_error = close` |

Labels are names from the configuration and words of the program. Nothing that a client sends becomes a
label, so the number of time series depends on the configuration alone. Counters go on after a reload where
names stay, and begin anew with the process. The series `mtpolicyd_plugin_*` and `mtpolicyd_lookup*` are there
while the way of requests is written down: with a `<Journal>`, without one (the last decisions are kept in
memory) or with `<Metrics>`; not with `<Journal off>` alone.

`contrib/grafana-dashboard.json` is a dashboard, `contrib/prometheus-rules.yml` has alerts.
";

/// The page.
pub fn metrics_page() -> String {
    let mut page = ABOUT.to_owned();
    for family in FAMILIES {
        let Family { kind, unit, labels, .. } = family;
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::Info => "info",
        };
        let unit = if unit.is_empty() { String::new() } else { format!(", in {unit}") };
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("; labels {}", labels.join(", ")) };
        // Writing to a string does not fail.
        let _ = write!(page, "\n## `{}`\n\n*{kind}{unit}{labels}*\n\n", family.sample_name());
        page += &super::undent(family.help);
        if family.kind == Type::Histogram {
            let bounds: Vec<_> = BUCKETS.iter().map(|bound| bound.1).collect();
            let _ = write!(page, "\nThe bounds are {}.\n", bounds.join(", "));
        }
    }
    page
}
