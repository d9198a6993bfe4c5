//! Answers that were recorded, read back from their notes.
//!
//! Knows: how answers are noted. Must not know: who replays what.

use super::{Answer, Dns, Exchange, Failure, Places, Question, RecordType, Text, without_key};
use crate::replay::{FAILED, Part, Replay, parts};
use lookups::LookupKind;
use std::str::FromStr;
use std::sync::Arc;

/// What comes of a question in a replay: what was recorded; else what is known by now, if the name service
/// may be asked; else there is no such record, which is said.
pub(super) async fn answer(replay: &Replay, dns: &Dns, places: &Places, question: &Question) -> Answer {
    let text = question.text();
    let recorded = replay.answer(LookupKind::Dns, "", &text);
    if let Some(answer) = recorded.and_then(|answer| read(question.record_type, &answer)) {
        return answer;
    }
    if let Dns::Resolver(resolver) = dns {
        if let Some(known) = replay.asked(&text) {
            return known;
        }
        let answer = resolver.lookup(question, places).await;
        replay.note_asked(text, answer.clone());
        return answer;
    }
    replay.miss(match &question.list {
        Some(zone) => without_key(zone),
        None => text,
    });
    Answer::Nothing
}

/// An answer from its note; `None` if the note does not say enough.
fn read(record_type: RecordType, text: &str) -> Option<Answer> {
    if text == "nothing" {
        return Some(Answer::Nothing);
    }
    if let Some(why) = text.strip_prefix(FAILED) {
        let timed_out = Failure::TimedOut;
        let is_time = why == timed_out.to_string();
        return Some(Answer::Failed(if is_time { timed_out } else { Failure::Broken(why.into()) }));
    }
    Some(match record_type {
        RecordType::A => Answer::Addresses(all(text)?),
        RecordType::Aaaa => Answer::Ipv6Addresses(all(text)?),
        RecordType::Ptr => Answer::Names(text.split(", ").map(Arc::from).collect()),
        RecordType::Mx => Answer::Exchanges(text.split(", ").map(exchange).collect::<Option<_>>()?),
        RecordType::Txt => Answer::Texts(texts(text)?),
        // Only their number is noted.
        RecordType::Tlsa | RecordType::OpenPgpKey => return None,
    })
}

fn all<T: FromStr>(text: &str) -> Option<Arc<[T]>> {
    text.split(", ").map(|one| one.parse().ok()).collect()
}

fn exchange(text: &str) -> Option<Exchange> {
    let (preference, host) = text.split_once(' ')?;
    Some(Exchange { preference: preference.parse().ok()?, host: host.into() })
}

fn texts(text: &str) -> Option<Arc<[Text]>> {
    let record = |value: &[u8]| -> Text { Box::from([Box::from(value)]) };
    if !text.starts_with('"') {
        return Some(Arc::from([record(text.as_bytes())]));
    }
    let records = parts(text)?.into_iter().map(|part| match part {
        Part::Value(value) => Some(record(&value)),
        Part::Null | Part::Divider(_) => None,
    });
    records.collect()
}

#[cfg(test)]
mod tests {
    use super::super::note::write_answer;
    use super::*;

    #[test]
    fn answers_are_read_back_from_their_notes() {
        let record = |strings: &[&[u8]]| -> Text { strings.iter().map(|one| Box::from(*one)).collect() };
        let written = |answer: &Answer| {
            let mut text = String::new();
            write_answer(answer, &mut text).unwrap();
            text
        };
        for (record_type, answer) in [
            (RecordType::A, Answer::Addresses([[127, 0, 0, 2].into(), [127, 0, 0, 4].into()].into())),
            (RecordType::Aaaa, Answer::Ipv6Addresses(["2001:db8::1".parse().unwrap()].into())),
            (RecordType::Mx, Answer::Exchanges([Exchange { preference: 10, host: "m.test".into() }].into())),
            (RecordType::Mx, Answer::Exchanges([Exchange { preference: 0, host: "".into() }].into())),
            (RecordType::Ptr, Answer::Names(["a.test".into(), "b.test".into()].into())),
            (RecordType::Txt, Answer::Texts([record(&[b"v=spf1 -all"])].into())),
            (RecordType::Txt, Answer::Texts([record(&[b"v=spf1, a"]), record(&[b"\"x\xff, y"])].into())),
            (RecordType::A, Answer::Nothing),
            (RecordType::A, Answer::Failed(Failure::TimedOut)),
        ] {
            let written = written(&answer);
            assert_eq!(read(record_type, &written), Some(answer), "{written}");
        }
        let failed = Answer::Failed(Failure::Server("Server Failure"));
        let shown = written(&failed);
        assert!(matches!(read(RecordType::A, &shown), Some(Answer::Failed(Failure::Broken(_)))));
        // The records that say who may send come first, since the note may be cut.
        let two = Answer::Texts([record(&[b"other"]), record(&[b"v=sp", b"f1 -all"])].into());
        let shown = written(&two);
        assert_eq!(shown, r#""v=spf1 -all" "other""#);
    }
}
