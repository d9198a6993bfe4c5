//! SPF checks of a message: made within a request's time, and remembered in its session.
//!
//! Knows: SPF, sessions, what a plugin gets. Must not know: any plugin, the chain.

use crate::facts::spf::{NameService, ascii_domain};
use crate::network::address_of;
use crate::plugin::Cx;
use crate::session::Session;
use crate::value::{Count, NonZeroSeconds, Seconds};
use backends::Call;
use backends::dns::{Question, RecordType};
use futures_util::future::join_all;
use postfix_policy::Request;
use spf::{Limits, Outcome, Settings, Verdict};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout_at;

/// What the session remembers of the check of the sender, for every plugin that wants to know whether it
/// passes: the verdict, the client and the sender.
const SENDER_FIELD: &str = "spf-sender";

/// How long a check may take unless a plugin says otherwise; the RFC wants at least 20 seconds (4.6.4).
pub const DEFAULT_TIME_LIMIT: NonZeroSeconds = NonZeroSeconds(Seconds::of(20));

/// How checks are made.
#[derive(Clone, Debug)]
pub struct Checks {
    /// Limits, and the name of this host.
    pub settings: Settings,
    /// How long all checks of one request together may take.
    pub time_limit: Duration,
}

impl Checks {
    /// Checks within the limits of the RFC.
    pub fn new(look_ahead: bool) -> Checks {
        let settings = Settings { look_ahead, ..Settings::default() };
        Checks { settings, time_limit: DEFAULT_TIME_LIMIT.0.duration() }
    }

    /// Other limits.
    pub fn limit(&mut self, terms: Count, names: Count, void_terms: Count, time: NonZeroSeconds) {
        let count = |Count(count)| usize::try_from(count).unwrap_or(usize::MAX);
        self.settings.limits =
            Limits { terms: count(terms), names: count(names), void_terms: count(void_terms) };
        self.time_limit = time.0.duration();
    }

    /// The call of the checks of a request that begin now. The servers that are asked are those of
    /// whoever sends, so they get half of what is left: what stands behind in the chain decides in any case.
    pub fn call<'a>(&self, cx: &Cx<'a>) -> Call<'a> {
        cx.call_to_strangers().at_most(self.time_limit)
    }

    /// Makes checks, all at the same time. Each has an outcome at the deadline.
    pub async fn run(&self, cx: &mut Cx<'_>, requests: &[spf::Request], call: Call<'_>) -> Vec<Outcome> {
        let questions: Vec<_> = requests.iter().filter_map(record_of).collect();
        for question in &questions {
            cx.ahead.start(&cx.world.dns, question.clone(), call);
        }
        let mut known = Vec::new();
        for question in questions {
            let answer = cx.ahead.answer(&cx.world.dns, &question, call).await;
            known.push((question, answer));
        }
        let settings = Settings { now: cx.world.clock.now(), ..self.settings.clone() };
        let names = NameService::new(&cx.world.dns, cx.ahead.places(), known, call);
        let checks = requests.iter().map(async |request| {
            let outcome = timeout_at(call.deadline(), spf::check(&names, request, &settings)).await;
            outcome.unwrap_or_else(|_| Outcome::too_late(request))
        });
        join_all(checks).await
    }

    /// What a domain says about a failure, or else this text with its macros filled in.
    pub async fn explanation(
        &self,
        cx: &Cx<'_>,
        request: &spf::Request,
        outcome: &Outcome,
        default: &spf::MacroText,
        call: Call<'_>,
    ) -> String {
        let settings = Settings { now: cx.world.clock.now(), ..self.settings.clone() };
        let names = NameService::new(&cx.world.dns, cx.ahead.places(), Vec::new(), call);
        let explanation = timeout_at(call.deadline(), outcome.explanation(&names, request, &settings)).await;
        if let Ok(Some(explanation)) = explanation {
            return explanation;
        }
        // Mostly it needs no lookup, and then it is there without any time left.
        let explanation = outcome.default_explanation(default, &names, request, &settings);
        timeout_at(call.deadline(), explanation).await.ok().flatten().unwrap_or_default()
    }

    /// The domain of the sender, if the client may send for it. A message without a sender has none.
    pub async fn passing_domain(&self, cx: &mut Cx<'_>) -> Option<String> {
        let request = sender_request(cx.request)?;
        let passes = match recall(cx.session, &request) {
            Some(passes) => passes,
            None => {
                let call = self.call(cx);
                let outcomes = self.run(cx, std::slice::from_ref(&request), call).await;
                let verdict = outcomes.first().map_or(Verdict::TempError, |outcome| outcome.verdict);
                remember(cx, &request, verdict);
                verdict == Verdict::Pass
            }
        };
        passes.then(|| request.domain.to_ascii_lowercase())
    }
}

/// Notes the verdict about the sender of a message.
pub fn remember(cx: &mut Cx<'_>, request: &spf::Request, verdict: Verdict) {
    cx.session.set(SENDER_FIELD, &format!("{verdict} {} {}", request.client, request.subject()));
}

/// Whether the sender passes, if that is known.
fn recall(session: &Session, request: &spf::Request) -> Option<bool> {
    let (verdict, about) = session.result(SENDER_FIELD)?.split_once(' ')?;
    let is_same = about == format!("{} {}", request.client, request.subject());
    is_same.then(|| verdict == Verdict::Pass.to_string())
}

/// The client of a request, if it has an address.
pub fn client_of(request: &Request) -> Option<IpAddr> {
    address_of(request.get("client_address")?)
}

/// What the client of a request calls itself, if it does.
pub fn helo_of(request: &Request) -> Option<String> {
    let helo = request.get("helo_name").filter(|helo| !helo.is_empty())?;
    Some(ascii_domain(&String::from_utf8_lossy(helo)))
}

/// The check of the sender, if the message has one and comes from somewhere. It is the sender that Postfix
/// will pass on: who writes `victim.example!ceo` sends as `ceo@victim.example`.
pub fn sender_request(request: &Request) -> Option<spf::Request> {
    let sender = Some(request.sender()).filter(|sender| !sender.is_null())?;
    // Without a domain the text stands for one; it has no record.
    let (user, domain) = match sender.domain() {
        Some(domain) => (sender.local_part(), domain),
        None => (&b""[..], sender.address()),
    };
    let [user, domain] = [user, domain].map(String::from_utf8_lossy);
    let helo = helo_of(request).unwrap_or_default();
    Some(spf::Request::mail_from(client_of(request)?, &helo, &format!("{user}@{domain}")))
}

/// The lookup that [`Checks::passing_domain`] will begin with, unless the answer is known.
pub fn foresee_sender(request: &Request, session: &Session) -> Option<Question> {
    let check = sender_request(request)?;
    if recall(session, &check).is_some() { None } else { record_of(&check) }
}

/// The check of what the client calls itself.
pub fn helo_request(request: &Request) -> Option<spf::Request> {
    Some(spf::Request::helo(client_of(request)?, &helo_of(request)?))
}

/// The first lookup of a check.
pub fn record_of(request: &spf::Request) -> Option<Question> {
    request.record_name().map(|name| Question::new(name, RecordType::Txt))
}
