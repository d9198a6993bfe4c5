//! A DNS list's answer about a message: asked once, kept in the session, its text fetched only when it is
//! used.
//!
//! Knows: DNS lists, sessions, what a plugin gets. Must not know: any plugin, the chain.

use crate::facts::World;
use crate::facts::dnslist::{DEFAULT_TIME_LIMIT, DnsList, Listing, text_presentation};
use crate::facts::known_lists;
use crate::fields::Template;
use crate::log::messages::findings;
use crate::options::codes;
use crate::plugin::{Cx, Setup, Verdict};
use crate::session::Session;
use crate::value::{NonZeroSeconds, Seconds, Switch};
use backends::dns::{Answer, Failure, Question, RecordType, hide_key, zone_shown_as};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// How long a list may take to answer unless its plugin says otherwise.
pub const LIST_TIME_LIMIT: NonZeroSeconds = NonZeroSeconds(Seconds::of(DEFAULT_TIME_LIMIT.as_secs()));

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
                Listing::Ignored(addresses) => {
                    cx.note(findings::says_it_of_everybody(list.label(), codes(&addresses)));
                    None
                }
                Listing::NotListed | Listing::NoAnswer => None,
            }
        }
        None => None,
    };
    cx.session.set(field, &found.as_ref().map(|listed| listed.kept(list)).unwrap_or_default());
    found
}

/// The answer of a list within its time. One that is known not to answer is not waited for.
async fn answer_of(list: &DnsList, question: &Question, cx: &mut Cx<'_>) -> Answer {
    let World { dns, lists, .. } = cx.world;
    let no_answer = Answer::Failed(Failure::TimedOut);
    if list.is_silent(dns, lists) {
        return cx.ahead.known(dns, question, cx.call);
    }
    let start = cx.ahead.started_at(question);
    let answer = cx.ahead.answer(dns, question, cx.call.ending_by(start + list.time_limit)).await;
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
    let found = zone.zip(name).filter(|_| !addresses.is_empty());
    Some(found.map(|(shown, name)| {
        let zone = zone_shown_as(shown).unwrap_or_else(|| shown.into());
        let name = name.strip_suffix(shown).map_or(name.to_owned(), |asked| format!("{asked}{zone}"));
        Listed { addresses, zone, name }
    }))
}

/// Warns of a list that nobody can be on, and of return codes that no answer has; and notes that it is asked,
/// and whether it may be tested.
pub fn check_list(list: &DnsList, test: Switch, setup: &Setup<'_, '_>) {
    setup.env.tasks.states.add_list(setup.name, list, test == Switch::On);
    if !list.is_askable() {
        let message = "domain: this is not the name of a zone, so it lists nobody".to_owned();
        setup.warn_as(&codes::NOT_A_ZONE, "domain", message);
    }
    if let Some(closed) = known_lists::known_dead(&list.label()) {
        let message = format!("domain: {} {} ({})", closed.domain, closed.what, closed.source);
        setup.warn_as(&codes::CLOSED_LIST, "domain", message);
    }
    let without_effect = list.codes_without_effect();
    if let Some(refusal) = list.refusal_among_codes() {
        let zone = list.label();
        let message = format!(
            "return_codes: {zone} answers {refusal} and its like to whoever may not ask, so that never counts"
        );
        setup.warn_as(&codes::CODE_NEVER_COUNTS, "return_codes", message + &advice(list));
    } else if !without_effect.is_empty() {
        let message = format!("return_codes: {} never counts as a listing", without_effect.join(", "));
        setup.warn_as(&codes::CODE_NEVER_COUNTS, "return_codes", message);
    }
}

/// Warns of a list of good clients that is used for something else, or by any of its answers: one of them may
/// say that it is asked too often, others that it does not know the client well. A list that only asks, for
/// plugins behind it which look at the answer, may have any.
pub fn check_mode(list: &DnsList, mode: Mode, scores: bool, has_codes: bool, setup: &Setup<'_, '_>) {
    let (zone, known) = (list.label(), list.allow_list().filter(|list| !list.has_bad_ones));
    match (mode, known) {
        (Mode::Reject, Some(_)) => {
            let message = format!("mode: {zone} is an allow list; `reject` keeps out the clients on it");
            setup.warn_as(&codes::REJECTS_GOOD_ONES, "mode", message);
        }
        (Mode::Accept, _) if !has_codes => {
            let message = format!("mode: without return_codes any answer of {zone} lets the client in");
            setup.warn_as(&codes::ANY_ANSWER_ALLOWS, "mode", message + &advice(list));
        }
        (Mode::Passive, Some(_)) if scores && !has_codes => {
            let message = format!("domain: without return_codes any answer of {zone} counts");
            setup.warn_as(&codes::ANY_ANSWER_ALLOWS, "domain", message + &advice(list));
        }
        _ => {}
    }
}

/// Which return codes to write.
fn advice(list: &DnsList) -> String {
    let (codes, source) = match list.allow_list() {
        Some(known) => (known.listings, format!(" ({}, {})", known.source, known.as_of)),
        None => ("127.0.0.2", String::new()),
    };
    format!("; name those that may, such as `return_codes = \"{codes}\"`{source}")
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

/// Addresses, separated by commas.
fn codes(addresses: &[Ipv4Addr]) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(",")
}

impl Listed {
    /// What the session keeps of it. It goes into stores and into the journal, so the key in the zone is left
    /// out.
    fn kept(&self, list: &DnsList) -> String {
        let shown = list.label();
        let asked = self.name.strip_suffix(&*self.zone).unwrap_or_default();
        format!("{} {shown} {asked}{shown}", self.codes())
    }

    /// All that the list answered, separated by commas.
    pub fn codes(&self) -> String {
        codes(&self.addresses)
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
            cx.ahead.known(dns, &question, cx.call);
            return None;
        }
        let call = cx.call.at_most(DEFAULT_TIME_LIMIT);
        match cx.ahead.answer(dns, &question, call).await {
            Answer::Texts(records) => {
                records.first().map(|strings| hide_key(text_presentation(strings), &self.zone))
            }
            _ => None,
        }
    }
}
