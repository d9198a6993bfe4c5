//! `SPF`: may the client send mail for the domain of the sender, and call itself what it does?

mod exemption;
mod finding;
mod header;
#[cfg(test)]
mod tests;

use crate::fields::Template;
use crate::log::messages::findings;
use crate::mode::{FailMode, Mode, PassMode};
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Header, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::sender_policy::{
    Checks, DEFAULT_TIME_LIMIT, client_of, helo_of, helo_request, record_of, remember, sender_request,
};
use crate::session::Session;
use crate::value::{Count, NonZeroSeconds, Score, Switch, words};
use backends::dns::Question;
use backends::{Call, OptionError};
use exemption::{Domains, Exemption, HeloNames, Networks};
use finding::Finding;
use header::HeaderKind;
use postfix_policy::Request;
use spf::{Identity, MacroText, Verdict as Spf7208};
use std::net::IpAddr;

options! {
    /// Checks the sender and the HELO name of a message with SPF (Sender Policy Framework, RFC 7208).
    ///
    /// The HELO name is checked first. If the client may not use it, this has the same consequences as if it
    /// may not use its sender; if it may, this has none. Then the sender is checked. For a message without a
    /// sender only the HELO name is checked, and then `pass_mode` and `pass_score` apply to it. Without
    /// either, nothing is checked. Clients on this machine are not checked.
    ///
    /// The results `none` and `neutral` have no consequences. The plugin adds a score only once per message,
    /// for the first result that has one. The results hold for all recipients of a message.
    ///
    /// The lookups of a domain's record are made in parallel, and those of an included record as soon as it
    /// has arrived; they count against the limits in the order of the record. With `lookahead = off` they are
    /// made one by one.
    ///
    /// ```conf
    /// <Plugin spf>
    ///   module = "SPF"
    ///   pass_mode = "passive"
    ///   pass_score = -10
    ///   fail_mode = "reject"
    /// </Plugin>
    /// ```
    ///
    /// A forwarder that does not rewrite senders, and a header for the filters behind Postfix:
    ///
    /// ```conf
    /// <Plugin spf>
    ///   module = "SPF"
    ///   whitelist_spf_of = "forwarder.example"
    ///   softfail_score = 3
    ///   header = "Received-SPF"
    ///   hostname = "mx.example.org"
    /// </Plugin>
    /// ```
    pub struct SpfOptions {
        + enabled,
        /// What to do if the client is authorized to send for the sender (`pass`): `passive` adds the score,
        /// `accept` and `dunno` also end the chain with `dunno`.
        pass_mode: UserConfig<PassMode> = PassMode::Passive,
        /// Added to the score if the client is authorized to send for the sender; usually negative.
        pass_score: Option<Score>,
        /// What to do if the client is probably not authorized (`softfail`): `passive`, `accept` and `dunno`
        /// as above, `reject` rejects the message.
        softfail_mode: UserConfig<Mode> = Mode::Passive,
        /// Added to the score for `softfail`.
        softfail_score: Option<Score>,
        /// What to do if the client is not authorized (`fail`): `reject` the message, or only add the score
        /// (`passive`).
        fail_mode: UserConfig<FailMode> = FailMode::Reject,
        /// Added to the score for `fail`.
        fail_score: Option<Score>,
        /// What to do if the name service does not answer in time (`temperror`): `passive` adds the score,
        /// `dunno` also ends the chain, `defer` and `reject` answer accordingly.
        temperror_mode: ErrorMode = ErrorMode::Defer,
        /// Added to the score if the name service does not answer.
        temperror_score: Option<Score>,
        /// What to do if the records of the domain can't be evaluated (`permerror`): syntax errors, two
        /// records, exceeded limits. The values are those of `temperror_mode`.
        permerror_mode: ErrorMode = ErrorMode::Reject,
        /// Added to the score if the domain's records can't be evaluated.
        permerror_score: Option<Score>,
        score_field: ScoreField,
        /// The text of a rejection for `fail` and `softfail`. `%LOCAL_EXPL%` is the reason in our words;
        /// `%AUTH_EXPL%` is what the domain says about a `fail` (its `exp=`), which is looked up only where
        /// it is used, or else `default_authority_explanation`. Only the first occurrence of each
        /// placeholder is replaced. The text of a domain is reduced to one line of ASCII and cut after 400
        /// characters.
        reject_message: Template = "SPF validation failed: %LOCAL_EXPL%",
        /// The explanation to use for a domain without one, with the macros of RFC 7208, section 7.
        default_authority_explanation: String = "See http://www.%{d}/why/id=%{S};ip=%{I};r=%{R}".to_owned(),
        /// The name of this host, for the macro `%{r}` in explanations and for `header`. Without it, the
        /// macro is `unknown`.
        hostname: String = String::new(),
        /// Clients that are not checked: addresses and networks (`192.0.2.0/24`, `2001:db8::/32`), separated
        /// by commas or spaces.
        whitelist: Networks = Networks::default(),
        /// HELO names of hosts for which failures and errors have no consequences, separated by commas or
        /// spaces: `mail.example.org` is that name alone, `.example.org` the domain and all names below it.
        /// Anybody can use such a name, so it counts only for a client that SPF authorizes for it or, if the
        /// name has no SPF record, for one of its addresses. If the name service does not answer, the result
        /// is `temperror` instead of a failure.
        whitelist_helo: HeloNames = HeloNames::default(),
        /// Domains whose mail hosts, according to the SPF records of those domains, may send for everybody:
        /// forwarders that keep the sender. For such a client, failures and errors have no consequences.
        /// Separated by commas or spaces. The records are looked up only after a failure or an error; if that
        /// is not possible now, the result is `temperror` instead.
        whitelist_spf_of: Domains = Domains::default(),
        /// Whether to check the HELO name. Without it, a message without a sender is not checked.
        check_helo: Switch = Switch::On,
        /// A header with the result to add to the message, `Received-SPF` (RFC 7208) or
        /// `Authentication-Results` (RFC 8601).
        ///
        /// An answer to Postfix is one action, so the header waits for the end of the chain: the message gets
        /// it if no plugin has decided anything, including `dunno`, and Postfix goes on as after `dunno`. If
        /// the chain answers otherwise, the next recipient of the message gets it, if there is one. With
        /// AddScoreHeader in the same chain, only one of the two headers can be added at a time; to get both,
        /// put one into a `VirtualHost` and a `check_policy_service` of its own. A message gets the header
        /// once if there is a `SessionCache`, otherwise once for each recipient. `Received-SPF` is about the
        /// sender, or about HELO if there is none; `Authentication-Results` has both. Without a check there
        /// is no header.
        header: Option<HeaderKind>,
        /// Maximum number of terms that need a DNS lookup, in the record of a domain and all records that it
        /// includes. If it is exceeded, the result is `permerror`; the same is true of the next two options.
        max_dns_interactive_terms: Count = Count(10),
        /// Maximum number of hosts in the MX records of a term `mx`. For `ptr` and `%{p}`, further names of
        /// the client are ignored instead.
        max_name_lookups_per_term: Count = Count(10),
        /// Maximum number of terms whose DNS lookup finds nothing.
        max_void_dns_lookups: Count = Count(2),
        /// Maximum duration of the checks of a message; after that the result is `temperror`. Since the name
        /// servers are the sender's, the checks never take more than half of the time that the request has
        /// left: the plugins after this one run in any case.
        time_limit: NonZeroSeconds = DEFAULT_TIME_LIMIT,
    }
    rules {
        Requires(header, hostname),
    }
}

