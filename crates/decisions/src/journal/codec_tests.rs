//! Blocks are read as they were written, and damaged ones are errors.
//!
//! Knows: blocks.

use super::Privacy;
use super::block::{Class, OpenBlock, decode, may_match, unpack};
use super::bloom::{self, Bloom, may_have};
use super::codec::Decoder;
use super::tests::parts;
use crate::record::tests::decision;
use crate::{
    Decision, DecisionId, Filter, Flags, Lookup, LookupKind, Lookups, Origin, Outcome, Points, Shadow,
    ShadowStep, Step, StepOutcome,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c]{1,3}", "\\PC{0,20}"]
}

prop_compose! {
    fn steps()(
        steps in vec((any::<u16>(), any::<u8>(), 0..7_u8, any::<u32>(), any::<u32>()), 0..6),
    ) -> Vec<Step> {
        let step = |(number, depth, outcome, began, took)| {
            let outcome = StepOutcome::from_number(outcome).unwrap();
            Step { number, depth, outcome, began, took }
        };
        steps.into_iter().map(step).collect()
    }
}

prop_compose! {
    fn lookups()(
        lookups in vec((0..8_u8, 0..3_u8, text(), text(), text(), any::<u32>()), 0..4),
    ) -> Lookups {
        let mut all = Lookups::default();
        for (kind, origin, server, question, answer, waited) in &lookups {
            all.push(Lookup {
                kind: LookupKind::from_number(*kind).unwrap(),
                origin: Origin::from_number(*origin).unwrap(),
                server,
                question,
                answer,
                waited: *waited,
            });
        }
        all
    }
}

prop_compose! {
    fn shadow()(
        (file, answer, failure, trust) in (text(), text(), text(), text()),
        (by, place) in (proptest::option::of("[a-c]{1,3}"), proptest::option::of("[a-c]{1,3}")),
        outcome in 0..9_u8,
        steps in vec((text(), 0..7_u8), 0..4),
    ) -> Shadow {
        let step = |(path, outcome): (String, u8)| {
            ShadowStep { path: path.into(), outcome: StepOutcome::from_number(outcome).unwrap() }
        };
        Shadow {
            file: file.into(),
            outcome: Outcome::from_number(outcome).unwrap(),
            by: by.map(Into::into),
            place: place.map(Into::into),
            answer: answer.into(),
            failure: failure.into(),
            trust: trust.into(),
            steps: steps.into_iter().map(step).collect(),
        }
    }
}

prop_compose! {
    fn any_decision()(
        id in any::<u64>(),
        request in prop_oneof![
            "(sender=[ab]\nrecipient=[ab]?\n\n|sender=[ab]\r\nx\n\n)",
            "([a=\n\r]{0,12}|\\PC{0,30})",
        ],
        (took, outcome, by) in (any::<u32>(), 0..9_u8, any::<Option<u16>>()),
        (flags, score) in (0..64_u16, any::<f64>()),
        (answer, failure, host) in (text(), text(), text()),
        session in vec((text(), text()), 0..3),
        steps in steps(),
        lookups in lookups(),
        notes in vec((any::<u16>(), text()), 0..4),
        points in vec((any::<u16>(), text(), any::<f64>()), 0..3),
        is_cut in any::<bool>(),
        shadow in proptest::option::of(shadow()),
    ) -> Decision {
        let mut it = decision(&request, Outcome::from_number(outcome).unwrap());
        it.id = DecisionId::from_number(id);
        (it.took, it.by, it.flags, it.score) = (took, by, Flags(flags), score);
        (it.answer, it.failure, it.host) = (answer.into(), failure.into(), host.into());
        it.session = session.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        (it.walk.steps, it.walk.lookups, it.walk.is_cut) = (steps, lookups, is_cut);
        notes.iter().for_each(|(step, note)| it.walk.push_note(*step, note));
        let point = |(step, field, points): (u16, String, f64)| Points { step, field: field.into(), points };
        it.shadow = shadow.map(Box::new);
        it.walk.points = points.into_iter().map(point).collect();
        it
    }
}

fn block(decisions: &[Decision]) -> OpenBlock {
    let mut block = OpenBlock::new(Arc::clone(&decisions[0].table), Privacy::None);
    decisions.iter().for_each(|decision| block.add(decision));
    block
}

