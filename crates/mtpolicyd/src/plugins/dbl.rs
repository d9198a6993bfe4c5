//! `DBL`: is the domain of the sender, of the client or of its HELO on a DNS list?

use crate::dnsbl::{LIST_TIME_LIMIT, ask, check_list};
use crate::facts::dnslist::{DnsList, ListKind, ReturnCodes};
use crate::fields::{ListZone, Template};
use crate::log::messages::findings;
use crate::mode::FailMode;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::session::Session;
use crate::value::{NonZeroSeconds, Score, Switch};
use backends::dns::Question;
use postfix_policy::{Request, canonical_domain};
use std::borrow::Cow;

options! {
    /// Looks the sender's domain, the name of the client and its HELO name up in a DNS list of domains
    /// (RHSBL, RFC 5782).
    ///
    /// The checks are made in that order, and each score counts once per message. The sender's domain is the
    /// one that Postfix will understand (`victim.example` in `victim.example!ceo`); names are looked up in
    /// lower case and in their ASCII form. Names without a dot, addresses and address literals are not looked
    /// up. A list that does not answer in time, or answers with an error code (127.255.255.0/24, 127.0.0.1,
    /// 127.0.1.255), counts as not listing the name. A list that has not answered in time is retried in the
    /// background, and no request waits for it until it answers.
    ///
    /// ```conf
    /// <Plugin spamhaus-dbl>
    ///   module = "DBL"
    ///   domain = "dbl.spamhaus.org"
    ///   sender_mode = "reject"
    ///   helo_name_mode = "passive"
    /// </Plugin>
    /// ```
    pub struct DblOptions {
        /// The zone of the list. A key in it can stand in a file or in a variable of the environment
        /// (`${env:NAME}`), which is read whenever the configuration is:
        /// `${file:/etc/mtpolicyd/dqs}.zen.dq.spamhaus.net`. Logs, metrics and the journal then show `{dqs}`,
        /// the name of the file or variable, in place of the key.
        domain: ListZone,
        + enabled,
        /// What to do if the sender's domain is listed: `reject` the message, or only add the score
        /// (`passive`).
        sender_mode: UserConfig<FailMode> = FailMode::Reject,
        /// Added to the score if the sender's domain is listed, in the details as the plugin's name with
        /// `-sender`.
        sender_score: Score = Score::from(5.0),
        /// The same for the HELO name.
        helo_name_mode: UserConfig<FailMode> = FailMode::Passive,
        /// Added if the HELO name is listed, with `-helo_name`.
        helo_name_score: Score = Score::from(1.0),
        /// The same for the name that the client's address has in the DNS.
        reverse_client_name_mode: UserConfig<FailMode> = FailMode::Reject,
        /// Added if that name is listed, with `-reverse_client_name`.
        reverse_client_name_score: Score = Score::from(2.5),
        score_field: ScoreField,
        /// The text of the rejection. `%CHECK%` is `sender`, `helo_name` or `reverse_client_name`,
        /// `%HOSTNAME%` the listed name and `%INFO%` the text that the list publishes about it, preceded by
        /// a comma and a blank. Only the first occurrence of each placeholder is replaced.
        reject_message: Template = "%CHECK% rejected (%HOSTNAME%%INFO%)",
        /// The answers that count as a listing, for lists whose other answers mean something else:
        /// addresses, ranges and networks, separated by commas, such as `127.0.1.2-99`.
        return_codes: Option<ReturnCodes>,
        /// How long to wait for the list. All lists are asked at once, so several slow ones take no longer
        /// than one.
        time_limit: NonZeroSeconds = LIST_TIME_LIMIT,
        /// Whether to test the list, shortly after the start and every hour: whether it lists what every list
        /// has to and must not (RFC 5782, section 5). After two bad tests in a row it is quarantined until a
        /// good one: the log and `mtpolicyd lists` say so, and an answer that it gives about everybody no
        /// longer counts. Use `off` for a private list without test points.
        test: Switch = Switch::On,
    }
}

pub struct Dbl {
    reject_message: Template,
    score_field: ScoreField,
    list: DnsList,
    checks: [Check; 3],
}

/// One attribute to look up.
struct Check {
    attribute: &'static str,
    mode: UserConfig<FailMode>,
    score: Score,
    result: String,
}

impl Plugin for Dbl {
    const NAME: &'static str = "DBL";
    type Options = DblOptions;

    fn new(options: DblOptions, setup: &mut Setup<'_, '_>) -> Option<Dbl> {
        let check = |attribute, mode, score| {
            let result = format!("{}-{attribute}-result", setup.name);
            Check { attribute, mode, score, result }
        };
        let checks = [
            check("sender", options.sender_mode, options.sender_score),
            check("reverse_client_name", options.reverse_client_name_mode, options.reverse_client_name_score),
            check("helo_name", options.helo_name_mode, options.helo_name_score),
        ];
        let list = DnsList::new(&options.domain.0, ListKind::Domain, options.return_codes, false)
            .within(options.time_limit.0.duration());
        check_list(&list, options.test, setup);
        let DblOptions { reject_message, score_field, .. } = options;
        Some(Dbl { reject_message, score_field, list, checks })
    }

    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        let unknown = self.checks.iter().filter(|check| session.result(&check.result).is_none());
        unknown.filter_map(|check| self.question(&check.name(request)?)).collect()
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        for check in &self.checks {
            if let Some(rejection) = self.run_check(check, cx).await? {
                return Ok(Verdict::Stop(rejection));
            }
        }
        Ok(Verdict::Next)
    }
}

