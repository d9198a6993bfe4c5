//! `RateLimit`: has somebody sent too much lately?

mod by_hand;
mod key;

use crate::chain::Chain;
use crate::connections::{MEMORY, StoreKind, StoreRef};
use crate::events::{self, LimitKind, LimitUse, Until};
use crate::fields::Template;
use crate::limits::{Algorithm, Counts, Demand, Fill, Rate, Rates, Rule, Table, Taken, Usage};
use crate::log::messages::{findings, plugins, tasks};
use crate::options::{OptionalUserConfig, UserConfig, codes, options};
use crate::plugin::{Cx, Error, Made, Plugin, Setup, TASK_LIMIT, Verdict};
use crate::scoring::Scoring;
use crate::session::Attempt;
use crate::state::Kind;
use crate::tasks::{Period, When};
use crate::value::{numeric_prefix, words};
use backends::Call;
use backends::keyvalue::Store;
use backends::sql::Sql;
use by_hand::HeldCounts;
use key::Key;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

options! {
    /// Limits how much a user, a client, a network or any other value of the request may send in a period.
    ///
    /// There may be several limits. A message is counted against all of them, or, if one of them is
    /// exceeded, against none: refused messages don't count. In passive mode, where every message passes,
    /// every message counts against every limit. Counts are exact, however many requests come at the same
    /// time, also from several daemons. Plugin blocks of the same name that share the store have their
    /// counts in common.
    ///
    /// After a Greylist plugin, only what it lets through is counted; before it, each attempt counts,
    /// including deferred ones.
    ///
    /// With a `<SessionCache>` all requests of a message count as one; without it, each request counts.
    ///
    /// When 80 % of a limit is used and when all of it is, each once per period, a line is logged and an
    /// event raised, which `<Notify>` sends; so is one when less than 70 % is used again.
    ///
    /// ```conf
    /// <Plugin outgoing>
    ///   module = "RateLimit"
    ///   key = "sasl_username"
    ///   limit = "100/1h, 1000/1d"
    ///   uc_limit = "mail_limit" # a field that a user's settings have set
    ///   action = "defer 4.7.1 %COUNT% messages sent, %LIMIT% allowed, go on in %RETRY_AFTER% seconds"
    /// </Plugin>
    /// <Plugin networks>
    ///   module = "RateLimit"
    ///   key = "client_address/24"
    ///   limit = "5/1s burst 60"
    ///   algorithm = "bucket"
    /// </Plugin>
    /// ```
    pub struct RateLimitOptions {
        + enabled,
        /// What the limit is for: one or several values, separated by commas, such as `sasl_username` or
        /// `sender@domain, session:country`. Each combination of values has its own count.
        /// `client_address/24` is the network of an IPv4 client, `client_address/24/56` also sets the prefix
        /// length for IPv6, which otherwise is 64; `client_address/32` is a single IPv4 address, or a /64
        /// network of IPv6. Without a `/` each address has its own count, which an IPv6 client evades by
        /// using many addresses. `@domain` takes the part after the `@`. Upper and lower case make no
        /// difference, and a sender or recipient is the address that Postfix will understand
        /// (`victim.example!ceo` and `ceo@victim.example.` count as `ceo@victim.example`). A request in
        /// which one of the values is missing or empty is not limited.
        key: Key,
        /// How much may pass in a period: a number, and a time in seconds (`s`), minutes (`m`), hours (`h`),
        /// days (`d`) or weeks (`w`), such as `100/1h` or `50M/1d` (`k`, `M`, `G` are powers of 1024);
        /// several limits with different periods are separated by commas. With `algorithm = bucket`, `1/1s
        /// burst 20` also says how much may pass at once; without `burst` that is the number itself. A
        /// message that alone counts more never passes. With `none` only users with a limit of their own
        /// (`uc_limit`) are limited. A user's value that can't be read is ignored.
        limit: UserConfig<Rates>,
        /// `window` (sliding window): in any interval as long as the period no more than the number passes.
        /// Limits up to 60 are exact to the millisecond. Of larger ones, and of all in passive mode, a
        /// message may count for a sixtieth of the period longer. `bucket` (token bucket): the number, or
        /// `burst`, may pass at once; after that the allowance refills steadily, at the rate of the number
        /// per period.
        algorithm: Algorithm = Algorithm::Window,
        /// What is counted: `messages`; `recipients` (at the RCPT stage each request is one, later the whole
        /// number); or `bytes`: Postfix knows the size in `smtpd_end_of_data_restrictions`, and earlier only
        /// what the client announces. If the plugin is asked at both stages, the difference is added.
        count: Counted = Counted::Messages,
        /// Where to keep the counts: `memory` is this process, and they are lost when it stops; or the name
        /// of a `<Connection>` of module Redis, Sql or Memory. When the memory is full, the counts that would
        /// expire first are evicted. Daemons that name the same Redis or database count together. In a
        /// database the counts are in the table `mtpolicyd_limits`, which is created if it is missing; a
        /// power failure may lose the latest. Redis uses its own clock, a database those of the daemons,
        /// which should agree.
        store: String = MEMORY,
        /// What to do above the limit: `reject` answers with `action`, `passive` only adds the score.
        mode: UserConfig<Mode> = Mode::Reject,
        /// Added to the score above the limit, once per message, or once per recipient if the recipient is
        /// part of `key`.
        score: Scoring,
        /// The answer above the limit; without one the plugins in this block are run, and if there are none
        /// the answer is `defer 4.7.1 too much mail, try again in %RETRY_AFTER% seconds`. `%LIMIT%` is the
        /// limit that was exceeded, such as `100/1h`, `%COUNT%` the amount counted against it so far, and
        /// `%RETRY_AFTER%` the number of seconds after which the request would pass. Of several exceeded
        /// limits it is the one that takes longest to clear. Only the first occurrence of each placeholder
        /// is replaced.
        action: OptionalUserConfig<Template>,
    }
}

