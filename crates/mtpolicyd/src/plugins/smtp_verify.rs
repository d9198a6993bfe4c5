//! `SMTPVerify`: would the mail server of an address take this mail?

use crate::connections::Module;
use crate::fields::{SCORE_FIELD, Template};
use crate::lookups::Complaints;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Notes, Plugin, Setup, Verdict};
use crate::value::{Count, Limit, Score, Seconds, Span, Switch};
use crate::world::smtp::{Judgement, Limits, Mailbox, Manner, Message, Route};
use answers::{Answers, Known};
use flights::{Client, Flights, Verifier};
use std::sync::Arc;
use tokio::time::Instant;

mod answers;
mod flights;

options! {
    /// Asks the mail server of an address, over SMTP, whether it would take the mail (call-out verification).
    ///
    /// The dialogue goes as far as RCPT and sends nothing. Whom it asks for is up to `recipient_field`: the
    /// sender of the mail, which is the default, or its recipient. An address that has no domain, such as
    /// that of the null sender, is not asked about.
    ///
    /// Only what a server says to RCPT with a code of 5xx is a permanent failure, or to MAIL about the size
    /// of the mail; so is a domain that takes no mail: one that does not exist, has no mail server, or says
    /// so (RFC 7505). Everything else is a temporary failure: servers that can't be reached, that do not
    /// answer in time, that want no mail from us at all (the greeting, EHLO, MAIL). Without an action for it
    /// a failure does nothing.
    ///
    /// Answers are remembered: that an address is taken, for all senders and mails that are not larger; that
    /// it is not, for all senders where the server says by its enhanced code that there is no such mailbox
    /// (5.1.1 and others), else for this sender. A question takes what it takes in the background, so that
    /// its answer is there when the mail comes again. A reload loses no answer, unless whom or how to ask, or
    /// for how long to remember, has changed.
    ///
    /// Some things are not asked, and count neither as success nor as failure: what the server that is being
    /// asked wants to know from us about the same address, nor a question of ours that comes back to us;
    /// domains whose mail this machine takes, domains that are addresses, and what goes beyond
    /// `max_per_minute` or waits for its turn while many servers are slow.
    ///
    /// TLS is used where a server offers it, whatever its certificate is, and left out for an hour where it
    /// does not work. With `check_tlsa` a server with TLSA records has to encrypt, with a certificate that
    /// they name (RFC 7672), or else the next one is asked.
    ///
    /// ```conf
    /// <Plugin recipient-check>
    ///   module = "SMTPVerify"
    ///   host = "mail.company.internal"
    ///   sender_field = "sender"
    ///   recipient_field = "recipient"
    ///   temp_fail_action = "defer %MSG%"
    ///   perm_fail_action = "reject %MSG%"
    /// </Plugin>
    /// <Plugin sender-check>
    ///   module = "SMTPVerify"
    ///   helo_name = "mx.example.com"
    ///   sender = "postmaster@example.com"
    ///   temp_fail_score = 1
    ///   perm_fail_score = 3
    ///   no_starttls_score = 5
    /// </Plugin>
    /// ```
    pub struct SmtpVerifyOptions {
        /// Whether the check is made.
        enabled: UserConfig<Switch> = Switch::On,
        /// The server to ask, a name or an address, instead of those of the address's domain.
        host: Option<String>,
        /// The port to ask on.
        port: Limit = Limit(25),
        /// Whether to look up if the server has TLSA records. They count if DNSSEC proves them, and the
        /// way to the server: a validating name server is needed that is believed (see `trust_ad` of the
        /// `<Dns>` block). A domain without MX records has none.
        check_tlsa: Switch = Switch::Off,
        /// Whether to look up if the address has an OPENPGPKEY record that DNSSEC proves (RFC 7929), for
        /// which the same is needed.
        check_openpgp: Switch = Switch::Off,
        /// The attribute with the address that MAIL FROM names. If it is empty, that is the null sender.
        sender_field: String = "recipient",
        /// An address for MAIL FROM instead of that of an attribute.
        sender: Option<String>,
        /// The attribute with the address that is asked about.
        recipient_field: String = "sender",
        /// The attribute with the size of the mail, which is named to servers that want to know it.
        size_field: String = "size",
        /// The answer to Postfix after a permanent failure; `%MSG%` is what the server said.
        perm_fail_action: Option<Template>,
        /// The answer to Postfix after a temporary failure; `%MSG%` is what the server said.
        temp_fail_action: Option<Template>,
        /// The answer to Postfix if the server does not offer to encrypt.
        no_starttls_action: Option<String>,
        /// Added to the score after a permanent failure, once for each address of a mail, as are all scores.
        perm_fail_score: Option<Score>,
        /// Added to the score after a temporary failure.
        temp_fail_score: Option<Score>,
        /// Added to the score if the server offers to encrypt.
        has_starttls_score: Option<Score>,
        /// Added to the score if it does not.
        no_starttls_score: Option<Score>,
        /// Added to the score if there are TLSA records, with `check_tlsa`. What can't be looked up has
        /// neither this score nor the next.
        has_tlsa_score: Option<Score>,
        /// Added to the score if there are none.
        no_tlsa_score: Option<Score>,
        /// Added to the score if there is an OPENPGPKEY record, with `check_openpgp`; here too what can't be
        /// looked up has neither.
        has_openpgp_score: Option<Score>,
        /// Added to the score if there is none.
        no_openpgp_score: Option<Score>,
        /// The name of the score, for configurations that keep several.
        score_field: String = SCORE_FIELD,
        /// The name to greet servers with. Without it the name of this machine; many servers want a full one.
        helo_name: Option<String>,
        /// Whether connections are encrypted where the server can. Without it TLSA records ask for nothing.
        starttls: Switch = Switch::On,
        /// How long a mail waits for the answer; then it is a temporary failure.
        timeout: Span = Span(Seconds(10)),
        /// How long it is remembered that a server takes mail for an address; that a mailbox is gone or full
        /// may be noticed so much later.
        positive_expire: Span = Span(Seconds(7 * 86_400)),
        /// How long a permanent failure is remembered.
        negative_expire: Span = Span(Seconds(3 * 3_600)),
        /// How long a temporary failure is remembered. It should be shorter than the pause after which a mail
        /// comes again, which is five minutes for Postfix.
        temporary_expire: Span = Span(Seconds(120)),
        /// How many answers are remembered at most.
        cache_size: Limit = Limit(100_000),
        /// The name of a `<Connection>` of any module but Ldap that keeps the answers too, for other daemons
        /// and for after a restart.
        store: Option<String>,
        /// How many questions a server is asked at once; others wait.
        max_concurrent: Limit = Limit(5),
        /// How many questions a server is asked in a minute; 0 is without limit. Without it 60, and without
        /// limit where `host` is given.
        max_per_minute: Option<Count>,
        /// Whether servers are asked that have an address of this machine, or of the loopback. They may ask
        /// back about every address, without an end; `host` is asked in any case.
        own_addresses: Switch = Switch::Off,
    }
}

