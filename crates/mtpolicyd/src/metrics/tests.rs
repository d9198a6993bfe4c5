//! How the numbers are counted and written.

use super::*;
use decisions::DecisionId;
use std::collections::BTreeSet;

#[test]
fn every_number_is_explained_and_its_name_follows_the_rules() {
    let mut names = BTreeSet::new();
    for family in FAMILIES {
        assert!(names.insert(family.name), "{} is declared twice", family.name);
        assert!(family.help_line().ends_with('.'), "{}", family.name);
        assert!(family.name.ends_with(family.unit), "{}: OpenMetrics wants the unit at the end", family.name);
        let endings = ["_total", "_info", "_count", "_sum", "_bucket", "_created"];
        assert!(!endings.iter().any(|ending| family.name.ends_with(ending)), "{}", family.name);
        let is_ours = family.name.starts_with("mtpolicyd_") || family.name.starts_with("process_");
        assert!(is_ours, "{}", family.name);
    }
}

#[test]
fn many_threads_lose_nothing() {
    let cells = Cells::<2>::default();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..1_000).for_each(|_| cells.add(1, 3)));
        }
    });
    assert_eq!((cells.get(0), cells.get(1), cells.get(2)), (0, 60_000, 0));
}

#[test]
fn a_histogram_counts_up_to_each_bound() {
    let histogram = Histogram::default();
    let id = DecisionId::from_number(7 << 14);
    for (micros, example) in [(100, None), (101, Some(id)), (30_000_000, None)] {
        histogram.observe(micros, example);
    }
    let observed = histogram.observed();
    assert_eq!((observed.cumulative[0], observed.cumulative[1], observed.count()), (1, 2, 3));
    assert!((observed.sum - 30.000_201).abs() < 1e-9);
    assert_eq!(observed.examples[1], Some((id, 0.000_101)));
    assert!(observed.examples[0].is_none());
}

fn page() -> Page {
    let mut page = Page::default();
    let host = Configured::from_settings("in \"1\"\n\\");
    requests(&mut page, &host, "reject", 3_u64);
    requests(&mut page, &host, "reject", 4_u64);
    let histogram = Histogram::default();
    histogram.observe(150, Some(DecisionId::from_number(1 << 14)));
    request_seconds(&mut page, &host, histogram.observed());
    build(&mut page, "3.0");
    process_cpu(&mut page, 1.5);
    page
}

#[test]
fn both_formats_are_written_as_they_are_defined() {
    let (open, old) = (open_metrics(&page()), plain(&page()));
    let host = r#"host="in \"1\"\n\\""#;
    for line in [
        "# TYPE mtpolicyd_requests counter",
        &format!("mtpolicyd_requests_total{{{host},outcome=\"reject\"}} 3"),
        "# UNIT mtpolicyd_request_seconds seconds",
        &format!("mtpolicyd_request_seconds_bucket{{{host},le=\"0.0001\"}} 0"),
        &format!(
            "mtpolicyd_request_seconds_bucket{{{host},le=\"0.0003\"}} 1 # {{id=\"00000-00G00\"}} 0.00015 \
             1767225600.01"
        ),
        &format!("mtpolicyd_request_seconds_bucket{{{host},le=\"+Inf\"}} 1"),
        "# TYPE mtpolicyd_build info",
        "mtpolicyd_build_info{version=\"3.0\"} 1",
        "process_cpu_seconds_total 1.5",
    ] {
        assert!(open.lines().any(|found| found == line), "{line}\n{open}");
    }
    assert!(open.ends_with("\n# EOF\n"));
    for line in [
        "# TYPE mtpolicyd_requests_total counter",
        "# TYPE mtpolicyd_build_info gauge",
        &format!("mtpolicyd_request_seconds_bucket{{{host},le=\"0.0003\"}} 1"),
    ] {
        assert!(old.lines().any(|found| found == line), "{line}\n{old}");
    }
    assert!(!old.contains("# EOF") && !old.contains("# UNIT"));
}

#[test]
fn json_has_the_same() {
    let view = page().view();
    let requests = &view.families[0];
    assert_eq!((&*requests.name, &*requests.kind), ("mtpolicyd_requests_total", "counter"));
    assert_eq!((requests.series.len(), requests.series[0].value), (1, 3.0));
    let seconds = &view.families[1].series[0];
    assert_eq!((seconds.value, seconds.buckets[1]), (1.0, (0.0003, 1)));
}
