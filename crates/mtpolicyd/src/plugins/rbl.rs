//! `RBL`: is the client on a DNS list?

use crate::dnsbl::{LIST_TIME_LIMIT, Mode, ask, check_list, check_mode, rbl_field};
use crate::facts::dnslist::{DnsList, ListKind, ReturnCodes};
use crate::fields::{ListZone, Template};
use crate::log::messages::findings;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::{Mark, Scoring};
use crate::session::Session;
use crate::value::{NonZeroSeconds, Switch};
use backends::dns::Question;
use postfix_policy::Request;

options! {
    /// Looks up the address of the client in a DNS block list or allow list (RFC 5782).
    ///
    /// A list that does not answer in time, or answers with an error code (127.255.255.0/24, 127.0.0.1),
    /// counts as not listing the client; only of hostkarma.junkemailfilter.com, which has its good clients at
    /// 127.0.0.1, that is a listing if `return_codes` names it. A list that has not answered in time is
    /// retried in the background, and no request waits for it until it answers. The answer and the score
    /// count once per message.
    ///
    /// A list that combines several lists may answer with several addresses: any of them counts.
    ///
    /// Some allow lists give a special answer to servers that ask too often, and give it for every client.
    /// Therefore the answers 127.0.0.255 and 127.0.10.0/24 of list.dnswl.org, swl.spamhaus.org and
    /// wl.mailspike.net never count as a listing. Those
    /// of other lists don't count either if `mode` is `accept` and `return_codes` is not set.
    ///
    /// ```conf
    /// <Plugin spamhaus>
    ///   module = "RBL"
    ///   mode = "passive"
    ///   domain = "zen.spamhaus.org"
    ///   score = 5
    /// </Plugin>
    /// <Plugin known-good>
    ///   module = "RBL"
    ///   mode = "accept" # ends the chain
    ///   domain = "list.dnswl.org"
    ///   return_codes = "127.0.2.1-127.0.9.3, 127.0.11.1-127.0.20.3"
    /// </Plugin>
    /// ```
    pub struct RblOptions {
        /// The zone of the list. A key in it can stand in a file or in a variable of the environment
        /// (`${env:NAME}`), which is read whenever the configuration is:
        /// `${file:/etc/mtpolicyd/dqs}.zen.dq.spamhaus.net`. Logs, metrics and the journal then show `{dqs}`,
        /// the name of the file or variable, in place of the key.
        domain: ListZone,
        + enabled,
        /// What to do with a listed client: `reject` the message, `accept` it (end the chain with `dunno`),
        /// or only add the score (`passive`).
        mode: UserConfig<Mode> = Mode::Reject,
        /// The text of the rejection. `%IP%` is the address of the client, `%INFO%` the text that the list
        /// publishes about it, in brackets. Only the first occurrence of each placeholder is replaced.
        reject_message: Template = "delivery from %IP% rejected %INFO%",
        /// Added to the score for a listed client.
        score: Scoring = Mark("rbl-{}-score"),
        /// The answers that count as a listing, for lists whose other answers mean something else: addresses,
        /// ranges and networks, separated by commas, such as `127.0.0.2-11, 127.0.1.0/24`. Without it, every
        /// address in 127.0.0.0/8 counts that is not an error code.
        return_codes: Option<ReturnCodes>,
        /// Whether to look up IPv6 clients too, and IPv4 clients whose address is written as one of IPv6
        /// (`::ffff:192.0.2.1`), which Postfix does not do.
        ipv6: Switch = Switch::Off,
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

pub struct Rbl {
    options: RblOptions,
    list: DnsList,
    result: String,
}

impl Plugin for Rbl {
    const NAME: &'static str = "RBL";
    type Options = RblOptions;

    fn new(options: RblOptions, setup: &mut Setup<'_, '_>) -> Option<Rbl> {
        let ipv6 = options.ipv6 == Switch::On;
        let allows = *options.mode.configured() == Mode::Accept;
        let list = DnsList::new(&options.domain.0, ListKind::Address, options.return_codes.clone(), ipv6)
            .allowing(allows)
            .within(options.time_limit.0.duration());
        check_list(&list, options.test, setup);
        let (scores, has_codes) = (options.score.is_given(), options.return_codes.is_some());
        check_mode(&list, *options.mode.configured(), scores, has_codes, setup);
        Some(Rbl { result: rbl_field(setup.name), list, options })
    }

    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        let ip = request.get("client_address").filter(|_| session.result(&self.result).is_none());
        ip.and_then(|ip| self.question(ip)).into_iter().collect()
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let ip = cx.client_address()?;
        let asked = cx.ahead.address_asked(self.list.zone());
        let question = asked.or_else(|| self.question(ip.as_bytes()));
        let Some(listed) = ask(cx, &self.result, &self.list, question).await else {
            return Ok(Verdict::Next);
        };
        cx.note(findings::on_list(&ip, self.list.label(), listed.codes()));
        let mode = self.options.mode.get(cx.session);
        // A user may have it accept where the file does not.
        if mode == Mode::Accept && !listed.addresses.iter().any(|address| self.list.may_allow(*address)) {
            return Ok(Verdict::Next);
        }
        self.options.score.add_once(cx.session);
        Ok(listed.verdict(mode, &self.options.reject_message, &ip, cx).await)
    }
}

impl Rbl {
    /// What to ask about the client: nothing where it has no address that this list knows.
    fn question(&self, client_address: &[u8]) -> Option<Question> {
        let ip = std::str::from_utf8(client_address).ok()?.parse().ok()?;
        self.list.question_for_address(ip)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    const PLUGIN: &str = "<Plugin bl>\n module = RBL\n domain = zen.example\n score = 5\n \
                          uc_enabled = spamhaus\n uc_mode = m\n";

    fn bench(extra: &str) -> Bench {
        Bench::new(&format!("{PLUGIN}{extra}\n</Plugin>"))
            .listed("4.2.0.192.zen.example", "127.0.0.2", "listed, see example")
            .attribute("client_address", "192.0.2.4")
    }

    #[test]
    fn a_listed_client_is_rejected_and_scored() {
        let mut bench = bench("");
        let rejected = "reject delivery from 192.0.2.4 rejected (\"listed, see example\")";
        assert_eq!(bench.run().as_deref(), Some(rejected));
        assert_eq!(bench.session.text("score_detail"), Some("bl=5"));
    }

    #[test]
    fn the_key_in_the_zone_is_not_told_to_the_client() {
        let mut bench =
            Bench::new("<Plugin bl>\n module = RBL\n domain = k3y.zen.dq.spamhaus.net\n</Plugin>")
                .listed(
                    "4.2.0.192.k3y.zen.dq.spamhaus.net",
                    "127.0.0.2",
                    "http://x/?q=4.2.0.192.K3Y.zen.dq.spamhaus.net",
                )
                .attribute("client_address", "192.0.2.4");
        let rejected =
            "reject delivery from 192.0.2.4 rejected (http://x/?q=4.2.0.192.***.zen.dq.spamhaus.net)";
        assert_eq!(bench.run().as_deref(), Some(rejected));
        // Neither is it in what the session keeps, with which the next recipient has the same answer.
        let kept = "127.0.0.2 ***.zen.dq.spamhaus.net 4.2.0.192.***.zen.dq.spamhaus.net";
        assert_eq!(bench.session.result("rbl-bl-result"), Some(kept));
        assert_eq!(bench.run().as_deref(), Some(rejected));
    }

    #[test]
    fn answer_and_score_count_once_a_mail() {
        let mut bench = bench("mode = passive");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.attribute_again("client_address", "192.0.2.9").run(), None);
        assert_eq!(bench.session.text("score"), Some("5"));
        assert_eq!(bench.questions(), ["4.2.0.192.zen.example A"]);
    }

    #[test]
    fn the_text_is_asked_only_where_it_is_used() {
        let mut bench = bench("mode = accept");
        assert_eq!(bench.run().as_deref(), Some("dunno"));
        assert_eq!(bench.questions(), ["4.2.0.192.zen.example A"]);
    }

    #[test]
    fn an_unlisted_client_passes() {
        let mut bench = bench("").attribute("client_address", "192.0.2.1");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.session.text("score"), None);
    }

    #[test]
    fn a_user_can_switch_it_off_or_make_it_passive() {
        for (field, word, outcome) in
            [("spamhaus", "off", None), ("m", "whatever", None), ("m", "accept", Some("dunno"))]
        {
            let mut bench = bench("");
            bench.session.set(field, word);
            assert_eq!(bench.run().as_deref(), outcome, "{field}={word}");
        }
    }

    #[test]
    fn a_broken_list_lists_nobody() {
        let mut bench = bench("").dns_fails("4.2.0.192.zen.example");
        assert_eq!(bench.run(), None);
    }

    #[test]
    fn error_codes_are_no_listing() {
        for code in ["127.255.255.254", "127.0.0.1", "203.0.113.7"] {
            let mut bench = bench("mode = accept").listed("4.2.0.192.zen.example", code, "query refused");
            assert_eq!(bench.run(), None, "{code}");
        }
    }

    #[test]
    fn a_refusal_of_an_allow_list_allows_nobody() {
        let outcome = |zone: &str, extra: &str, code: &str| {
            let text = format!(
                "<Plugin wl>\n module = RBL\n domain = {zone}\n score = -5\n uc_mode = m\n {extra}\n</Plugin>"
            );
            let mut bench = Bench::new(&text).listed(&format!("4.2.0.192.{zone}"), code, "x");
            if extra.is_empty() {
                bench.session.set("m", "accept");
            }
            let outcome = bench.attribute_again("client_address", "192.0.2.4").run();
            (outcome, bench.session.text("score").map(str::to_owned))
        };
        let known = "list.dnswl.org";
        for code in ["127.0.0.255", "127.0.10.0", "127.0.10.3"] {
            for (zone, extra) in [
                (known, "mode = accept"),
                (known, "mode = passive"),
                (known, "mode = accept\n return_codes = \"127.0.0.0/8\""),
                (known, ""),
                ("wl.test", "mode = accept"),
                ("wl.test", ""),
            ] {
                assert_eq!(outcome(zone, extra, code), (None, None), "{zone} {extra} {code}");
            }
            let listed = (Some("dunno".to_owned()), Some("-5".to_owned()));
            let named = format!("mode = accept\n return_codes = {code}");
            assert_eq!(outcome("wl.test", &named, code), listed, "the file names it");
        }
        for (zone, extra) in [(known, "mode = accept"), ("wl.test", "mode = accept"), ("wl.test", "")] {
            assert_eq!(outcome(zone, extra, "127.0.5.1").0.as_deref(), Some("dunno"), "{zone} {extra}");
        }
    }

    #[test]
    fn an_allow_list_without_return_codes_is_warned_of() {
        let warnings = |domain: &str, extra: &str| {
            Bench::warnings(&format!("<Plugin wl>\n module = RBL\n domain = {domain}\n {extra}\n</Plugin>"))
        };
        let [warning] = &warnings("list.dnswl.org", "mode = accept")[..] else { panic!("one warning") };
        assert!(
            warning.starts_with("4:9 mode: without return_codes any answer of list.dnswl.org lets"),
            "{warning}"
        );
        assert!(
            warning.contains("`return_codes = \"127.0.2.0-127.0.9.3, ") && warning.contains("2023"),
            "{warning}"
        );
        assert!(!warnings("wl.test", "mode = accept").is_empty());
        assert!(warnings("wl.test", "mode = accept\n return_codes = 127.0.0.2").is_empty());
        assert!(warnings("list.dnswl.org", "mode = passive").is_empty(), "it only asks");
        let scoring = "mode = passive\n score = -3";
        let [warning] = &warnings("list.dnswl.org", scoring)[..] else { panic!("one warning") };
        assert!(
            warning.contains("domain: without return_codes any answer of list.dnswl.org counts"),
            "{warning}"
        );
        let codes = "return_codes = \"127.0.2.1-127.0.9.3\"";
        assert!(warnings("list.dnswl.org", &format!("mode = passive\n {codes}")).is_empty());
        let rejecting = warnings("list.dnswl.org", codes);
        assert!(rejecting[0].contains("is an allow list; `reject` keeps out"), "{rejecting:?}");
        assert!(
            warnings("zen.example", "mode = passive").is_empty() && warnings("zen.example", "").is_empty()
        );
        for (domain, codes) in [("swl.spamhaus.org", "127.0.2.0/24"), ("wl.mailspike.net", "127.0.0.17-20")] {
            let said = warnings(domain, "mode = accept");
            assert!(said[0].contains(&format!("`return_codes = \"{codes}\"`")), "{said:?}");
        }
    }

    #[test]
    fn return_codes_that_never_count_are_warned_of() {
        let warnings = |domain: &str, codes: &str| {
            let options = format!("domain = {domain}\n mode = accept\n return_codes = \"{codes}\"");
            Bench::warnings(&format!("<Plugin wl>\n module = RBL\n {options}\n</Plugin>"))
        };
        let said = warnings("wl.test", "127.0.0.2, 127.0.0.1, 127.255.255.1-7");
        assert!(
            said[0].contains("return_codes: 127.0.0.1, 127.255.255.1-127.255.255.7 never counts"),
            "{said:?}"
        );
        assert!(warnings("wl.test", "127.0.0.0/8").is_empty());
        for codes in ["127.0.0.0/16", "127.0.10.0-127.0.10.3", "127.0.0.255"] {
            let said = warnings("list.dnswl.org", codes);
            assert!(said[0].contains("to whoever may not ask"), "{said:?}");
        }
    }

    #[test]
    fn hostkarma_has_its_good_clients_at_the_loopback() {
        let outcome = |zone: &str, extra: &str| {
            let text =
                format!("<Plugin wl>\n module = RBL\n domain = {zone}\n mode = accept\n{extra}\n</Plugin>");
            assert!(extra.is_empty() || zone == "wl.test" || Bench::warnings(&text).is_empty());
            let mut bench = Bench::new(&text).listed(&format!("4.2.0.192.{zone}"), "127.0.0.1", "x");
            bench.attribute_again("client_address", "192.0.2.4").run()
        };
        let (zone, named) = ("hostkarma.junkemailfilter.com", " return_codes = 127.0.0.1");
        assert_eq!(outcome(zone, named).as_deref(), Some("dunno"));
        assert_eq!((outcome(zone, ""), outcome("wl.test", named)), (None, None));
    }

    #[test]
    fn return_codes_narrow_a_list() {
        let codes = "return_codes = \"127.0.0.10-11\"";
        assert_eq!(bench(codes).run(), None);
        assert!(bench(codes).listed("4.2.0.192.zen.example", "127.0.0.11", "x").run().is_some());
    }

    #[test]
    fn without_a_client_address_it_fails() {
        assert!(Bench::new(&format!("{PLUGIN}</Plugin>")).try_run().is_err());
        assert!(bench("").attribute("client_address", "").try_run().is_err());
    }

    #[test]
    fn a_list_is_tested_by_hand() {
        use crate::state::ListState;
        let bench = || bench("return_codes = 127.0.0.4");
        let state = |mut bench: Bench| bench.lists(Some("bl"), true).unwrap().lists[0].state;
        let well = || bench().listed("2.0.0.127.zen.example", "127.0.0.2", "x");
        assert_eq!(state(well()), ListState::Well);
        assert_eq!(state(bench()), ListState::ListsNothing);
        let everybody = well().listed("1.0.0.127.zen.example", "127.0.0.2", "x");
        assert_eq!(state(everybody), ListState::ListsEverybody);
        let refusing = bench().listed("2.0.0.127.zen.example", "127.255.255.254", "x");
        assert_eq!(state(refusing), ListState::Refused);
        assert_eq!(state(bench().dns_fails("2.0.0.127.zen.example")), ListState::Silent);
        let untested = bench().lists(None, false).unwrap();
        assert_eq!((untested.lists[0].zone.as_str(), untested.lists[0].tests.len()), ("zen.example", 0));
        assert!(bench().lists(Some("other"), false).is_err());
    }

    #[test]
    fn mistakes_are_found_when_the_file_is_read() {
        let mode = Bench::mistakes(&format!("{PLUGIN} mode = rejcet\n</Plugin>"));
        assert_eq!(
            mode,
            ["7:9 mode: `rejcet` is not one of reject, accept, passive; did you mean `reject`?"]
        );
        assert_eq!(
            Bench::mistakes("<Plugin bl>\n module = RBL\n</Plugin>"),
            ["1:1 Plugin bl needs the option `domain`"]
        );
        let codes = Bench::mistakes(&format!("{PLUGIN} return_codes = 127.0.0\n</Plugin>"));
        assert!(codes[0].starts_with("7:17 return_codes: "), "{codes:?}");
    }
}
