//! `Honeypot`: has the client sent mail to an address that nobody has?

mod by_hand;

use crate::chain::Chain;
use crate::connections::{StoreKind, StoreRef};
use crate::log::messages::{findings, plugins};
use crate::mode::FailMode;
use crate::network::plain_address;
use crate::options::options;
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::Scoring;
use crate::session::RECIPIENT;
use crate::state::Kind;
use crate::value::{NonZeroSeconds, Seconds};
use backends::OptionError;
use backends::keyvalue::Store;
use by_hand::{TRAPPED, TrappedClients, key};
use perl_regex::{Pattern, PatternList};
use postfix_policy::{Mailbox, folded};
use std::sync::Arc;

options! {
    /// Traps clients that send mail to addresses that no legitimate sender knows.
    ///
    /// A message to one of the traps is rejected, and for a time so is whatever else its client sends.
    /// Instead of rejecting, the plugin can add a score and run the plugins in its block. The time (`expire`)
    /// starts with the first message to a trap; further ones do not extend it.
    ///
    /// While the store fails, messages to a trap are still handled as above; for any other message the
    /// plugin fails (`on_error`).
    ///
    /// ```conf
    /// <Plugin honeypot>
    ///   module = "Honeypot"
    ///   recipients = "bob@example.com, joe@example.com"
    ///   recipients_re = "^(tic|tric|trac)@example\.(com|net)$"
    ///   store = "memory"
    /// </Plugin>
    /// ```
    pub struct HoneypotOptions {
        + enabled,
        /// What to do with a trapped client: `reject` its messages, or only add the score and run the
        /// plugins in the block (`passive`).
        mode: FailMode = FailMode::Reject,
        /// Addresses that are traps, separated by commas; case makes no difference.
        recipients: String = "",
        /// Perl regular expressions for addresses that are traps, separated by commas, so none may contain a
        /// comma. They are matched against the recipient as written, as Postfix will understand it
        /// (`bob@example.com` for `example.com!bob`), and against both in lower case.
        recipients_re: String = "",
        /// What separates an extension from a user, as in Postfix: mail to `bob+any@example.com` is mail to
        /// the trap `bob@example.com`. Each of several characters is a delimiter by itself; without any,
        /// addresses have no extension.
        recipient_delimiter: String = "+",
        /// The text of the rejection.
        reject_message: String = "trapped by honeypod",
        /// How long a client stays trapped.
        expire: NonZeroSeconds = NonZeroSeconds(Seconds::of(7200)),
        /// Added to the score of a message from a trapped client, once per message.
        score: Scoring,
        /// The connection to store trapped clients in, of module Memcached, Redis, Sql or Memory.
        store: String = "memcached",
    }
}

pub struct Honeypot {
    options: HoneypotOptions,
    /// The addresses that are traps, as keys.
    recipients: Vec<Vec<u8>>,
    patterns: Arc<PatternList>,
    store: Store,
    nested: Chain,
}

impl Plugin for Honeypot {
    const NAME: &'static str = "Honeypot";
    type Options = HoneypotOptions;

    fn new(options: HoneypotOptions, setup: &mut Setup<'_, '_>) -> Option<Honeypot> {
        setup.check_action("reject_message", &format!("reject {}", options.reject_message));
        let store = setup.store(StoreRef::any("store", &options.store, StoreKind::Memcached));
        let nested = Chain::nested(setup);
        let patterns = patterns(&options.recipients_re, setup)?;
        let recipients: Vec<_> = list(&options.recipients)
            .map(|trap| Mailbox::recipient(trap.to_owned()).key().into_owned())
            .collect();
        if recipients.is_empty() && patterns.is_empty() {
            setup.has_no_effect("`recipients` and no `recipients_re`");
        }
        let (store, nested) = (store?, nested?);
        setup.expire_hourly(&store);
        let (plugin, lifetime) = (setup.name.to_owned(), options.expire.0.duration());
        let trapped = TrappedClients { store: store.clone(), plugin, lifetime };
        setup.state(Kind::Honeypot, format!("{}\0{}", store.name(), setup.name), trapped);
        Some(Honeypot { options, recipients, patterns, store, nested })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let client = cx.client_address()?;
        let request = cx.request;
        let address = plain_address(request.get("client_address").unwrap_or_default());
        let key = key(cx.name(), &address);
        let is_trap = self.is_trap(request.recipient(), cx).await;
        if matches!(is_trap, Ok(true)) {
            // A client that was trapped before is so for every recipient.
            cx.session.depend_on(RECIPIENT);
            self.trap(&key, cx).await;
        } else if self.store.get(&key, cx.call).await?.is_none() {
            return is_trap.map(|_| Verdict::Next);
        }
        cx.note(findings::trapped(client));
        self.options.score.add_once(cx.session);
        match self.options.mode {
            FailMode::Reject => Ok(Verdict::Stop(format!("reject {}", self.options.reject_message))),
            FailMode::Passive => self.nested.act(None, cx).await,
        }
    }
}

