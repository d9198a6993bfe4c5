//! `SMTPVerify`: would the mail server of an address take this mail?

use crate::connections::Module;
use crate::fields::{SCORE_FIELD, Template};
use crate::lookups::Complaints;
use crate::network::address_of;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Notes, Plugin, Setup, Verdict};
use crate::session::part_of_name;
use crate::value::{Count, Limit, Score, Seconds, Size, Span, Switch};
use answers::{Answers, Known};
use backends::smtp::{Judgement, Limits, Mailbox, Manner, Message, Route, Rules};
use flights::{Client, Flights, Verifier, not_asked};
use std::sync::Arc;
use tokio::time::Instant;

mod answers;
mod flights;

options! {
    /// Asks the mail server of an address, over SMTP, whether it would take the message (call-out
    /// verification).
    ///
    /// The dialogue goes as far as RCPT and sends nothing. `recipient_field` decides which address is asked
    /// about: the sender of the message, which is the default, or its recipient. An address without a domain,
    /// such as the null sender, is not asked about.
    ///
    /// Three things are a permanent failure: a reply to RCPT with a code of 5xx, a reply to MAIL that
    /// refuses the size of the message, and a domain that takes no mail because it does not exist, has no
    /// mail server, has mail servers without a usable address (the loopback, `0.0.0.0`, multicast,
    /// broadcast), or says so (RFC 7505). Everything else is a temporary failure: servers that are
    /// unreachable, do not answer in time or refuse us altogether (in the greeting, at EHLO or at MAIL), and
    /// replies to RCPT that are about us rather than the address. The latter are those with the enhanced
    /// code 5.1.7, 5.1.8, 5.3.2, 5.3.3, 5.3.5, 5.4.x, 5.5.x or 5.7.x, and the codes 500 to 504, 530, 534,
    /// 535 and 538 without one. So are an address in a form that no server can be asked about, and a
    /// question that can't be asked because of `max_per_minute` or because too many others are being asked.
    /// Without an action for it, a failure does nothing.
    ///
    /// At most half of the time that the request has left is spent on waiting; then it is a temporary
    /// failure, and the plugins that follow have the other half.
    ///
    /// Senders choose the servers that are asked, so servers with a public unicast address are asked only, as
    /// the IANA registries of special addresses have it. A domain whose servers have private, link-local or
    /// other special addresses is a temporary failure; `allow_private` has them asked. A server that `host`
    /// names is asked whatever its address is.
    ///
    /// Answers are remembered: that an address is accepted, for all senders and messages that are not larger;
    /// that it is not, for all senders where the server says by its enhanced code that there is no such
    /// mailbox (5.1.1 and others), otherwise for this sender. A question goes on in the background, so that
    /// its answer is there when the message comes again. A reload keeps the answers, unless it changes which
    /// servers are asked, how, or how long answers are remembered.
    ///
    /// Some questions are not asked and count neither as success nor as failure: those about a domain whose
    /// mail this machine takes, or that is an address; those of a server that is itself being asked about the
    /// same address at the moment; and our own question if it comes back to us.
    ///
    /// TLS is used where a server offers it, whatever its certificate is. If it does not work with a server,
    /// or the server hangs up on it, that server is asked without TLS for an hour. With `check_tlsa` a
    /// server with TLSA records has to encrypt, with a certificate that they name (RFC 7672); otherwise the
    /// next server is asked.
    ///
    /// In the details of the score, characters of an address that have a meaning there are replaced: `,` by
    /// `%2C`, `=` by `%3D`, and so on.
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
        /// The server to ask, a name or an address, instead of those of the address's domain. The name is
        /// looked up as the system does it, in `/etc/hosts` too.
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
        /// The answer to Postfix after a permanent failure. `%MSG%` is the reason: the words of the server if
        /// `host` names it or if it is on this machine; otherwise a text of ours with the server's enhanced
        /// code, and the words of the server are in the log.
        perm_fail_action: Option<Template>,
        /// The answer to Postfix after a temporary failure; `%MSG%` as above.
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
        /// How long a message waits for the answer; then it is a temporary failure. It never waits for more
        /// than half of what is left of the request's time.
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
        /// Maximum amount of memory for the answers that are remembered; beyond it those unused for longest
        /// are evicted.
        cache_memory: Size = Size::mebibytes(32),
        /// The name of a `<Connection>` of any module but Ldap that keeps the answers too, for other daemons
        /// and for after a restart.
        store: Option<String>,
        /// How many questions a server is asked at once; others wait.
        max_concurrent: Limit = Limit(5),
        /// How many questions a server is asked in a minute; 0 is without limit. Without it 60, and without
        /// limit where `host` is given.
        max_per_minute: Option<Count>,
        /// Whether servers are asked that have an address of this machine, or of the loopback. They may ask
        /// back about every address, without an end; `host` is asked in any case. While the system does not
        /// tell the addresses of this machine, no server of a domain is asked: all are temporary failures.
        own_addresses: Switch = Switch::Off,
        /// Whether servers of a domain are asked that have private, link-local or other addresses that are
        /// not public. Anybody who sends a message can then have any server inside the network asked on
        /// `port`.
        allow_private: Switch = Switch::Off,
    }
}

