//! Fields, sums and settings; what of them holds for the next recipient.
//!
//! Knows: sessions. Must not know: plugins.

use super::*;
use crate::value::Value;

#[test]
fn scores_add_up_and_say_who_added_them() {
    let mut session = Session::default();
    for (who, points) in [("rbl", "7.50"), ("spf", "-2")] {
        session.add_score("score", who, &Score::parse(points).unwrap());
    }
    assert_eq!(session.text("score"), Some("5.5"));
    assert_eq!(session.score_detail("score"), Some("rbl=7.50, spf=-2"));
}

#[test]
fn strangers_write_no_details() {
    let of = |text: &str| part_of_name(text).to_string();
    assert_eq!(of("a.b+c_d@x-y.test"), "a.b+c_d@x-y.test");
    assert_eq!(
        of("a, spf=-99]\r\nX: y (b)\u{fc}%2C@x"),
        "a%2C%20spf%3D-99%5D%0D%0AX%3A%20y%20%28b%29%C3%BC%252C@x"
    );
}

#[test]
fn a_score_can_be_set_and_cleared_like_any_field() {
    let mut session = Session::default();
    session.set("score", "6");
    session.add_score("score", "c", &Score::from(1.0));
    assert_eq!(session.number("score"), 7.0);
    session.clear("score");
    assert_eq!(session.number("score"), 0.0);
    assert_eq!(session.score_detail("score"), Some("c=1"));
    session.clear_prefix("score");
    assert_eq!(session.score_detail("score"), None);
}

#[test]
fn a_sum_is_exact_though_fifteen_digits_are_shown() {
    let mut session = Session::default();
    for points in [0.7, 0.1] {
        session.add_score("score", "c", &Score::from(points));
    }
    assert_eq!(session.text("score"), Some("0.8"));
    assert!(session.number("score") < 0.8);
    session.add_score("score", "c", &Score::from(-0.8));
    assert_eq!(session.text("score"), Some("-1.11022302462516e-16"));
    session.set("score", "0.8");
    assert_eq!(session.number("score"), 0.8);
}

#[test]
fn a_users_setting_is_found_but_takes_no_place_of_a_score() {
    let mut session = Session::default();
    session.set_user("score", "7");
    session.set_user("limit", "5");
    assert_eq!((session.text("score"), session.number("score")), (Some("7"), 0.0));
    session.add_score("score", "rbl", &Score::from(2.0));
    assert_eq!((session.text("score"), session.number("score")), (Some("2"), 2.0));
    assert_eq!((session.text("limit"), session.result("limit")), (Some("5"), None));
}

#[test]
fn what_was_set_last_holds_among_settings_of_user_and_configuration() {
    let mut session = Session::default();
    session.set_user("limit", "5");
    session.configure("limit", "6");
    assert_eq!(session.text("limit"), Some("6"));
    session.set_user("limit", "7");
    assert_eq!(session.text("limit"), Some("7"));
    session.clear("limit");
    assert_eq!(session.text("limit"), None);
}

#[test]
fn a_mark_is_new_once() {
    let mut session = Session::default();
    assert!(session.first_time("header"));
    assert!(!session.first_time("header"));
}

/// What a plugin does that has looked at the recipient.
fn for_recipient(session: &mut Session, what: impl FnOnce(&mut Session)) {
    session.depend_on(RECIPIENT);
    what(session);
    session.set_depends(Depends::OnMessage);
}

fn score(session: &Session) -> (f64, Option<String>) {
    (session.number("score"), session.score_detail("score").map(str::to_owned))
}

#[test]
fn what_was_found_for_one_recipient_is_dropped_for_the_next() {
    let mut session = Session::default();
    session.begin(b"a@x");
    session.set("client", "1");
    for_recipient(&mut session, |session| {
        session.set("found", "1");
        session.configure("chosen", "1");
        session.load_settings("uc", [("limit", "5")]);
        assert!(session.first_time("mark"));
    });
    let there =
        |session: &Session| ["client", "found", "chosen", "limit", "mark"].map(|f| session.text(f).is_some());
    session.begin(b"a@x");
    assert_eq!(there(&session), [true; 5], "a later request for the same one");
    for other in [&b"b@x"[..], b"A@x", b""] {
        let mut session = session.clone();
        session.begin(other);
        assert_eq!(there(&session), [true, false, false, false, false], "{other:?}");
        for_recipient(&mut session, |session| assert!(session.first_time("mark")));
        session.begin(b"a@x");
        assert_eq!(there(&session), [true, false, false, false, false], "the first one again");
    }
}

