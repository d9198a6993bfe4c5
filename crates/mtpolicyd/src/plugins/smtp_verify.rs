//! `SMTPVerify`: would the mail server of an address take this message?

use crate::connections::{StoreKind, StoreRef};
use crate::fields::Template;
use crate::log::messages::findings;
use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::session::part_of_name;
use crate::sql_query::Complaints;
use crate::value::{Count, Limit, NonZeroSeconds, Score, Seconds, Size, Switch, ZeroIsNone};
use answers::{Answers, Known};
use backends::OptionError;
use backends::smtp::{Destinations, Judgement, Limits, Mailbox, Message, ProbeSettings, Route, Rules};
use std::sync::Arc;
use verifier::{Client, InFlight, Verifier, not_asked};

mod answers;
mod verifier;

options! {
    /// Asks the mail server of an address, over SMTP, whether it would accept the message (call-out
    /// verification).
    ///
    /// The dialogue goes as far as RCPT; no message is sent. `recipient_field` decides which address to
    /// verify: the sender of the message, which is the default, or its recipient. An address without a
    /// domain, such as the null sender, is not verified.
    ///
    /// Three cases are a permanent failure: the server answers RCPT with a code of 5xx; it refuses the size
    /// of the message in its reply to MAIL; or the domain accepts no mail at all, because it does not exist,
    /// has no mail server, has only mail servers without a usable address (the loopback, `0.0.0.0`,
    /// multicast, broadcast), or declares it by a null MX record (RFC 7505). A domain that mail can't be sent
    /// to from the Internet is such a domain: an address literal with an address that is not public
    /// (`user@[10.0.0.1]`, unless `allow_private` is `on`), an address without brackets (`user@192.0.2.1`),
    /// and what is neither a name nor an address (`user@1.2.3`, `user@example.com:25`). Everything else is a
    /// temporary failure: an address literal with a public address, which is not asked; a server that is
    /// unreachable, does not answer in time or refuses every question of ours (in its greeting, at EHLO or at
    /// MAIL); a reply to RCPT that objects to us rather than to the address,
    /// which is one with the enhanced code 5.1.7, 5.1.8, 5.3.2, 5.3.3, 5.3.5, 5.4.x, 5.5.x or 5.7.x, or one
    /// without enhanced code and with the code 500 to 504, 530, 534, 535 or 538; an address in a form that
    /// no server can be asked about; and a question that is not sent because of `max_per_minute` or because
    /// too many others are in progress. A failure has no effect unless there is an action or a score for it.
    ///
    /// The plugin waits for at most half of the time that is left for the request, so that the plugins after
    /// it have the other half. An answer that has not come by then is a temporary failure.
    ///
    /// Senders choose which servers are asked, by the domain that they write. Therefore only servers with a
    /// public unicast address are asked (the IANA registries of special-purpose addresses decide). A domain
    /// whose servers have private, link-local or other special addresses is a temporary failure, unless
    /// `allow_private` is `on`. The server that `host` names is asked whatever its address is.
    ///
    /// Answers are remembered. An address that was accepted counts as accepted for every sender, for
    /// messages that are not larger than the one asked about. An address that was refused counts as refused
    /// for every sender if the enhanced code says that the mailbox does not exist (5.1.1 and similar),
    /// otherwise for the same sender only. A dialogue that takes longer than the request goes on in the
    /// background, so that its answer is known when the message is sent again. A reload keeps the answers,
    /// unless it changes which servers are asked, how they are asked, or how long answers are remembered.
    ///
    /// Some addresses are not verified, and this counts neither as a success nor as a failure: addresses in
    /// a domain whose mail server is this machine; address literals with a public address of this machine
    /// (with `own_addresses`, any address of it); and, so that two servers which verify each other's senders
    /// don't do so endlessly, an address that the client asks us to accept while we are asking that client
    /// about the same address, or one in a question of our own that has come back to us.
    ///
    /// TLS is used if the server offers it; its certificate is not verified. If TLS fails with a server, or
    /// the server closes the connection during STARTTLS, that server is asked without TLS for an hour. With
    /// `check_tlsa` a server that has TLSA records must offer TLS with a certificate that matches them (RFC
    /// 7672); otherwise the next server of the domain is asked.
    ///
    /// In `%SCORE_DETAIL%`, which contains the address, characters with a special meaning there are escaped:
    /// `,` becomes `%2C`, `=` becomes `%3D`, and so on.
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
        + enabled,
        /// The server to ask, a name or an address, instead of the servers of the address's domain. The name
        /// is looked up by the system, including `/etc/hosts`.
        host: Option<String>,
        /// The port to connect to.
        port: Limit = Limit(25),
        /// Whether to look up TLSA records of the server. They count only if DNSSEC has validated them and
        /// the MX and address records that lead to the server. This needs a validating name server that the
        /// daemon trusts (see `trust_ad` of the `<Dns>` block). A domain without MX records counts as having
        /// no TLSA records.
        check_tlsa: Switch = Switch::Off,
        /// Whether to look up an OPENPGPKEY record of the address (RFC 7929). It counts only if DNSSEC has
        /// validated it, which needs the same name server as `check_tlsa`.
        check_openpgp: Switch = Switch::Off,
        /// The attribute with the address for MAIL FROM. If it is empty, the null sender is used.
        sender_field: String = "recipient",
        /// A fixed address for MAIL FROM instead of an attribute.
        sender: Option<String>,
        /// The attribute with the address to verify.
        recipient_field: String = "sender",
        /// The attribute with the size of the message. It is passed on to servers that support the SIZE
        /// extension.
        size_field: String = "size",
        /// The answer to Postfix after a permanent failure. `%MSG%` is the reason: the server's own text if
        /// `host` names the server or if it is on this machine; otherwise a fixed text with the server's
        /// enhanced code, and the server's own text is only logged.
        perm_fail_action: Option<Template>,
        /// The answer to Postfix after a temporary failure; `%MSG%` as above.
        temp_fail_action: Option<Template>,
        /// The answer to Postfix if the server does not offer STARTTLS.
        no_starttls_action: Option<String>,
        /// Added to the score after a permanent failure. This and the following scores are added once for
        /// each address of a message.
        perm_fail_score: Option<Score>,
        /// Added to the score after a temporary failure.
        temp_fail_score: Option<Score>,
        /// Added to the score if the server offers STARTTLS.
        has_starttls_score: Option<Score>,
        /// Added to the score if it does not.
        no_starttls_score: Option<Score>,
        /// Added to the score if the server has TLSA records. If the lookup fails,
        /// neither this score nor `no_tlsa_score` is added.
        has_tlsa_score: Option<Score>,
        /// Added to the score if there are none.
        no_tlsa_score: Option<Score>,
        /// Added to the score if the address has an OPENPGPKEY record. If the lookup fails,
        /// neither this score nor `no_openpgp_score` is added.
        has_openpgp_score: Option<Score>,
        /// Added to the score if there is none.
        no_openpgp_score: Option<Score>,
        score_field: ScoreField,
        /// The name for EHLO. The default is the name of this machine; many servers insist on a fully
        /// qualified one.
        helo_name: Option<String>,
        /// Whether to use TLS if the server offers it. With `off`, TLSA records do not make it mandatory
        /// either.
        starttls: Switch = Switch::On,
        /// How long a request waits for the answer; then the result is a temporary failure. It never waits
        /// for more than half of the time that the request has left.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(10)),
        /// How long it is remembered that a server accepts an address. A mailbox that was deleted or is full
        /// may go unnoticed for that long.
        positive_expire: NonZeroSeconds = NonZeroSeconds(Seconds::of(7 * 86_400)),
        /// How long to cache a permanent failure.
        negative_expire: NonZeroSeconds = NonZeroSeconds(Seconds::of(3 * 3_600)),
        /// How long a temporary failure is remembered. It should be shorter than the time after which
        /// senders retry, which is five minutes for Postfix.
        temporary_expire: NonZeroSeconds = NonZeroSeconds(Seconds::of(120)),
        /// Maximum number of cached answers.
        cache_size: Limit = Limit(100_000),
        /// Maximum amount of memory for cached answers; beyond it the least recently used are evicted.
        cache_memory: Size = Size::mebibytes(32),
        /// The name of a `<Connection>` (of any module but Ldap) in which answers are stored as well, so
        /// that several daemons share them and they survive a restart.
        store: Option<String>,
        /// Maximum number of addresses that one server is asked about at the same time; further ones wait.
        max_concurrent: Limit = Limit(5),
        /// Maximum number of addresses that one server is asked about per minute; 0 means no limit. The
        /// default is 60, or no limit if `host` is set.
        max_per_minute: Option<ZeroIsNone<Count>>,
        /// Whether to ask mail servers of a domain that have an address of this machine or of the loopback.
        /// Such a server may in turn ask this daemon about the address, and so on endlessly. The server that
        /// `host` names is asked in any case. If the daemon can't find out the addresses of this machine, it
        /// asks no mail server of a domain: every address is a temporary failure.
        own_addresses: Switch = Switch::Off,
        /// Whether to ask mail servers of a domain that have private, link-local or other non-public
        /// addresses. With `on`, anybody who sends a message can make the daemon connect to `port` of any
        /// machine in your network.
        allow_private: Switch = Switch::Off,
    }
    rules {
        Overrides(sender, sender_field),
        OnlyWith(has_tlsa_score, check_tlsa),
        OnlyWith(no_tlsa_score, check_tlsa),
        OnlyWith(has_openpgp_score, check_openpgp),
        OnlyWith(no_openpgp_score, check_openpgp),
    }
}