/// How many questions a server that strangers choose is asked in a minute.
const MAX_PER_MINUTE: u64 = 60;

/// See the options.
pub struct SmtpVerify {
    name: String,
    notes: Notes,
    complaints: Complaints,
    options: SmtpVerifyOptions,
    sender: Sender,
    verifier: Arc<Verifier>,
}

/// Who is named in MAIL.
enum Sender {
    /// Always the same; none is the null sender.
    Fixed(Option<Mailbox>),
    /// Who an attribute names.
    Attribute,
}

impl Plugin for SmtpVerify {
    const NAME: &'static str = "SMTPVerify";
    type Options = SmtpVerifyOptions;

    fn new(options: SmtpVerifyOptions, setup: &mut Setup<'_, '_>) -> Option<SmtpVerify> {
        check_actions(&options, setup);
        let sender = match options.sender.as_deref() {
            None => Some(Sender::Attribute),
            Some("") => Some(Sender::Fixed(None)),
            Some(text) => {
                let sender = Mailbox::parse(text.as_bytes());
                if sender.is_none() {
                    refuse(setup, "sender", &format!("`{text}` is no address"));
                }
                sender.map(|sender| Sender::Fixed(Some(sender)))
            }
        };
        let port = u16::try_from(options.port.0).ok();
        if port.is_none() {
            refuse(setup, "port", &format!("{} is no port", options.port));
        }
        let helo = helo_name(&options, setup);
        let store = options.store.as_ref().map(|name| setup.store("store", name, Module::Redis));
        // All mistakes have been reported by now.
        let store = match store {
            Some(store) => Some(store?),
            None => None,
        };
        if let Some(store) = &store {
            setup.expire_hourly(store);
        }
        let manner = manner(&options, port?, helo?);
        let openpgp = options.check_openpgp == Switch::On;
        let (name, notes, complaints) = (setup.name.to_owned(), setup.notes(), Complaints::of(setup.name));
        let answers = Answers::new(setup, &options, &manner, store);
        let verifier = Arc::new(Verifier { manner, openpgp, answers, flights: Flights::default() });
        Some(SmtpVerify { name, notes, complaints, options, sender: sender?, verifier })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if self.options.enabled.get(cx.session) == Switch::Off {
            return Ok(Verdict::Next);
        }
        let Some(message) = self.message(cx) else { return Ok(Verdict::Next) };
        if (self.verifier.manner.tlsa || self.verifier.openpgp) && !cx.world.dns.can_prove() {
            let why = "check_tlsa and check_openpgp need name servers that are believed, see trust_ad";
            self.complaints.complain(why);
        }
        let address = message.recipient.to_string();
        let ip = cx.request.get("client_address").and_then(|ip| std::str::from_utf8(ip).ok());
        let helo = cx.request.get("helo_name").unwrap_or_default();
        let client = Client {
            address: ip.and_then(|ip| ip.parse().ok()),
            has_our_name: helo.eq_ignore_ascii_case(self.verifier.manner.helo.as_bytes()),
        };
        let until = cx.deadline.backends.min(Instant::now() + self.options.timeout.0.duration());
        let known = self.verifier.ask(message, client, cx.world, until).await;
        match &known.findings.judgement {
            Judgement::Accepted => self.notes.note(format_args!("{address} is taken")),
            Judgement::Refused(refusal) => {
                let how = if refusal.is_permanent { "permanent" } else { "temporary" };
                self.notes.note(format_args!("{address}: {how} failure: {}", refusal.message));
            }
            Judgement::Unknown(why) => self.notes.note(format_args!("{address} is not verified: {why}")),
        }
        self.add_scores(&address, &known, cx);
        Ok(self.action(&known).map_or(Verdict::Next, Verdict::Stop))
    }
}

