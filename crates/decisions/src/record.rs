//! One decision: the request, the answer, and the way from one to the other.
//!
//! Knows: what belongs to a decision. Must not know: plugins, who keeps it.

use crate::{DecisionId, Shadow, StepInfo, StepTable, Walk};
use lookups::numbered;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of the fields that the session had before the request; more are left out.
pub const MAX_SESSION_BYTES: usize = 1024;

/// What the daemon decided about one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Its identifier, which holds the time.
    pub id: DecisionId,
    /// The plugins of the configuration that was in use.
    pub table: Arc<StepTable>,
    /// The name of the virtual host; the port if there is none.
    pub host: Arc<str>,
    /// The request as received, `name=value` lines with an empty one at the end.
    pub request: Box<[u8]>,
    /// Microseconds from the request to the answer.
    pub took: u32,
    /// What became of the request.
    pub outcome: Outcome,
    /// The step that decided or failed, as its number in the table.
    pub by: Option<u16>,
    /// The action as sent; empty if the connection was closed.
    pub answer: Box<str>,
    /// Why there is no other answer: what failed. Empty if nothing did.
    pub failure: Box<str>,
    /// What else there is to say.
    pub flags: Flags,
    /// The score of the message before the request.
    pub score: f64,
    /// The fields of the session before the request, if the message had earlier ones.
    pub session: Vec<(Box<str>, Box<str>)>,
    /// The way through the chain.
    pub walk: Walk,
    /// What the shadow of the virtual host would have decided, if that is another outcome.
    pub shadow: Option<Box<Shadow>>,
}