/// Maximum number of queries per minute to a server that strangers choose.
const MAX_PER_MINUTE: u64 = 60;

/// How many characters of an address that can't be verified to log.
const MAX_SHOWN: usize = 320;

pub struct SmtpVerify {
    complaints: Complaints,
    options: SmtpVerifyOptions,
    sender: Sender,
    verifier: Arc<Verifier>,
}

/// The sender for MAIL FROM.
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
        if let Err(missing) = Destinations::check_built() {
            return setup.refuse(missing);
        }
        check_actions(&options, setup);
        let sender = match options.sender.as_deref() {
            None => Some(Sender::Attribute),
            Some("") => Some(Sender::Fixed(None)),
            Some(text) => {
                let sender = Mailbox::parse(text.as_bytes());
                if sender.is_none() {
                    setup
                        .section
                        .refuse_option(OptionError::new("sender", format!("`{text}` is not an address")));
                }
                sender.map(|sender| Sender::Fixed(Some(sender)))
            }
        };
        let port = u16::try_from(options.port.0).ok();
        if port.is_none() {
            setup.section.refuse_option(OptionError::new("port", format!("{} is not a port", options.port)));
        }
        let helo = helo_name(&options, setup);
        let store = options.store.as_ref();
        let store = store.map(|name| setup.store(StoreRef::any("store", name, StoreKind::Redis)));
        // All mistakes have been reported by now.
        let store = match store {
            Some(store) => Some(store?),
            None => None,
        };
        if let Some(store) = &store {
            setup.expire_hourly(store);
        }
        let probing = probing(&options, port?, helo?);
        let openpgp = options.check_openpgp == Switch::On;
        let complaints = Complaints::of(setup.name);
        let answers = Answers::new(setup, &options, &probing, store);
        let verifier = Arc::new(Verifier { probing, openpgp, answers, in_flight: InFlight::default() });
        Some(SmtpVerify { complaints, options, sender: sender?, verifier })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        cx.session.depend_on(&self.options.recipient_field);
        let address = cx.request.address(&self.options.recipient_field).unwrap_or_default();
        let (address, known) = match Mailbox::parse(address) {
            Some(recipient) => {
                let address = recipient.to_string();
                (address, self.ask_about(recipient, cx).await)
            }
            // Postfix completes it, so its server is this machine.
            None if !cx.request.get(&self.options.recipient_field).is_some_and(|raw| raw.contains(&b'@')) => {
                let (field, address) = (&self.options.recipient_field, String::from_utf8_lossy(address));
                cx.note(findings::no_domain(field, address));
                return Ok(Verdict::Next);
            }
            None => {
                let address = String::from_utf8_lossy(address).chars().take(MAX_SHOWN).collect();
                (address, not_asked("the form of the address is not supported"))
            }
        };
        match &known.findings.judgement {
            Judgement::Accepted => cx.note(findings::address_accepted(&address)),
            Judgement::Refused(refusal) => {
                let how = if refusal.is_permanent { "permanent" } else { "temporary" };
                let said = refusal.said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default();
                cx.note(findings::address_refused(&address, how, &refusal.message, said));
            }
            Judgement::NotAsked(why) => cx.note(findings::address_not_asked(&address, why)),
            Judgement::Unknown(why) => cx.note(findings::address_unknown(&address, why)),
        }
        self.add_scores(&address, &known, cx);
        Ok(self.action(&known).map_or(Verdict::Next, Verdict::Stop))
    }
}