impl SmtpVerify {
    /// What to ask, or `None` where there is no address to ask about.
    fn message(&self, cx: &Cx<'_>) -> Option<Message> {
        let field = &self.options.recipient_field;
        let address = cx.request.get(field).unwrap_or_default();
        let Some(recipient) = Mailbox::parse(address) else {
            let address = String::from_utf8_lossy(address);
            self.notes.note(format_args!("{field} `{address}` is no address that can be asked about"));
            return None;
        };
        let sender = match &self.sender {
            Sender::Fixed(sender) => sender.clone(),
            Sender::Attribute => cx.request.get(&self.options.sender_field).and_then(Mailbox::parse),
        };
        let size = cx.request.get(&self.options.size_field);
        let size = size.and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
        Some(Message { sender, recipient, size: size.filter(|size| *size > 0) })
    }

    /// Adds the scores, unless this mail has them for the address.
    fn add_scores(&self, address: &str, known: &Known, cx: &mut Cx<'_>) {
        let options = &self.options;
        let scores_of = |found: Option<bool>, has: &Option<Score>, no: &Option<Score>| {
            found.and_then(|found| if found { has.clone() } else { no.clone() })
        };
        let findings = &known.findings;
        let failed = match &findings.judgement {
            Judgement::Refused(refusal) => {
                scores_of(Some(refusal.is_permanent), &options.perm_fail_score, &options.temp_fail_score)
            }
            Judgement::Accepted | Judgement::Unknown(_) => None,
        };
        let scores = [
            (
                "-starttls",
                scores_of(findings.starttls, &options.has_starttls_score, &options.no_starttls_score),
            ),
            ("-tlsa", scores_of(findings.tlsa, &options.has_tlsa_score, &options.no_tlsa_score)),
            ("-openpgp", scores_of(known.openpgp, &options.has_openpgp_score, &options.no_openpgp_score)),
            ("", failed),
        ];
        for (what, score) in scores {
            if let Some(score) = score
                && cx.session.first_time(&format!("verify-{address}-{}{what}", self.name))
            {
                let who = format!("{}-{address}{what}", self.name);
                cx.session.add_score(&options.score_field, &who, &score);
            }
        }
    }