/// What else there is to say of a decision, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// A backend failed, and that ended the chain.
    pub const FAILED: Flags = Flags(1);
    /// The time of the request was over.
    pub const LATE: Flags = Flags(2);
    /// A check could not find out, for a reason within the request.
    pub const UNDECIDED: Flags = Flags(4);
    /// The client did not take the answer.
    pub const NOT_SENT: Flags = Flags(8);
    /// The message had earlier requests.
    pub const NOT_FIRST: Flags = Flags(16);
    /// Addresses were replaced by pseudonyms.
    pub const PSEUDONYMS: Flags = Flags(32);
    /// Of the client only the network is known, and its names were replaced by pseudonyms.
    pub const ANONYMOUS: Flags = Flags(64);

    /// The bits that say when in its hundredth of a second a decision began; the rest is in its identifier.
    const MOMENT: u32 = 7;
    /// Nanoseconds of each of these parts of a hundredth of a second, of which there are 512.
    const MOMENT_NANOS: u32 = 10_000_000 / 512;

    /// The same of a decision that began at this time.
    #[must_use]
    pub fn begun_at(self, time: SystemTime) -> Flags {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos() % 10_000_000;
        let part = u16::try_from(nanos / Flags::MOMENT_NANOS).unwrap_or_default().min(511);
        Flags(self.0 & ((1 << Flags::MOMENT) - 1) | part << Flags::MOMENT)
    }

    /// How long after the begin of its hundredth of a second a decision began; zero if that is not known.
    pub fn moment(self) -> Duration {
        Duration::from_nanos(u64::from(self.0 >> Flags::MOMENT) * u64::from(Flags::MOMENT_NANOS))
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether it has all that the other has.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

numbered! {
    /// What became of a request.
    pub enum Outcome {
        /// Nobody had an opinion, or the message was permitted.
        Pass = 0, "pass";
        /// It passes with a header.
        Header = 1, "header";
        /// It was rejected.
        Reject = 2, "reject";
        /// It was deferred.
        Defer = 3, "defer";
        /// It is accepted and thrown away.
        Discard = 4, "discard";
        /// It is kept until somebody releases it.
        Hold = 5, "hold";
        /// It goes to another recipient.
        Redirect = 6, "redirect";
        /// Another action, such as `filter` or the name of a restriction class.
        Other = 7, "other";
        /// The connection was closed without an answer.
        Closed = 8, "closed";
    }
}

impl Outcome {
    /// What an action means: that of access(5) which its first word is.
    pub fn of_action(action: &str) -> Outcome {
        let is_separator = |c: char| c.is_ascii_whitespace() || c == ',';
        let word = action.trim_start_matches(is_separator).split(is_separator).next().unwrap_or_default();
        let is = |names: &[&str]| names.iter().any(|name| word.eq_ignore_ascii_case(name));
        let code =
            (word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit())).then(|| word.as_bytes()[0]);
        match code {
            Some(b'4') => Outcome::Defer,
            Some(b'5') => Outcome::Reject,
            _ if is(&["", "dunno", "ok"]) => Outcome::Pass,
            _ if is(&["prepend"]) => Outcome::Header,
            _ if is(&["reject"]) => Outcome::Reject,
            _ if is(&["defer", "defer_if_permit", "defer_if_reject"]) => Outcome::Defer,
            _ if is(&["discard"]) => Outcome::Discard,
            _ if is(&["hold"]) => Outcome::Hold,
            _ if is(&["redirect"]) => Outcome::Redirect,
            _ => Outcome::Other,
        }
    }

    /// Whether something was done about the message: with `pass` and `header` it goes its way.
    pub fn is_acted(self) -> bool {
        !matches!(self, Outcome::Pass | Outcome::Header)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Outcome, String> {
        let found = Outcome::ALL.into_iter().find(|outcome| outcome.name().eq_ignore_ascii_case(text));
        let names = || Outcome::ALL.map(Outcome::name).join(", ");
        found.ok_or_else(|| format!("`{text}` is not an outcome; there are {}", names()))
    }
}

impl Decision {
    /// The value of an attribute of the request. Of a repeated name the last one counts, as for the chain.
    pub fn attribute(&self, name: &str) -> Option<&[u8]> {
        self.attributes().filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, value)| value)
    }

    /// Names and values of the request, in the order received.
    pub fn attributes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = Some(&*self.request);
        let lines = std::iter::from_fn(move || {
            let text = rest?;
            let end = memchr::memchr(b'\n', text);
            rest = end.map(|end| &text[end + 1..]);
            Some(&text[..end.unwrap_or(text.len())])
        });
        lines.filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let at = memchr::memchr(b'=', line)?;
            Some((&line[..at], &line[at + 1..]))
        })
    }

    /// The plugin that decided or failed.
    pub fn decider(&self) -> Option<&StepInfo> {
        self.table.get(self.by?)
    }

    /// Whether something failed, whatever became of the request.
    pub fn has_failure(&self) -> bool {
        use crate::StepOutcome::{Failed, NotFinished, Skipped, Undecided};
        let flags = Flags::FAILED.0 | Flags::LATE.0 | Flags::UNDECIDED.0;
        let failed = |step: &crate::Step| matches!(step.outcome, Failed | NotFinished | Skipped | Undecided);
        self.flags.0 & flags != 0 || self.walk.steps.iter().any(failed)
    }

    /// Whether something was done about the message, or something failed.
    pub fn is_acted(&self) -> bool {
        self.outcome.is_acted() || self.has_failure()
    }

    /// How much memory it holds, about; the table is shared.
    pub fn size(&self) -> usize {
        let session: usize = self.session.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        let texts = self.request.len() + self.answer.len() + self.failure.len();
        let shadow = self.shadow.as_ref().map_or(0, |shadow| shadow.size());
        size_of::<Decision>() + texts + session + self.walk.size() + shadow
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A decision about a request of these lines.
    pub(crate) fn decision(request: &str, outcome: Outcome) -> Decision {
        let steps = vec![StepInfo {
            host: "inbound".to_owned(),
            name: "greylist".to_owned(),
            path: "inbound/greylist".to_owned(),
            module: "Greylist".to_owned(),
            file: "/etc/mtpolicyd/mtpolicyd.conf".to_owned(),
            line: 12,
            ..StepInfo::default()
        }];
        Decision {
            id: DecisionId::from_number(1 << 40),
            table: Arc::new(StepTable { steps, ..StepTable::default() }),
            host: "inbound".into(),
            request: request.as_bytes().into(),
            took: 1_500,
            outcome,
            by: Some(0),
            answer: "defer later".into(),
            failure: "".into(),
            flags: Flags::default(),
            score: 0.0,
            session: Vec::new(),
            walk: Walk::default(),
            shadow: None,
        }
    }

    #[test]
    fn an_action_is_what_its_first_word_says() {
        for (action, outcome) in [
            ("dunno", Outcome::Pass),
            ("OK", Outcome::Pass),
            ("", Outcome::Pass),
            ("PREPEND X-Spam: yes", Outcome::Header),
            ("reject no", Outcome::Reject),
            ("550 5.7.1 no", Outcome::Reject),
            ("450 later", Outcome::Defer),
            ("defer_if_permit later", Outcome::Defer),
            ("Discard", Outcome::Discard),
            ("hold, x", Outcome::Hold),
            ("redirect a@example.org", Outcome::Redirect),
            ("strict_senders", Outcome::Other),
            ("5500 x", Outcome::Other),
        ] {
            assert_eq!(Outcome::of_action(action), outcome, "{action}");
        }
        for outcome in Outcome::ALL {
            assert_eq!(outcome.name().parse(), Ok(outcome));
            assert_eq!(Outcome::from_number(outcome as u8), Some(outcome));
        }
        assert!("passed".parse::<Outcome>().unwrap_err().contains("pass, header"));
    }

    #[test]
    fn the_moment_of_a_decision_is_kept_beside_its_flags() {
        let at = UNIX_EPOCH + Duration::from_nanos(1_796_126_400_127_654_321);
        let flags = Flags::NOT_FIRST.begun_at(at).with(Flags::NOT_SENT);
        assert!(flags.has(Flags::NOT_FIRST) && flags.has(Flags::NOT_SENT) && !flags.has(Flags::LATE));
        let missed = Duration::from_nanos(7_654_321).checked_sub(flags.moment());
        assert!(missed.is_some_and(|missed| missed < Duration::from_micros(20)), "{missed:?}");
        assert_eq!(Flags::ANONYMOUS.moment(), Duration::ZERO);
        let last = UNIX_EPOCH + Duration::from_nanos(9_999_999);
        assert!(Flags::default().begun_at(last).moment() < Duration::from_millis(10));
    }

    #[test]
    fn attributes_are_found_as_the_chain_finds_them() {
        let decision = decision("sender=a\nsender=b=c\r\nx\nrecipient=\n\n", Outcome::Pass);
        assert_eq!(decision.attribute("sender"), Some(&b"b=c"[..]));
        assert_eq!((decision.attribute("recipient"), decision.attribute("x")), (Some(&b""[..]), None));
        assert_eq!(decision.decider().map(|step| &*step.name), Some("greylist"));
    }
}