impl SmtpVerify {
    /// What is known of an address, or found out in time.
    async fn ask_about(&self, recipient: Mailbox, cx: &Cx<'_>) -> Known {
        if (self.verifier.probing.tlsa || self.verifier.openpgp) && !cx.world.dns.can_prove() {
            let why = "check_tlsa and check_openpgp need name servers that are believed, see trust_ad";
            self.complaints.complain(why);
        }
        let helo = cx.request.get("helo_name").unwrap_or_default();
        let client = Client {
            address: cx.request.client_ip(),
            has_our_name: helo.eq_ignore_ascii_case(self.verifier.probing.helo.as_bytes()),
        };
        let call = cx.call_to_strangers().at_most(self.options.timeout.0.duration());
        self.verifier.ask(self.message(recipient, cx), client, cx.world, call).await
    }

    /// What to ask.
    fn message(&self, recipient: Mailbox, cx: &Cx<'_>) -> Message {
        let sender = match &self.sender {
            Sender::Fixed(sender) => sender.clone(),
            Sender::Attribute => cx.request.address(&self.options.sender_field).and_then(Mailbox::parse),
        };
        let size = cx.request.get(&self.options.size_field);
        let size = size.and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
        Message { sender, recipient, size: size.filter(|size| *size > 0) }
    }