    fn action(&self, known: &Known) -> Option<String> {
        let failed = match &known.findings.judgement {
            Judgement::Refused(refusal) => {
                let (permanent, temporary) = (&self.options.perm_fail_action, &self.options.temp_fail_action);
                let action = if refusal.is_permanent { permanent } else { temporary };
                action.as_ref().map(|action| action.fill(&[("%MSG%", &refusal.message)]))
            }
            Judgement::Accepted | Judgement::Unknown(_) => None,
        };
        let unencrypted =
            || self.options.no_starttls_action.clone().filter(|_| known.findings.starttls == Some(false));
        failed.or_else(unencrypted)
    }
}

fn manner(options: &SmtpVerifyOptions, port: u16, helo: String) -> Manner {
    let own_addresses = options.own_addresses == Switch::On;
    let host = options.host.as_deref();
    let by_default = if host.is_some() { None } else { Some(MAX_PER_MINUTE) };
    let a_minute = match options.max_per_minute {
        None => by_default,
        Some(Count(0)) => None,
        Some(Count(count)) => Some(count),
    };
    Manner {
        route: host.map_or(Route::Exchanges { own_addresses }, |host| Route::Host(host.into())),
        port,
        helo: helo.into(),
        encrypts: options.starttls == Switch::On,
        tlsa: options.check_tlsa == Switch::On,
        limits: Limits { at_once: options.max_concurrent.0, a_minute },
    }
}

/// The name to greet with, or `None` after the mistake was reported.
fn helo_name(options: &SmtpVerifyOptions, setup: &Setup<'_, '_>) -> Option<String> {
    let Some(name) = &options.helo_name else {
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        return Some(own.unwrap_or_else(|| "localhost".to_owned()));
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        refuse(setup, "helo_name", &format!("`{name}` is no name to greet with"));
    }
    is_name.then(|| name.clone())
}

fn refuse(setup: &Setup<'_, '_>, option: &str, why: &str) {
    setup.section.report().error(setup.section.span_of(option), format!("{option}: {why}"), None);
}

/// Warns of actions that Postfix would misread, and of a plugin that has neither actions nor scores.
fn check_actions(options: &SmtpVerifyOptions, setup: &Setup<'_, '_>) {
    let failed =
        [("perm_fail_action", &options.perm_fail_action), ("temp_fail_action", &options.temp_fail_action)];
    for (option, action) in failed {
        if let Some(action) = action {
            setup.check_action(option, &action.to_string());
        }
    }
    if let Some(action) = &options.no_starttls_action {
        setup.check_action("no_starttls_action", action);
    }
    let scores = [
        &options.perm_fail_score,
        &options.temp_fail_score,
        &options.has_starttls_score,
        &options.no_starttls_score,
        &options.has_tlsa_score,
        &options.no_tlsa_score,
        &options.has_openpgp_score,
        &options.no_openpgp_score,
    ];
    let acts = failed.iter().any(|(_, action)| action.is_some()) || options.no_starttls_action.is_some();
    if !acts && scores.iter().all(|score| score.is_none()) {
        setup.has_no_effect("action and no score");
    }
}