words! {
    /// What to do where there is no result.
    pub enum ErrorMode {
        /// Add the score.
        Passive = "passive",
        /// End the chain.
        Dunno = "dunno",
        /// Have the client try again.
        Defer = "defer",
        /// Reject the message.
        Reject = "reject",
    }
}

pub struct Spf {
    options: SpfOptions,
    checks: Checks,
    default_explanation: MacroText,
    /// The marks of the results in the session, of the HELO name and of the sender.
    results: [String; 2],
}

impl Plugin for Spf {
    const NAME: &'static str = "SPF";
    type Options = SpfOptions;

    fn new(options: SpfOptions, setup: &mut Setup<'_, '_>) -> Option<Spf> {
        let mut checks = Checks::new(setup.env.lookahead);
        checks.limit(
            options.max_dns_interactive_terms,
            options.max_name_lookups_per_term,
            options.max_void_dns_lookups,
            options.time_limit,
        );
        checks.settings.receiver = Some(options.hostname.clone()).filter(|name| !name.is_empty());
        let default_explanation = MacroText::explanation(&options.default_authority_explanation)
            .map_err(|error| {
                setup.section.refuse_option(OptionError::new("default_authority_explanation", error));
            })
            .ok();
        if options.header.is_some() && !header::is_host_name(&options.hostname) {
            return setup.refuse(OptionError::new("hostname", "for a header it has to be a host name"));
        }
        let results = ["helo", "mfrom"].map(|scope| format!("{}-{scope}-result", setup.name));
        let default_explanation = default_explanation?;
        Some(Spf { options, checks, default_explanation, results })
    }

    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        if self.client(request).is_none() {
            return Vec::new();
        }
        let checks = self.requests(request).into_iter();
        let unknown = checks.filter(|check| session.result(self.result_field(check.identity)).is_none());
        unknown.filter_map(|check| record_of(&check)).collect()
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if self.client(cx.request).is_none() {
            cx.note(findings::spf_exempt());
            return Ok(Verdict::Next);
        }
        let requests = self.requests(cx.request);
        let call = self.checks.call(cx);
        let findings = self.findings(&requests, cx, call).await;
        let (mut verdict, mut exempt) = (Verdict::Next, None);
        for (n, (request, finding)) in requests.iter().zip(&findings).enumerate() {
            cx.note(findings::spf_verdict(scope(request), finding.verdict, &finding.text));
            let is_last = n + 1 == findings.len();
            if is_blamed(finding.verdict) && exempt.is_none() {
                exempt = Some(self.is_exempt(&requests, &findings, cx, call).await);
            }
            verdict = match exempt {
                Some(Exemption::Yes) => {
                    cx.note(findings::spf_forwarder());
                    break;
                }
                // It may be one of those that nothing is held against.
                Some(Exemption::Unknown) if is_blamed(finding.verdict) => {
                    let undecided = finding.undecided("the whitelists can't be looked up");
                    self.judge(request, &undecided, is_last, cx)
                }
                _ => self.judge(request, finding, is_last, cx),
            };
            if verdict != Verdict::Next {
                break;
            }
        }
        if let Some(kind) = self.options.header
            && let Some(text) = kind.text(&self.options.hostname, &requests, &findings)
        {
            let (plugin, number) = (cx.name().clone(), cx.notes.number);
            cx.add_header(Header { mark: format!("{plugin}-header"), plugin, number, text });
        }
        Ok(verdict)
    }
}

