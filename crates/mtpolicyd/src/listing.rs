//! A DNS list's answer about a mail: asked once, kept in the session, its text fetched only when it is used.
//!
//! Knows: DNS lists, sessions, what a plugin gets. Must not know: any plugin, the chain.

use crate::fields::Template;
use crate::plugin::{Cx, Verdict};
use crate::session::Session;
use crate::world::dns::{Answer, Question, RecordType};
use crate::world::dnslist::{DnsList, Listing, text_presentation};

/// A name that is on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What the list answered, usually a code: `127.0.0.2`.
    pub address: String,
    /// The name that was asked.
    name: String,
}

/// The session field that keeps the answer for the RBL plugin of that name.
pub fn rbl_field(plugin: &str) -> String {
    format!("rbl-{plugin}-result")
}

/// Asks the list, unless the session remembers its answer. A list that fails counts as not listing the name,
/// for the whole mail: asking it again for each recipient would add up its time-outs.
pub async fn ask(cx: &mut Cx<'_>, field: &str, list: &DnsList, question: Option<Question>) -> Option<Listed> {
    if let Some(known) = recall(cx.session, field) {
        return known;
    }
    let found = match question {
        Some(question) => {
            let answer = cx.dns(&question).await;
            match list.judge(&answer, &cx.world.lists) {
                Listing::Listed(address) => {
                    Some(Listed { address: address.to_string(), name: question.name.to_string() })
                }
                Listing::NotListed | Listing::NoAnswer => None,
            }
        }
        None => None,
    };
    let kept = found.as_ref().map(|listed| format!("{} {}", listed.address, listed.name));
    cx.session.set(field, &kept.unwrap_or_default());
    found
}

/// What the session remembers: `None` if the list was not asked, `Some(None)` if the name was not on it.
pub fn recall(session: &Session, field: &str) -> Option<Option<Listed>> {
    let kept = session.result(field)?;
    let listed = kept.split_once(' ');
    Some(listed.map(|(address, name)| Listed { address: address.to_owned(), name: name.to_owned() }))
}

crate::value::words! {
    /// What to do with a client that is listed.
    pub enum Mode {
        /// Reject the mail.
        Reject = "reject",
        /// End the chain without an opinion.
        Accept = "accept",
        /// Only add the score.
        Passive = "passive",
    } else Passive
}

impl Listed {
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

    /// What the list says about the name, as the original shows it; `None` where it says nothing.
    pub async fn text(&self, cx: &mut Cx<'_>) -> Option<String> {
        let question = Question::new(&self.name, RecordType::Txt);
        match cx.dns(&question).await {
            Answer::Texts(records) => records.first().map(|strings| text_presentation(strings)),
            _ => None,
        }
    }
}
