//! An event as a message.
//!
//! Knows: the form of messages (RFC 5322). Must not know: SMTP.

use super::receiver::Delivery;
use crate::events::{Event, OwnMail, host_name};
use crate::log::printable;
use crate::settings::MailAddress;
use backends::smtp::{Letter, NotSubmitted, Submission};
use decisions::rfc3339;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use std::fmt::Write;

/// The longest subject, in characters.
const MAX_SUBJECT: usize = 150;

/// The longest line of a body (RFC 2045 section 6.7), with the sign that it goes on.
const MAX_LINE: usize = 76;

/// Sends it once.
pub async fn deliver(
    server: &Submission,
    to: &MailAddress,
    from: &MailAddress,
    event: &Event,
    own: &OwnMail,
) -> Delivery {
    let letter = Letter { to: to.mailbox.clone(), text: write(to, from, event, &host_name()) };
    match server.submit(&letter, |address| own.opened(address)).await {
        Ok(()) => Delivery::Taken,
        Err(NotSubmitted::Later(why)) => Delivery::Later(why),
        Err(error @ NotSubmitted::Refused(_)) => Delivery::GivenUp(error.to_string()),
    }
}

/// Head and body.
fn write(to: &MailAddress, from: &MailAddress, event: &Event, host: &str) -> String {
    let Event { id, kind, state, level, source, key, text, advice } = event;
    let time = id.time();
    let date =
        Timestamp::try_from(time).ok().and_then(|time| rfc2822::to_string(&time.in_tz("UTC").ok()?).ok());
    let date = date.unwrap_or_default();
    let text = printable(text, 4_000);
    let is_plain = |c: char| if c.is_ascii() { c } else { '?' };
    let subject: String = text.chars().take(MAX_SUBJECT).map(is_plain).collect();
    let head = format!(
        "From: \"mtpolicyd on {host}\" <{from}>\nTo: <{to}>\nSubject: [mtpolicyd] {subject}\nDate: {date}\n\
         Message-ID: <{id}.mtpolicyd@{host}>\nAuto-Submitted: auto-generated\n\
         X-Mtpolicyd-Event: {kind} {state} {id}\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
    );
    let mut body = format!("{text}\n\n");
    if !advice.is_empty() {
        body += &format!("{}\n\n", printable(advice, 4_000));
    }
    let rows =
        [("event", format!("{kind} {state} ({level})")), ("time", rfc3339(time)), ("host", host.into())];
    let about = [("about", source), ("of", key)].map(|(name, value)| (name, printable(value, 512)));
    for (name, value) in rows.into_iter().chain(about).filter(|(_, value)| !value.is_empty()) {
        body += &format!("{name:<6} {value}\n");
    }
    head + &quoted_printable(&body)
}

/// The text in ASCII and short lines.
fn quoted_printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        let mut column = 0;
        for (place, byte) in line.bytes().enumerate() {
            let is_last = place + 1 == line.len();
            let is_plain = (byte.is_ascii_graphic() && byte != b'=') || (byte == b' ' && !is_last);
            let width = if is_plain { 1 } else { 3 };
            if column + width >= MAX_LINE {
                out.push_str("=\n");
                column = 0;
            }
            if is_plain {
                out.push(char::from(byte));
            } else {
                // A string takes all that is written to it.
                let _ = write!(out, "={byte:02X}");
            }
            column += width;
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventKind, EventState, Events};
    use crate::value::Value;

    #[test]
    fn a_message_has_its_form_whatever_a_client_has_sent() {
        let address = |text| MailAddress::parse(text).unwrap();
        let text = format!("outgoing: x\r\nBcc: <a@b>\u{e9}{} has used up 100/1h", "y".repeat(200));
        let event = Events::default().event(EventKind::LimitReached, EventState::Begins, "outgoing", text);
        let key = "=x\n.\n".to_owned();
        let event = Event { key, advice: "Do `this`.".to_owned(), ..event };
        let message = write(&address("to@b.test"), &address("from@b.test"), &event, "mx.test");
        let (head, body) = message.split_once("\n\n").unwrap();
        assert!(message.is_ascii() && message.lines().all(|line| line.len() <= 200), "{message}");
        let names: Vec<_> = head.lines().map(|line| line.split_once(": ").unwrap().0).collect();
        let expected = [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "Auto-Submitted",
            "X-Mtpolicyd-Event",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
        ];
        assert_eq!(names, expected);
        assert!(head.contains("\nAuto-Submitted: auto-generated\n"), "{head}");
        assert!(head.contains("\nX-Mtpolicyd-Event: limit-reached begins "), "{head}");
        assert!(body.lines().all(|line| line.len() <= MAX_LINE), "{body}");
        assert!(body.contains("=C3=A9") && body.contains("Do `this`.\n"), "{body}");
        assert!(body.contains("of     =3Dx\\x0a.\\x0a\n") && body.contains("about  outgoing\n"), "{body}");
    }
}