/// How many questions a server that strangers choose is asked in a minute.
const MAX_PER_MINUTE: u64 = 60;

/// How many characters of an address that can't be asked about are noted.
const MAX_SHOWN: usize = 320;

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
                self.notes.note(format_args!("{field} `{address}` has no domain to ask about"));
                return Ok(Verdict::Next);
            }
            None => {
                let address = String::from_utf8_lossy(address).chars().take(MAX_SHOWN).collect();
                (address, not_asked("the form of the address is not supported"))
            }
        };
        match &known.findings.judgement {
            Judgement::Accepted => self.notes.note(format_args!("{address} is taken")),
            Judgement::Refused(refusal) => {
                let how = if refusal.is_permanent { "permanent" } else { "temporary" };
                let said = refusal.said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default();
                self.notes.note(format_args!("{address}: {how} failure: {}{said}", refusal.message));
            }
            Judgement::NotAsked(why) => self.notes.note(format_args!("{address}: temporary failure: {why}")),
            Judgement::Unknown(why) => self.notes.note(format_args!("{address} is not verified: {why}")),
        }
        self.add_scores(&address, &known, cx);
        Ok(self.action(&known).map_or(Verdict::Next, Verdict::Stop))
    }
}

impl SmtpVerify {
    /// What is known of an address, or found out in time.
    async fn ask_about(&self, recipient: Mailbox, cx: &Cx<'_>) -> Known {
        if (self.verifier.manner.tlsa || self.verifier.openpgp) && !cx.world.dns.can_prove() {
            let why = "check_tlsa and check_openpgp need name servers that are believed, see trust_ad";
            self.complaints.complain(why);
        }
        let helo = cx.request.get("helo_name").unwrap_or_default();
        let client = Client {
            address: cx.request.get("client_address").and_then(address_of),
            has_our_name: helo.eq_ignore_ascii_case(self.verifier.manner.helo.as_bytes()),
        };
        let now = Instant::now();
        let until = cx.deadline.for_strangers(now).min(now + self.options.timeout.0.duration());
        self.verifier.ask(self.message(recipient, cx), client, cx.world, until).await
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

    /// Adds the scores, unless this mail has them for the address.
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
                && cx.session.first_time(&format!("verify-{address}-{}{what}", self.name))
            {
                let who = format!("{}-{address}{what}", self.name);
                cx.session.add_score(&options.score_field, &who, &score);
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

fn manner(options: &SmtpVerifyOptions, port: u16, helo: String) -> Manner {
    let rules = Rules {
        own_addresses: options.own_addresses == Switch::On,
        allow_private: options.allow_private == Switch::On,
    };
    let host = options.host.as_deref();
    let by_default = if host.is_some() { None } else { Some(MAX_PER_MINUTE) };
    let a_minute = match options.max_per_minute {
        None => by_default,
        Some(Count(0)) => None,
        Some(Count(count)) => Some(count),
    };
    Manner {
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