/// The answer where the file has none.
const DEFAULT_ACTION: &str = "defer 4.7.1 too much mail, try again in %RETRY_AFTER% seconds";

/// The stage at which Postfix knows the size.
const END_OF_MESSAGE: &[u8] = b"END-OF-MESSAGE";

words! {
    /// What is counted.
    pub enum Counted {
        /// Messages.
        Messages = "messages",
        /// Recipients.
        Recipients = "recipients",
        /// The size.
        Bytes = "bytes",
    }
}

impl Counted {
    /// What it means less than it seems at a stage, if so.
    fn unknown_at(self, stage: &[u8]) -> Option<&'static str> {
        match (self, stage) {
            (Counted::Bytes, b"RCPT" | b"DATA") => {
                Some("the size is known at END-OF-MESSAGE; before it is what the client announces, or 0")
            }
            (Counted::Bytes | Counted::Recipients, b"CONNECT" | b"EHLO" | b"HELO" | b"MAIL") => {
                Some("there are no recipients and no message yet")
            }
            _ => None,
        }
    }
}

words! {
    /// What happens above the limit.
    pub enum Mode {
        /// It is answered.
        Reject = "reject",
        /// Only the score is added.
        Passive = "passive",
    }
}

pub struct RateLimit {
    name: String,
    options: RateLimitOptions,
    counts: Arc<Counts>,
    default_action: Template,
    nested: Chain,
    /// Whether the log says that the size of a message was not known.
    told_size: AtomicBool,
}

impl Plugin for RateLimit {
    const NAME: &'static str = "RateLimit";
    type Options = RateLimitOptions;