    /// Adds the scores, unless this message has them for the address.
    fn add_scores(&self, address: &str, known: &Known, cx: &mut Cx<'_>) {
        let options = &self.options;
        let scores_of = |found: Option<bool>, has: &Option<Score>, no: &Option<Score>| {
            found.and_then(|found| if found { has.clone() } else { no.clone() })
        };
        let findings = &known.findings;
        let failed = known.failure().and_then(|(is_permanent, _)| {
            scores_of(Some(is_permanent), &options.perm_fail_score, &options.temp_fail_score)
        });
        let address = part_of_name(address).to_string();
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
                && cx.session.first_time(&format!("verify-{address}-{}{what}", cx.name()))
            {
                let who = format!("{}-{address}{what}", cx.name());
                cx.session.add_score(options.score_field.name(), &who, &score);
            }
        }
    }

    fn action(&self, known: &Known) -> Option<String> {
        let (permanent, temporary) = (&self.options.perm_fail_action, &self.options.temp_fail_action);
        let failed = known.failure().and_then(|(is_permanent, message)| {
            let action = if is_permanent { permanent } else { temporary };
            action.as_ref().map(|action| action.fill(&[("%MSG%", message)]))
        });
        let unencrypted =
            || self.options.no_starttls_action.clone().filter(|_| known.findings.starttls == Some(false));
        failed.or_else(unencrypted)
    }
}

fn probing(options: &SmtpVerifyOptions, port: u16, helo: String) -> ProbeSettings {
    let rules = Rules {
        own_addresses: options.own_addresses == Switch::On,
        allow_private: options.allow_private == Switch::On,
    };
    let host = options.host.as_deref();
    let by_default = if host.is_some() { None } else { Some(MAX_PER_MINUTE) };
    let a_minute = match options.max_per_minute {
        None => by_default,
        Some(ZeroIsNone(limit)) => limit.map(|Count(count)| count),
    };
    ProbeSettings {
        route: host.map_or(Route::Exchanges(rules), |host| Route::Host(host.into())),
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
        let why = format!("`{name}` is not a name to greet with");
        return setup.refuse(OptionError::new("helo_name", why));
    }
    Some(name.clone())
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