#[test]
fn sums_are_those_of_one_recipient_and_of_the_message() {
    let mut session = Session::default();
    let points = |points: f64| Score::from(points);
    for (recipient, own) in [("a@x", 0.1), ("b@x", 0.2), ("a@x", 0.1)] {
        session.begin(recipient.as_bytes());
        if session.first_time("rbl") {
            session.add_score("score", "rbl", &points(0.7));
        }
        for_recipient(&mut session, |session| session.add_score("score", "list", &points(own)));
        if session.first_time("spf") {
            session.add_score("score", "spf", &points(3.0));
        }
        // In the order of the first recipient the sum is what it is without layers, to the last digit.
        let (sum, detail) = score(&session);
        if own > 0.15 {
            assert_eq!((sum, detail.as_deref()), (0.7 + 3.0 + 0.2, Some("rbl=0.7, spf=3, list=0.2")));
        } else if detail.as_deref() == Some("rbl=0.7, list=0.1, spf=3") {
            assert_eq!(sum, 0.7 + 0.1 + 3.0);
        } else {
            assert_eq!((sum, detail.as_deref()), (0.7 + 3.0 + 0.1, Some("rbl=0.7, spf=3, list=0.1")));
        }
    }
    session.begin(b"");
    assert_eq!(score(&session), (0.7 + 3.0, Some("rbl=0.7, spf=3".to_owned())));
}

#[test]
fn what_is_cleared_for_one_recipient_is_there_for_the_next() {
    let mut session = Session::default();
    session.load_settings("login", [("limit", "5")]);
    session.add_score("score", "rbl", &Score::from(5.0));
    session.begin(b"a@x");
    for_recipient(&mut session, |session| {
        session.clear_prefix("score");
        session.clear("limit");
    });
    assert_eq!((score(&session), session.text("limit")), ((0.0, None), None));
    // What comes for all reaches this one too.
    session.set_depends(Depends::OnMessage);
    session.add_score("score", "spf", &Score::from(1.0));
    assert_eq!(score(&session), (1.0, Some("spf=1".to_owned())));
    session.begin(b"b@x");
    assert_eq!(score(&session), (6.0, Some("rbl=5, spf=1".to_owned())));
    assert_eq!(session.text("limit"), Some("5"));
    session.set_depends(Depends::OnMessage);
    session.clear_prefix("");
    assert_eq!((score(&session), session.text("limit")), ((0.0, None), None));
}

#[test]
fn settings_are_replaced_by_those_of_the_next_user_or_by_none() {
    let mut session = Session::default();
    session.load_settings("first", [("a", "1"), ("b", "1")]);
    session.load_settings("second", [("c", "2")]);
    session.load_settings("first", [("b", "3")]);
    assert_eq!(["a", "b", "c"].map(|name| session.text(name)), [None, Some("3"), Some("2")]);
    session.begin(b"x@x");
    for_recipient(&mut session, |session| session.load_settings("second", []));
    assert_eq!(session.text("c"), None, "hidden from this recipient");
    session.begin(b"y@x");
    session.set_depends(Depends::OnMessage);
    assert_eq!(session.text("c"), Some("2"));
    session.load_settings("first", []);
    assert_eq!(["a", "b", "c"].map(|name| session.text(name)), [None, None, Some("2")]);
}

#[test]
fn what_is_read_decides_on_what_a_finding_depends() {
    let mut session = Session::default();
    session.begin(b"a@x");
    let depends = |session: &Session, read: &dyn Fn(&Session)| {
        session.set_depends(Depends::OnMessage);
        read(session);
        session.depends() == Depends::OnRecipient
    };
    session.set("message", "1");
    let field = |name: &'static str| move |session: &Session| assert!(session.text(name) != Some("?"));
    assert!(!depends(&session, &field("missing")), "nobody has looked at a recipient yet");
    assert!(!depends(&session, &|session| session.depend_on("sender")));
    assert!(depends(&session, &|session| session.depend_on(RECIPIENT)));
    session.set("own", "1");
    // From now on a field may be there for others that is missing for this one.
    for name in ["message", "own", "missing"] {
        assert!(depends(&session, &field(name)), "{name}");
    }
    assert!(depends(&session, &|session| assert_eq!(session.number("score"), 0.0)));
    assert!(depends(&session, &|session| assert_eq!(session.result("own"), Some("1"))));
    assert!(!depends(&session, &|session| assert_eq!(session.result("message"), Some("1"))));
}

#[test]
fn what_a_message_can_have_once_it_has_whoever_was_asked_about() {
    let mut session = Session::default();
    session.begin(b"a@x");
    for_recipient(&mut session, |session| {
        assert!(session.first_in_message("header"));
        session.set_for_message("counted", "5");
    });
    session.begin(b"b@x");
    assert!(!session.first_in_message("header"));
    assert_eq!(session.result("counted"), Some("5"));
    assert_eq!(session.depends(), Depends::OnMessage);
}