    fn new(options: RateLimitOptions, setup: &mut Setup<'_, '_>) -> Option<RateLimit> {
        if let Some(action) = options.action.configured() {
            setup.check_action("action", &action.to_string());
        }
        if options.algorithm == Algorithm::Window && options.limit.configured().has_burst() {
            let message = "limit: `burst` has no effect without `algorithm = bucket`";
            setup.warn_as(&codes::NO_EFFECT, "limit", message.to_owned());
        }
        setup.check_stage("count", |stage| options.count.unknown_at(stage));
        let counts = open(&options.store, setup);
        let nested = Chain::nested(setup)?;
        let counts = Arc::new(counts?);
        leave_state(setup, &options, &counts);
        Some(RateLimit {
            options,
            counts,
            default_action: DEFAULT_ACTION.into(),
            nested,
            told_size: AtomicBool::new(false),
            name: setup.name.to_owned(),
        })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        let rates = options.limit.get(cx.session);
        if rates.is_none() {
            return Ok(Verdict::Next);
        }
        let Some(key) = options.key.of(cx.request, cx.session) else { return Ok(Verdict::Next) };
        let mark = format!("{}-counted:{key}", self.name);
        let counted = whole(numeric_prefix(cx.session.result(&mark).unwrap_or_default().as_bytes()));
        let amount = self.outstanding(cx, counted);
        let mode = options.mode.get(cx.session);
        // The message may have been counted for another recipient, under other limits than these.
        let (judged_mark, judged) = (format!("{}-judged:{key}", self.name), format!("{rates} {mode}"));
        if amount == 0 && (counted == 0 || cx.session.result(&judged_mark) == Some(&judged)) {
            return Ok(Verdict::Next);
        }
        let passes_anyway = mode == Mode::Passive;
        let mut rules = rates.rules(options.algorithm);
        if passes_anyway {
            rules = rules.into_iter().map(Rule::unbounded).collect();
        }
        let demand = Demand { rules: &rules, amount, passes_anyway };
        let (now, call) = (cx.world.clock.now_millis(), cx.call);
        let attempt = Attempt::of(cx.session, format!("{}-attempt:{key}", self.name));
        let counted_as = format!("{}:{key}", self.name);
        let taken = self.counts.take(&counted_as, demand, attempt.name(), now, call).await;
        let taken = attempt.settle(cx.session, taken)?;
        if amount > 0 {
            self.tell(&key, &rates, &taken, cx);
        }
        if cx.world.events.is_any_limit_filled() && cx.call.pretence().is_none() {
            self.tell_what_is_over(&key, &rates, &taken, cx);
        }
        if taken.passed || passes_anyway {
            cx.session.set_for_message(&mark, &(counted + amount).to_string());
            cx.session.set_for_message(&judged_mark, &judged);
        }
        if taken.passed {
            return Ok(Verdict::Next);
        }
        self.exceeded(&key, &rates, &taken, cx).await
    }
}

/// Lets the administrator see what is counted, beside the limits of the file.
fn leave_state(setup: &Setup<'_, '_>, options: &RateLimitOptions, counts: &Arc<Counts>) {
    let (rates, algorithm) = (options.limit.configured().clone(), options.algorithm);
    let identity = format!("{}\0{}\0{rates}\0{algorithm}", counts.store(), setup.name);
    let held = HeldCounts {
        counts: counts.clone(),
        plugin: setup.name.to_owned(),
        rates,
        algorithm,
        is_passive: *options.mode.configured() == Mode::Passive,
        is_for_users: options.limit.is_for_users(),
    };
    setup.state(Kind::Limits, identity, held);
}

/// Where the counts are kept, or `None` after the mistake was reported.
fn open(store: &str, setup: &Setup<'_, '_>) -> Option<Counts> {
    const COUNTING: &[StoreKind] = &[StoreKind::Redis, StoreKind::Sql, StoreKind::Memory];
    match setup.store(StoreRef::one_of(COUNTING, "which can't count exactly", "store", store))? {
        Store::Memory(memory) => Some(Counts::Memory(memory)),
        Store::Redis(redis) => Some(Counts::Redis(redis)),
        Store::Sql(table) => Some(Counts::Sql(open_table(table.sql(), setup))),
        Store::Memcached(_) => None,
    }
}

fn open_table(sql: &Arc<Sql>, setup: &Setup<'_, '_>) -> Table {
    let table = Table::new(sql.clone());
    let made = table.clone();
    setup.task(When::Start, move |_| {
        let table = made.clone();
        async move {
            let created = table.create(Call::within(TASK_LIMIT)).await;
            created.map(|()| String::new()).map_err(|error| error.to_string())
        }
    });
    setup.look_at_rights(sql, table.schema(), Made::AtStart);
    let cleaned = table.clone();
    setup.task(When::Every(Period::Hourly), move |world| {
        let table = cleaned.clone();
        async move {
            let removed = table.expire(world.clock.now_millis(), Call::within(TASK_LIMIT)).await;
            removed.map(tasks::counts_expired).map_err(|error| error.to_string())
        }
    });
    table
}