proptest! {
    #[test]
    fn a_block_is_read_as_it_was_written(decisions in vec(any_decision(), 1..12)) {
        let row = block(&decisions).row(Class::Passed);
        let read = decode(&row.data, &decisions[0].table).unwrap();
        let shown = |decisions: &[Decision]| decisions.iter().map(parts).collect::<Vec<_>>();
        prop_assert_eq!(shown(&read), shown(&decisions));
        let ids: Vec<_> = decisions.iter().map(|decision| decision.id.number()).collect();
        prop_assert_eq!((row.first, row.last), (*ids.iter().min().unwrap(), *ids.iter().max().unwrap()));
    }

    #[test]
    fn a_damaged_block_is_an_error(
        decisions in vec(any_decision(), 1..4),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let data = block(&decisions).row(Class::Passed).data;
        let mut damaged = data.clone();
        damaged[place.index(data.len())] ^= 1_u8 << bit;
        prop_assert!(decode(&damaged, &decisions[0].table).is_err());
        prop_assert!(decode(&data[..place.index(data.len())], &decisions[0].table).is_err());
    }

    #[test]
    fn contents_that_nobody_wrote_do_no_harm(
        bytes in vec(any::<u8>(), 0..400),
        decisions in vec(any_decision(), 1..4),
        places in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let table = &decisions[0].table;
        let count = Decoder::new(&bytes, table).count();
        prop_assert!(count <= bytes.len());
        let mut written = unpack(&block(&decisions).row(Class::Passed).data).unwrap();
        for (place, byte) in places {
            let place = place.index(written.len());
            written[place] = byte;
        }
        prop_assert!(Decoder::new(&written, table).count() <= written.len());
    }
}

#[test]
fn a_filter_has_every_key_of_its_decisions() {
    let mut filter = Bloom::default();
    let of = |n: u32| {
        let request = format!(
            "sender=S{n}@Example{n}.org\nrecipient=r{n}@example.net\nclient_address=10.{}.{}.7\n\
             client_name=c{n}\nhelo_name=h{n}\nsasl_username=l{n}\nqueue_id=q{n}\ninstance=i{n}\n\n",
            n / 256,
            n % 256,
        );
        decision(&request, Outcome::Pass)
    };
    (0..256).for_each(|n| filter.add(&of(n)));
    let text = |text: String| Some(text);
    let filters = |n: u32| {
        [
            Filter { from: text(format!("s{n}@EXAMPLE{n}.org")), ..Filter::default() },
            Filter { from: text(format!("@example{n}.org")), ..Filter::default() },
            Filter { to: text(format!("r{n}@example.net")), ..Filter::default() },
            Filter { client: text(format!("10.{}.{}.7", n / 256, n % 256)), ..Filter::default() },
            Filter { client: text(format!("10.{}.{}.0/25", n / 256, n % 256)), ..Filter::default() },
            Filter { client_name: text(format!("C{n}")), ..Filter::default() },
            Filter { helo: text(format!("H{n}")), ..Filter::default() },
            Filter { login: text(format!("l{n}")), ..Filter::default() },
            Filter { queue: text(format!("q{n}")), ..Filter::default() },
            Filter { instance: text(format!("i{n}")), ..Filter::default() },
        ]
    };
    let has = |filter_of: &Filter| {
        let keys = bloom::wanted(filter_of);
        assert_eq!(keys.len(), 1, "{filter_of:?}");
        may_have(filter.bytes(), keys[0])
    };
    for n in 0..256 {
        for filter in filters(n) {
            assert!(filter.matches(&of(n)) && has(&filter), "{filter:?}");
        }
    }
    let wrong = (1_000..2_000).flat_map(filters).filter(|filter| filter.to.is_none() && has(filter)).count();
    assert!(wrong < 450, "{wrong} of 9,000 others seem to be there");
    let wide = Filter { client: text("10.0.0.0/8".to_owned()), ..Filter::default() };
    assert!(bloom::wanted(&wide).is_empty());
}

#[test]
fn a_summary_knows_hosts_outcomes_and_plugins() {
    let row =
        block(&[decision("a=b\n\n", Outcome::Reject), decision("a=b\n\n", Outcome::Defer)]).row(Class::Acted);
    let all = Filter::default();
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (all.clone(), true),
        (Filter { outcome: vec![Outcome::Pass, Outcome::Defer], ..all.clone() }, true),
        (Filter { outcome: vec![Outcome::Pass], ..all.clone() }, false),
        (Filter { host: text("inbound"), plugin: text("greylist"), ..all.clone() }, true),
        (Filter { host: text("outbound"), ..all.clone() }, false),
        (Filter { plugin: text("spf"), ..all.clone() }, false),
    ] {
        assert_eq!(may_match(&row.summary, &filter, &row.table), expected, "{filter:?}");
    }
    assert!(
        may_match(b"\xff", &Filter { host: text("x"), ..all }, &row.table),
        "what can't be read may match"
    );
}
