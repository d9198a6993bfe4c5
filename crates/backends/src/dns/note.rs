//! How a question and its answer are written down.
//!
//! Knows: questions, answers, keys in zones. Must not know: who reads it.

use super::key::push_without_key;
use super::{Answer, Question, Text, hide_key, without_key};
use crate::Begun;
use crate::replay::{FAILED, Part, is_plain, push_part};
use lookups::{LookupKind, Origin};
use std::fmt::{self, Write};

impl Question {
    /// Notes the question with its answer. The key of a customer in the zone of a list is left out.
    pub(super) fn note(&self, begun: Begun<'_>, answer: &Answer, origin: Origin) {
        begun.note(
            LookupKind::Dns,
            "",
            origin,
            |text| self.write(text),
            |text| self.write_answer(answer, text),
        );
    }

    /// A list may repeat in its text the name that it was asked about.
    fn write_answer(&self, answer: &Answer, text: &mut String) -> fmt::Result {
        let (Some(zone), Answer::Texts(_)) = (&self.list, answer) else { return write_answer(answer, text) };
        let mut said = String::new();
        write_answer(answer, &mut said)?;
        text.write_str(&hide_key(said, zone))
    }

    /// The question as it is noted.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.name.len() + "OPENPGPKEY ".len());
        // Writing to a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        write!(text, "{} ", self.record_type)?;
        match &self.list {
            Some(zone) => match self.name.strip_suffix(&**zone) {
                Some(asked) => {
                    text.push_str(asked);
                    push_without_key(text, zone);
                }
                None => text.push_str(&without_key(&self.name)),
            },
            None => text.push_str(&self.name),
        }
        Ok(())
    }
}

/// The answer as it is noted.
pub(super) fn write_answer(answer: &Answer, text: &mut String) -> fmt::Result {
    match answer {
        Answer::Addresses(all) => join(text, all.iter(), |text, ip| write!(text, "{ip}")),
        Answer::Ipv6Addresses(all) => join(text, all.iter(), |text, ip| write!(text, "{ip}")),
        Answer::Texts(all) => write_texts(all, text),
        Answer::Exchanges(all) => {
            join(text, all.iter(), |text, one| write!(text, "{} {}", one.preference, one.host))
        }
        Answer::Names(all) => join(text, all.iter(), |text, name| write!(text, "{name}")),
        Answer::Associations(all) => write!(text, "{} associations", all.len()),
        Answer::Keys(all) => write!(text, "{} keys", all.len()),
        Answer::Nothing => text.write_str("nothing"),
        Answer::Failed(failure) => write!(text, "{FAILED}{failure}"),
    }
}

/// One record as it is; several in quotes, those of sender policies first, since the others may be cut off.
fn write_texts(records: &[Text], text: &mut String) -> fmt::Result {
    let mut records: Vec<_> = records.iter().map(|strings| strings.concat()).collect();
    if let [record] = &records[..]
        && is_plain(record)
    {
        return text.write_str(&String::from_utf8_lossy(record));
    }
    records.sort_by_key(|record| !record.starts_with(b"v=spf1"));
    let mut quoted = String::new();
    records.into_iter().for_each(|record| push_part(&mut quoted, &Part::Value(record)));
    text.write_str(&quoted)
}

fn join<T>(
    text: &mut String,
    parts: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T) -> fmt::Result,
) -> fmt::Result {
    for (number, part) in parts.enumerate() {
        if number > 0 {
            text.push_str(", ");
        }
        write(text, part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::RecordType;
    use super::*;
    use crate::Call;
    use lookups::Notebook;
    use std::time::Duration;

    #[test]
    fn a_note_names_the_list_but_not_its_key() {
        let zone = "abcdefghij0123456789abcdef.zen.dq.spamhaus.net".into();
        let name = "2.0.0.127.abcdefghij0123456789abcdef.zen.dq.spamhaus.net";
        let listed = Answer::Addresses([[127, 0, 0, 2].into(), [127, 0, 0, 4].into()].into());
        let notebook = Notebook::default();
        let begun = Call::within(Duration::ZERO).noted_in(Some(&notebook)).begin();
        Question::of_list(name, RecordType::A, &zone).note(begun, &listed, Origin::Remembered);
        let lookups = notebook.take();
        let found: Vec<_> = lookups.iter().map(|it| (it.question, it.answer, it.origin)).collect();
        let question = "A 2.0.0.127.***.zen.dq.spamhaus.net";
        assert_eq!(found, [(question, "127.0.0.2, 127.0.0.4", Origin::Remembered)]);
        let begun = Call::within(Duration::ZERO).noted_in(Some(&notebook)).begin();
        let text = Answer::Texts([Text::from([Box::from(format!("see {name}").as_bytes())])].into());
        Question::of_list(name, RecordType::Txt, &zone).note(begun, &text, Origin::Asked);
        let said: Vec<_> = notebook.take().iter().map(|it| it.answer.to_owned()).collect();
        assert_eq!(said, ["see 2.0.0.127.***.zen.dq.spamhaus.net"]);
    }
}