impl RateLimit {
    /// What of the message was not counted yet.
    fn outstanding(&self, cx: &Cx<'_>, counted: u64) -> u64 {
        let number = |name| whole(cx.request.get(name).map_or(0.0, numeric_prefix));
        match self.options.count {
            Counted::Messages => 1_u64.saturating_sub(counted),
            Counted::Bytes => {
                let size = number("size");
                if size == 0 && cx.request.get("protocol_state") != Some(END_OF_MESSAGE) {
                    self.tell_size();
                }
                size.saturating_sub(counted)
            }
            // Postfix knows how many there are when it has them all; until then it asks for each.
            Counted::Recipients => match number("recipient_count") {
                0 => 1,
                all => all.saturating_sub(counted),
            },
        }
    }

    /// Says once in the log that a message may go uncounted.
    fn tell_size(&self) {
        if !self.told_size.swap(true, Ordering::Relaxed) {
            plugins::size_unknown(&self.name);
        }
    }

    /// Says how full the limits are, when it is time to: in the log, and as an event.
    fn tell(&self, key: &str, rates: &Rates, taken: &Taken, cx: &Cx<'_>) {
        for (n, fill) in &taken.notices {
            let (Some(rate), Some(usage)) = (rates.iter().nth(*n), taken.usage.get(*n)) else { continue };
            let (name, count, what) = (&self.name, usage.count, self.options.count);
            let fill = match fill {
                Fill::Nearly => {
                    plugins::nearly_full(name, key, rate, count, what);
                    events::Fill::Near
                }
                Fill::Full => {
                    plugins::full(name, key, rate, count, what);
                    events::Fill::Reached
                }
            };
            let (limit, count) = (rate.to_string(), format!("{count} {what}"));
            let used = LimitUse { count: &count, ..self.used(key, &limit) };
            cx.world.events.limit_filled(fill, &used, || self.until(rate, cx));
        }
    }

    /// Has those told of a limit that is little used again who were told that it was used up.
    fn tell_what_is_over(&self, key: &str, rates: &Rates, taken: &Taken, cx: &Cx<'_>) {
        let algorithm = self.options.algorithm;
        for (rate, usage) in rates.iter().zip(&taken.usage) {
            let percent = usage.count.saturating_mul(100) / rate.most(algorithm).max(1);
            let limit = rate.to_string();
            let used = self.used(key, &limit);
            cx.world.events.limit_stands(percent, &used, || self.until(rate, cx));
        }
    }

    fn used<'a>(&'a self, key: &'a str, limit: &'a str) -> LimitUse<'a> {
        LimitUse { kind: LimitKind::Limits, plugin: &self.name, key, limit, count: "" }
    }

    /// When a limit counts nothing any more, if nothing comes.
    fn until(&self, rate: &Rate, cx: &Cx<'_>) -> Until {
        let life = rate.life(self.options.algorithm);
        Until::Time(cx.world.clock.now_millis().saturating_add(i64::try_from(life).unwrap_or(i64::MAX)))
    }

    async fn exceeded(
        &self,
        key: &str,
        rates: &Rates,
        taken: &Taken,
        cx: &mut Cx<'_>,
    ) -> Result<Verdict, Error> {
        let limits = rates.iter().zip(&taken.usage);
        let Some((rate, usage)) = limits.max_by_key(|(_, usage)| usage.retry_after) else {
            return Ok(Verdict::Next);
        };
        let Usage { count, retry_after } = *usage;
        cx.note(findings::rate_exceeded(key, rate, count, self.options.count));
        cx.beyond_limit();
        self.options.score.add_once(cx.session);
        if self.options.mode.get(cx.session) == Mode::Passive {
            return Ok(Verdict::Next);
        }
        let own = self.options.action.get(cx.session);
        let template = own.as_ref().or_else(|| self.nested.is_empty().then_some(&self.default_action));
        let action = template.map(|template| {
            template.fill(&[
                ("%LIMIT%", &rate.to_string()),
                ("%COUNT%", &count.to_string()),
                ("%RETRY_AFTER%", &whole_seconds(retry_after).to_string()),
            ])
        });
        self.nested.act(action.as_deref(), cx).await
    }
}

/// What Postfix sent as a number, and what a session holds, is one of 0 or more.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    // The conversion ends at the largest number, and takes what is none for 0.
    number as u64
}

/// A client that retries after this many seconds is not too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests;
