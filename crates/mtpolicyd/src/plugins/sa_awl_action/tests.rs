//! What is done about an entry.

use crate::awl::{Entry, remember, result_field};
use crate::testing::Bench;

/// An action after a lookup that has found that.
fn bench(options: &str, entry: Option<(f64, f64)>) -> Bench {
    let text = format!("<Plugin a>\n module = SaAwlAction\n result_from = l\n {options}\n</Plugin>");
    let mut bench =
        Bench::new(&text).attribute("sender", "a@b.example").attribute("client_address", "192.0.2.1");
    let entry = entry.map(|(count, score)| Entry { count, score });
    remember(&mut bench.session, &result_field("l"), entry.as_ref());
    bench
}

#[test]
fn a_mean_score_is_compared_with_the_threshold() {
    let bad = Some("reject sender address/ip has bad reputation");
    for (options, entry, answer) in [
        ("", Some((10.0, 5.0)), bad),
        ("", Some((10.0, 4.9)), None),
        ("", Some((9.0, 8.0)), None),
        ("min_count = 3", Some((9.0, 8.0)), bad),
        ("", None, None),
        ("match = lt\n threshold = 0\n mode = accept", Some((10.0, 0.0)), Some("dunno")),
        ("match = lt\n threshold = 0\n mode = dunno", Some((10.0, -1.0)), Some("dunno")),
        ("match = lt\n threshold = 0\n mode = accept", Some((10.0, 0.1)), None),
        ("mode = passive", Some((10.0, 8.0)), None),
        ("enabled = off", Some((10.0, 8.0)), None),
    ] {
        assert_eq!(bench(options, entry).run().as_deref(), answer, "{options} {entry:?}");
    }
}

#[test]
fn the_rejection_names_whom_it_is_about() {
    let mut bench = bench("reject_message = \"%IP% %SENDER% %SCORE% %SCORE%\"", Some((30.0, 20.0 / 3.0)));
    assert_eq!(bench.run().as_deref(), Some("reject 192.0.2.1 a@b.example 6.66666666666667 %SCORE%"));
}

#[test]
fn scores_count_once_a_mail() {
    for (options, detail) in [
        ("score = 5", Some("a=5")),
        ("score_factor = 0.5", Some("a=4")),
        ("score = 0\n score_factor = -1", Some("a=-8")),
        ("score_factor = 0", None),
    ] {
        let mut bench = bench(&format!("mode = passive\n {options}"), Some((10.0, 8.0)));
        assert_eq!((bench.run(), bench.run()), (None, None));
        assert_eq!(bench.session.text("score_detail"), detail, "{options}");
    }
}

#[test]
fn without_a_lookup_nothing_happens() {
    let text = "<Plugin a>\n module = SaAwlAction\n result_from = nothere\n</Plugin>";
    assert_eq!(Bench::new(text).run(), None);
}

#[test]
fn two_scores_are_noticed() {
    let text =
        "<Plugin a>\n module = SaAwlAction\n result_from = l\n score = 1\n score_factor = 2\n</Plugin>";
    assert_eq!(Bench::warnings(text), ["5:17 score_factor: has no effect beside `score`"]);
}
