//! A DNS list's answer about a message: asked once, kept in the session, its text fetched only when it is
//! used.
//!
//! Knows: DNS lists, sessions, what a plugin gets. Must not know: any plugin, the chain.

use crate::facts::World;
use crate::facts::dnslist::{DEFAULT_TIME_LIMIT, DnsList, Listing, hide_key, text_presentation};
use crate::fields::Template;
use crate::plugin::{Cx, Verdict};
use crate::session::Session;
use crate::value::{Seconds, Span};
use backends::dns::{Answer, Failure, Question, RecordType};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a list may take to answer unless its plugin says otherwise.
pub const LIST_TIME_LIMIT: Span = Span(Seconds(DEFAULT_TIME_LIMIT.as_secs()));

/// What has failed sooner than that was not waited for: it is remembered that it had no answer before.
const SHORTEST_SILENCE: Duration = Duration::from_millis(100);

/// A name that is on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What the list answered, usually codes: `127.0.0.2`. There is at least one.
    pub addresses: Vec<Ipv4Addr>,
    /// The zone of the list.
    zone: Arc<str>,
    /// The name that was asked.
    name: String,
}

/// The session field that keeps the answer for the RBL plugin of that name.
pub fn rbl_field(plugin: &str) -> String {
    format!("rbl-{plugin}-result")
}

/// Asks the list, unless the session remembers its answer. A list that fails counts as not listing the name,
/// for the whole message: asking it again for each recipient would add up its time-outs.
pub async fn ask(cx: &mut Cx<'_>, field: &str, list: &DnsList, question: Option<Question>) -> Option<Listed> {
    if let Some(known) = recall(cx.session, field) {
        return known;
    }
    let found = match question {
        Some(question) => {
            let answer = answer_of(list, &question, cx).await;
            match list.judge(&answer, &cx.world.lists) {
                Listing::Listed(addresses) => {
                    Some(Listed { addresses, zone: list.zone().clone(), name: question.name.to_string() })
                }
                Listing::NotListed | Listing::NoAnswer => None,
            }
        }
        None => None,
    };
    let kept = found.as_ref().map(|listed| format!("{} {} {}", listed.codes(), listed.zone, listed.name));
    cx.session.set(field, &kept.unwrap_or_default());
    found
}

/// The answer of a list within its time. One that is known not to answer is not waited for.
async fn answer_of(list: &DnsList, question: &Question, cx: &mut Cx<'_>) -> Answer {
    let World { dns, lists, .. } = cx.world;
    let no_answer = Answer::Failed(Failure::TimedOut);
    if list.is_silent(dns, lists) {
        return cx.ahead.known(dns, question).unwrap_or(no_answer);
    }
    let start = cx.ahead.started_at(question);
    let answer = cx.ahead.answer(dns, question, cx.deadline.backends.min(start + list.time_limit)).await;
    if answer == no_answer && start.elapsed() >= SHORTEST_SILENCE {
        list.timed_out(dns, lists);
    }
    answer
}

/// What the session remembers: `None` if the list was not asked, `Some(None)` if the name was not on it.
pub fn recall(session: &Session, field: &str) -> Option<Option<Listed>> {
    let mut kept = session.result(field)?.splitn(3, ' ');
    let (codes, zone, name) = (kept.next(), kept.next(), kept.next());
    let addresses = codes.into_iter().flat_map(|codes| codes.split(',')).filter_map(|code| code.parse().ok());
    let addresses: Vec<_> = addresses.collect();
    Some(zone.zip(name).filter(|_| !addresses.is_empty()).map(|(zone, name)| Listed {
        addresses,
        zone: zone.into(),
        name: name.to_owned(),
    }))
}

crate::value::words! {
    /// What to do with a client that is listed.
    pub enum Mode {
        /// Reject the message.
        Reject = "reject",
        /// End the chain without an opinion.
        Accept = "accept",
        /// Only add the score.
        Passive = "passive",
    } else Passive
}

impl Listed {
    /// All that the list answered, separated by commas.
    pub fn codes(&self) -> String {
        self.addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(",")
    }

    /// What a plugin in this mode says about a client that is listed.
    pub async fn verdict(&self, mode: Mode, message: &Template, ip: &str, cx: &mut Cx<'_>) -> Verdict {
        match mode {
            Mode::Reject => Verdict::Stop(self.rejection(message, ip, cx).await),
            Mode::Accept => Verdict::dunno(),
            Mode::Passive => Verdict::Next,
        }
    }

    /// The answer of a plugin that rejects for this listing. The list is asked for its text only where the
    /// message shows it.
    async fn rejection(&self, message: &Template, ip: &str, cx: &mut Cx<'_>) -> String {
        let text = if message.has("%INFO%") { self.text(cx).await } else { None };
        let info = text.map(|text| format!("({text})")).unwrap_or_default();
        format!("reject {}", message.fill(&[("%IP%", ip), ("%INFO%", &info)]))
    }

    /// What the list says about the name, as the original shows it but without the key in its zone; `None`
    /// where it says nothing.
    pub async fn text(&self, cx: &mut Cx<'_>) -> Option<String> {
        let question = Question::of_list(&self.name, RecordType::Txt, &self.zone);
        let World { dns, lists, .. } = cx.world;
        if lists.is_known_silent(&self.zone) {
            return None;
        }
        let deadline = cx.deadline.backends.min(Instant::now() + DEFAULT_TIME_LIMIT);
        match cx.ahead.answer(dns, &question, deadline).await {
            Answer::Texts(records) => {
                records.first().map(|strings| hide_key(text_presentation(strings), &self.zone))
            }
            _ => None,
        }
    }
}