impl Honeypot {
    /// Whether a recipient is a trap in any of its forms: as it is written, as Postfix will understand it,
    /// in lower case, without its extension.
    async fn is_trap(&self, recipient: &Mailbox, cx: &mut Cx<'_>) -> Result<bool, Error> {
        let bare = recipient.without_extension(&self.options.recipient_delimiter);
        let bare_key = bare.as_deref().map(folded);
        let key = recipient.key();
        let is_listed = |trap: &Vec<u8>| *trap == *key || Some(&**trap) == bare_key.as_deref();
        if self.recipients.iter().any(is_listed) {
            return Ok(true);
        }
        let mut forms = vec![recipient.raw()];
        for form in [Some(recipient.address()), Some(&*key), bare.as_deref(), bare_key.as_deref()] {
            forms.extend(form.filter(|form| !forms.contains(form)));
        }
        for form in forms {
            if cx.find(&self.patterns, form).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Remembers the client. Its mail to the trap is told apart without that.
    async fn trap(&self, key: &[u8], cx: &Cx<'_>) {
        let lifetime = self.options.expire.0.duration();
        if let Err(error) = self.store.add(key, TRAPPED, lifetime, cx.call).await {
            plugins::not_trapped(cx.name(), cx.shown("client_address"), error);
        }
    }
}

/// The expressions of the option, or `None` after the mistakes were reported.
fn patterns(text: &str, setup: &Setup<'_, '_>) -> Option<Arc<PatternList>> {
    let mut patterns = Vec::new();
    let mut all_good = true;
    for text in list(text) {
        match Pattern::new(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(why) => {
                let error = OptionError::new("recipients_re", format!("`{text}`: {why}"));
                setup.section.refuse_option(error.with_help("the option is split at its commas"));
                all_good = false;
            }
        }
    }
    all_good.then(|| Arc::new(PatternList::new(patterns)))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use std::time::Duration;

    fn honeypot(options: &str) -> Bench {
        let text = format!(
            "<Plugin hp>\n module = Honeypot\n store = memory\n recipients = \"trap@example.net, Two@x\"\n\
             recipients_re = \"^(tic|toc)@,\\.invalid$\"\n{options}\n</Plugin>"
        );
        Bench::new(&text).attribute("client_address", "192.0.2.10").attribute("recipient", "bob@example.net")
    }

    const REJECTED: Option<&str> = Some("reject trapped by honeypod");

    #[test]
    fn a_trapped_client_stays_trapped() {
        let mut bench = honeypot("");
        assert_eq!(bench.run(), None);
        for trap in ["trap@example.net", "two@X", "tic@y", "a@b.invalid"] {
            let mut bench = honeypot("");
            assert_eq!(bench.attribute_again("recipient", trap).run().as_deref(), REJECTED, "{trap}");
            assert_eq!(bench.attribute_again("recipient", "bob@example.net").run().as_deref(), REJECTED);
            assert_eq!(bench.attribute_again("client_address", "192.0.2.11").run(), None);
        }
    }

    #[test]
    fn a_trap_is_one_in_every_form_that_postfix_accepts() {
        for trap in [
            "TRAP@Example.net.",
            "example.net!trap",
            "trap%example.net",
            "trap@example.net@example.net",
            "trap%example.net@localhost",
            "Trap+any@example.net",
            "Tic+any@y",
            "TOC@y",
        ] {
            assert_eq!(honeypot("").attribute_again("recipient", trap).run().as_deref(), REJECTED, "{trap}");
        }
        let mut bench = honeypot("recipient_delimiter = \"\"");
        assert_eq!(bench.attribute_again("recipient", "trap+any@example.net").run(), None);
    }

    #[test]
    fn it_ends_after_a_time() {
        let mut bench = honeypot("expire = 1\n reject_message = 5.7.1 no");
        assert_eq!(bench.attribute_again("recipient", "tic@x").run().as_deref(), Some("reject 5.7.1 no"));
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(bench.attribute_again("recipient", "bob@example.net").run(), None);
    }

    #[test]
    fn it_may_score_and_leave_the_rest_to_others() {
        let nested =
            "<Plugin n>\n module = Condition\n key = sender\n match = x\n action = nested\n</Plugin>";
        let mut bench = honeypot(&format!("mode = passive\n score = 4\n{nested}"));
        assert_eq!(bench.attribute_again("recipient", "tic@x").run(), None);
        assert_eq!(bench.attribute_again("recipient", "bob@example.net").run(), None);
        assert_eq!(bench.session.score_detail("score"), Some("hp=4"));
        assert_eq!(bench.attribute_again("sender", "x").run().as_deref(), Some("nested"));
    }

    #[test]
    fn clients_without_an_address_are_not_mixed_up() {
        let failed = honeypot("").attribute("client_address", "").try_run().unwrap_err();
        assert!(failed.contains("client_address"), "{failed}");
    }

    #[test]
    fn a_trapped_client_can_not_get_out_by_an_address_that_takes_much_work() {
        let text = "<Plugin hp>\n module = Honeypot\n store = memory\n recipients = trap@x\n\
                    recipients_re = \"^(a+)(a+)\\1\\2!\"\n</Plugin>";
        let mut bench = Bench::new(text).attribute("client_address", "192.0.2.10");
        let costly = "a".repeat(3_001) + "!";
        let undecided = bench.attribute_again("recipient", &costly).run();
        assert!(undecided.is_some_and(|action| action.starts_with("defer")));
        assert_eq!(bench.attribute_again("recipient", "trap@x").run().as_deref(), REJECTED);
        assert_eq!(bench.attribute_again("recipient", &costly).run().as_deref(), REJECTED);
    }

    #[test]
    fn a_trap_needs_no_store() {
        let text = "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname=/nothere/db\"\n</Connection>\n\
                    <Plugin hp>\n module = Honeypot\n store = db\n recipients = trap@x\n</Plugin>";
        let mut bench = Bench::new(text).attribute("client_address", "192.0.2.10");
        assert!(bench.attribute_again("recipient", "bob@x").try_run().is_err());
        assert_eq!(bench.attribute_again("recipient", "trap@x").run().as_deref(), REJECTED);
    }

    #[test]
    fn a_trapped_client_is_shown_and_let_go() {
        use crate::state::{Change, Condition, Kind, Order, Select};
        let mut bench = honeypot("");
        assert_eq!(bench.attribute_again("recipient", "tic@x").run_fresh().as_deref(), REJECTED);
        bench.attribute_again("recipient", "bob@example.net");
        let [entry] = &bench.list(Kind::Honeypot, &Select::default()).unwrap()[..] else { panic!("one") };
        assert_eq!((entry.client.as_deref(), entry.state), (Some("192.0.2.10"), Condition::Trapped));
        assert!(entry.expires_at.is_some_and(|end| end > bench.now()));
        let client = |client: &str| Select { client: Some(client.to_owned()), ..Select::default() };
        for (network, found) in [("192.0.2.0/24", 1), ("198.51.100.0/24", 0)] {
            assert_eq!(bench.list(Kind::Honeypot, &client(network)).unwrap().len(), found);
        }
        let change = Change::Reset { parts: Vec::new() };
        let order = Order { select: client("::ffff:192.0.2.10"), change, all: false };
        let changed = bench.change(Kind::Honeypot, &order).unwrap();
        assert!(changed[0].done.starts_with("reset; was trapped for "), "{changed:?}");
        assert_eq!(bench.run_fresh(), None);
        assert!(bench.change(Kind::Honeypot, &order).unwrap().is_empty());
        let undo = changed[0].undo.clone().unwrap();
        assert!(
            undo.command(Kind::Honeypot).starts_with("mtpolicyd honeypot set 192.0.2.10 --plugin hp --for ")
        );
        bench.change(Kind::Honeypot, &undo).unwrap();
        assert_eq!(bench.run_fresh().as_deref(), REJECTED);
    }

    #[test]
    fn mistakes_are_reported() {
        let text = "<Plugin hp>\n module = Honeypot\n recipients_re = \"^(a,b)@x\"\n</Plugin>";
        let mistakes = Bench::mistakes(text);
        assert!(mistakes[0].contains("there is no <Connection memcached>"), "{mistakes:?}");
        assert!(mistakes[1].starts_with("3:18 recipients_re: `^(a`"), "{mistakes:?}");
        let idle = Bench::warnings("<Plugin hp>\n module = Honeypot\n store = memory\n</Plugin>");
        assert!(idle[0].contains("has no effect"), "{idle:?}");
    }
}