impl Spf {
    /// The client, if it is to be checked.
    fn client(&self, request: &Request) -> Option<IpAddr> {
        client_of(request).filter(|client| !client.is_loopback() && !self.options.whitelist.contain(*client))
    }

    /// What is checked, in this order.
    fn requests(&self, request: &Request) -> Vec<spf::Request> {
        let helo = helo_request(request).filter(|_| self.options.check_helo == Switch::On);
        helo.into_iter().chain(sender_request(request)).collect()
    }

    fn result_field(&self, identity: Identity) -> &str {
        let [helo, sender] = &self.results;
        if identity == Identity::Helo { helo } else { sender }
    }

    /// What is known of each, or is found out now.
    async fn findings(&self, requests: &[spf::Request], cx: &mut Cx<'_>, call: Call<'_>) -> Vec<Finding> {
        let known = |request: &spf::Request| {
            Finding::recall(cx.session.result(self.result_field(request.identity))?, request)
        };
        let known: Option<Vec<_>> = requests.iter().map(known).collect();
        if let Some(findings) = known {
            return findings;
        }
        let outcomes = self.checks.run(cx, requests, call).await;
        let mut findings = Vec::new();
        for (request, outcome) in requests.iter().zip(outcomes) {
            let mut finding = Finding::of(request, &outcome);
            if outcome.verdict == Spf7208::Fail && self.options.reject_message.has("%AUTH_EXPL%") {
                let default = &self.default_explanation;
                finding.explanation = self.checks.explanation(cx, request, &outcome, default, call).await;
            }
            cx.session.set(self.result_field(request.identity), &finding.kept(request));
            if request.identity == Identity::MailFrom {
                remember(cx, request, finding.verdict);
            }
            findings.push(finding);
        }
        findings
    }