impl Dbl {
    async fn run_check(&self, check: &Check, cx: &mut Cx<'_>) -> Result<Option<String>, Error> {
        cx.attribute(check.attribute)?;
        let Some(name) = check.name(cx.request) else { return Ok(None) };
        let question = self.question(&name);
        let name = String::from_utf8_lossy(check.spelling(cx.request, &name)).into_owned();
        let Some(listed) = ask(cx, &check.result, &self.list, question).await else { return Ok(None) };
        cx.note(findings::name_on_list(&check.attribute, &name, listed.codes()));
        self.score_field.add_once_for(cx.session, check.attribute, &check.score);
        if check.mode.get(cx.session) == FailMode::Passive {
            return Ok(None);
        }
        let text = if self.reject_message.has("%INFO%") { listed.text(cx).await } else { None };
        let info = text.map(|text| format!(", {text}")).unwrap_or_default();
        let values = [("%CHECK%", check.attribute), ("%HOSTNAME%", &name), ("%INFO%", &info)];
        Ok(Some(format!("reject {}", self.reject_message.fill(&values))))
    }

    /// What to ask about a name.
    fn question(&self, name: &[u8]) -> Option<Question> {
        self.list.question_for_domain(name)
    }
}

impl Check {
    /// The name to look up, in lower case and as A-labels: of the sender its domain as Postfix will
    /// understand it, or all of it if it has none. A name without a dot is not a domain, and one with a colon
    /// or in brackets an address, which lists of domains don't want to be asked about.
    fn name<'a>(&self, request: &'a Request) -> Option<Cow<'a, [u8]>> {
        let name = match request.mailbox(self.attribute) {
            Some(mailbox) => {
                mailbox.domain().map_or_else(|| canonical_domain(mailbox.address()), Cow::Borrowed)
            }
            None => canonical_domain(request.get(self.attribute)?),
        };
        let is_address = name.contains(&b':') || name.starts_with(b"[") || is_dotted_quad(&name);
        (name.contains(&b'.') && !is_address).then_some(name)
    }

    /// The name as the request has it, if that differs in capital letters only: texts show that.
    fn spelling<'a>(&self, request: &'a Request, name: &'a [u8]) -> &'a [u8] {
        let value = request.get(self.attribute).unwrap_or_default();
        let written = match self.attribute {
            "sender" => value.rsplit(|byte| *byte == b'@').next().unwrap_or(value),
            _ => value,
        };
        if written.eq_ignore_ascii_case(name) { written } else { name }
    }
}

fn is_dotted_quad(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| name.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn a_listed_sender_is_found_in_every_form_that_postfix_accepts() {
        for sender in [
            "x@bad.example",
            "x@BAD.Example.",
            "a@b.example@bad.example",
            "\"x@y\"@bad.example",
            "@bad.example",
            "x%bad.example",
            "bad.example!x",
            "x%bad.example@",
        ] {
            let said = bench("", sender, "unknown", "h").run().unwrap_or_default();
            let shown = said.to_lowercase();
            assert!(shown.starts_with("reject sender rejected (bad.example, "), "{sender}: {said}");
        }
        let mut idn = bench("", "a@B\u{dc}CHER.example", "unknown", "h").listed(
            "xn--bcher-kva.example.dbl.test",
            "127.0.1.2",
            "",
        );
        assert!(idn.run().is_some_and(|said| said.contains("(xn--bcher-kva.example")));
    }

    fn bench(options: &str, sender: &str, reverse: &str, helo: &str) -> Bench {
        Bench::new(&format!("<Plugin dbl>\n module = DBL\n domain = dbl.test\n {options}\n</Plugin>"))
            .listed("bad.example.dbl.test", "127.0.1.2", "domain is bad")
            .listed("helo.example.dbl.test", "127.0.1.4", "helolisted")
            .attribute("sender", sender)
            .attribute("reverse_client_name", reverse)
            .attribute("helo_name", helo)
    }

    #[test]
    fn a_listed_sender_is_rejected() {
        let mut bench = bench("", "x@bad.example", "ok.example", "ok.example");
        assert_eq!(bench.run().as_deref(), Some("reject sender rejected (bad.example, \"domain is bad\")"));
        assert_eq!(bench.session.text("score_detail"), Some("dbl-sender=5"));
    }

    #[test]
    fn a_listed_helo_name_is_scored_once() {
        let mut bench = bench("", "x@ok.example", "ok.example", "helo.example.");
        assert_eq!((bench.run(), bench.run()), (None, None));
        assert_eq!(bench.session.text("score_detail"), Some("dbl-helo_name=1"));
    }

    #[test]
    fn equal_names_are_asked_once() {
        let mut bench = bench("", "x@ok.example", "ok.example", "ok.example");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.questions(), ["ok.example.dbl.test A"]);
    }

    #[test]
    fn addresses_and_plain_words_are_not_looked_up() {
        for name in ["unknown", "localhost", "[10.1.2.3]", "10.1.2.3", "2001:db8::1", ""] {
            let mut bench = bench("", &format!("x@{name}"), name, name);
            assert_eq!(bench.run(), None);
            assert!(bench.questions().is_empty(), "{name}");
        }
    }

    #[test]
    fn the_error_code_of_domain_lists_is_no_listing() {
        let mut bench = bench("", "x@bad.example", "ok.example", "ok.example").listed(
            "bad.example.dbl.test",
            "127.0.1.255",
            "no IP queries",
        );
        assert_eq!(bench.run(), None);
    }

    #[test]
    fn a_missing_attribute_is_an_error() {
        let mut bench =
            Bench::new("<Plugin d>\n module = DBL\n domain = dbl.test\n</Plugin>").attribute("sender", "");
        assert_eq!(
            bench.try_run().unwrap_err(),
            "plugin d failed: the request has no attribute `reverse_client_name`"
        );
    }
}