    /// What comes of a finding. To use a HELO name rightly is worth nothing unless there is nothing else.
    fn judge(&self, request: &spf::Request, finding: &Finding, is_last: bool, cx: &mut Cx<'_>) -> Verdict {
        let options = &self.options;
        match finding.verdict {
            Spf7208::Pass if is_last => {
                self.score(options.pass_score.as_ref(), cx);
                options.pass_mode.get(cx.session).verdict()
            }
            Spf7208::SoftFail => {
                self.score(options.softfail_score.as_ref(), cx);
                options.softfail_mode.get(cx.session).verdict(|| self.rejection(finding))
            }
            Spf7208::Fail => {
                self.score(options.fail_score.as_ref(), cx);
                options.fail_mode.get(cx.session).verdict(|| self.rejection(finding))
            }
            Spf7208::TempError => {
                self.score(options.temperror_score.as_ref(), cx);
                error_verdict(options.temperror_mode, request, finding)
            }
            Spf7208::PermError => {
                self.score(options.permerror_score.as_ref(), cx);
                error_verdict(options.permerror_mode, request, finding)
            }
            Spf7208::None | Spf7208::Neutral | Spf7208::Pass => Verdict::Next,
        }
    }

    fn score(&self, score: Option<&Score>, cx: &mut Cx<'_>) {
        if let Some(score) = score {
            self.options.score_field.add_once(cx.session, score);
        }
    }

    fn rejection(&self, finding: &Finding) -> String {
        let values = [("%LOCAL_EXPL%", &*finding.text), ("%AUTH_EXPL%", &*finding.explanation)];
        self.options.reject_message.fill(&values)
    }

    /// Whether failures of the client have no consequences.
    async fn is_exempt(
        &self,
        requests: &[spf::Request],
        findings: &[Finding],
        cx: &mut Cx<'_>,
        call: Call<'_>,
    ) -> Exemption {
        let mut exemption = Exemption::No;
        if let Some(helo) = helo_of(cx.request).filter(|helo| self.options.whitelist_helo.contain(helo)) {
            let checked =
                requests.iter().zip(findings).find(|(request, _)| request.identity == Identity::Helo);
            let verdict = checked.map(|(_, finding)| finding.verdict);
            exemption = exemption::may_use_name(&helo, verdict, &self.checks, cx, call).await;
        }
        if exemption == Exemption::Yes {
            return exemption;
        }
        let domains = &self.options.whitelist_spf_of;
        exemption.or(exemption::sends_for_any(domains, &self.checks, cx, call).await)
    }
}

/// Whether a verdict speaks against the client.
fn is_blamed(verdict: Spf7208) -> bool {
    matches!(verdict, Spf7208::Fail | Spf7208::SoftFail | Spf7208::TempError | Spf7208::PermError)
}

/// What is checked, by the word of the original.
fn scope(request: &spf::Request) -> &'static str {
    match request.identity {
        Identity::Helo => "helo",
        Identity::MailFrom => "mfrom",
    }
}

fn error_verdict(mode: ErrorMode, request: &spf::Request, finding: &Finding) -> Verdict {
    match mode {
        ErrorMode::Passive => Verdict::Next,
        ErrorMode::Dunno => Verdict::dunno(),
        ErrorMode::Defer | ErrorMode::Reject => {
            Verdict::Stop(format!("{mode} spf {} check failed: {}", scope(request), finding.text))
        }
    }
}
