//! `Greylist`: has this client tried to send this message before?

mod awl;
mod awl_table;
mod block;
mod by_hand;
mod client;
mod original;
mod sender;
mod tasks;
#[cfg(test)]
mod tests;
mod ticket;
mod triplet;
mod whitelist;

use crate::fields::Template;
use crate::log::messages::{findings, plugins};
use crate::matching::SearchError;
use crate::mode::PassMode;
use crate::network::plain_address;
use crate::options::{OptionSpec, Options, Repeated, codes, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::{Mark, Scoring};
use crate::sender_policy::{Checks, foresee_sender};
use crate::session::{RECIPIENT, Session};
use crate::value::{Count, Flag, Limit, NonZeroSeconds, Seconds};
use awl::{Awl, AwlOptions, domain_of};
use backends::dns::Question;
use backends::keyvalue::{Version, note_removal};
use backends::{BackendError, Call, Failure};
use block::read_block;
use by_hand::leave_states;
use client::{ClientKey, Clients, IPV6_LONGEST, Prefix};
use postfix_policy::Request;
use std::fmt::Write;
use std::time::Duration;
use tasks::{leave_intake, leave_tasks};
use ticket::{Standing, TicketOptions, Tickets};
use triplet::Triplet;
pub use whitelist::unreadable_lines;
use whitelist::{ClientList, ListFile, RecipientList};

options! {
    /// Defers the first attempt of an unknown client and accepts its retry.
    ///
    /// A deferred message leaves a ticket for its combination of sender, client and recipient. A retry that
    /// comes no earlier than `min_retry_wait` and no later than `max_retry_wait` passes and uses up the
    /// ticket. It also adds 1 to the count of this client and sender domain in the auto-whitelist; once that
    /// count reaches `autowl_threshold`, messages from this client and domain are no longer greylisted. As
    /// soon as a message has passed for one of its recipients, it passes for the others too.
    ///
    /// Sender and recipient are the addresses that Postfix will understand, in lower case: a retry from
    /// `alice@Example.org.` is one from `alice@example.org`. Earlier versions stored addresses as they were
    /// written; their tickets and entries are still found.
    ///
    /// Tickets are kept in the connection `memcached` and the auto-whitelist in a table of the connection
    /// `db`, unless the blocks `<Ticket>` and `<AWL>` name others. To do without any other service, use
    /// `module = "Memory"`, whose contents are lost at a restart, or `module = "Sql"` with an SQLite file.
    ///
    /// Clients and recipients in a whitelist file are not greylisted, and the score is not added for them.
    ///
    /// If the store of the tickets fails, the plugin fails, and `on_error` decides about the message. If
    /// only the auto-whitelist fails, a client with a valid ticket still passes, even if this can't be
    /// counted. Any other client gets a ticket and then the plugin fails; so its retry passes even if the
    /// auto-whitelist is still unavailable.
    ///
    /// ```conf
    /// <Connection db>
    ///   module = "Sql"
    ///   dsn = "dbi:SQLite:dbname=/var/lib/mtpolicyd/mtpolicyd.sqlite"
    /// </Connection>
    /// <VirtualHost 12345>
    ///   name = "incoming"
    ///   <Plugin greylist>
    ///     module = "Greylist"
    ///     mode = "passive"
    ///     score = -5
    ///     <Ticket>
    ///       module = "Sql"
    ///     </Ticket>
    ///   </Plugin>
    /// </VirtualHost>
    /// ```
    ///
    /// To catch early retries before expensive checks, but greylist only what these checks find suspicious:
    ///
    /// ```conf
    /// <Connection db>
    ///   module = "Sql"
    ///   dsn = "dbi:SQLite:dbname=/var/lib/mtpolicyd/mtpolicyd.sqlite"
    /// </Connection>
    /// <Connection memcached>
    ///   module = "Memcached"
    /// </Connection>
    /// <VirtualHost 12345>
    ///   name = "incoming"
    ///   <Plugin early-retries>
    ///     module = "Greylist"
    ///     create_ticket = 0
    ///     query_autowl = 0
    ///   </Plugin>
    ///   # DNS lists and other checks
    ///   <Plugin suspicious>
    ///     module = "ScoreAction"
    ///     threshold = 5
    ///     <Plugin greylist>
    ///       module = "Greylist"
    ///       score = -5
    ///     </Plugin>
    ///   </Plugin>
    /// </VirtualHost>
    /// ```
    pub struct GreylistOptions {
        + enabled,
        /// Added to the score of a message that has passed, usually a negative number. It is added once per
        /// message, even if the chain has several Greylist plugins.
        score: Scoring = Mark(SCORED_MARK),
        /// What to do with a message that has passed: `passive` goes on with the next plugin, `accept` and
        /// `dunno` end the chain with `dunno`.
        mode: PassMode = PassMode::Passive,
        /// The answer that defers a message. `%KEY%` is the key of its ticket: the sender, the client as
        /// `client_key` has it, and the recipient, separated by commas.
        defer_message: Template = "defer greylisting is active",
        /// Whether the answer to an early retry ends with the remaining time, as in ` (299s left)`.
        append_waittime: Flag = Flag(true),
        /// How long a client must wait before it may retry.
        min_retry_wait: Seconds = Seconds::of(300),
        /// When a ticket expires. A client that comes back later than this is deferred again.
        max_retry_wait: NonZeroSeconds = NonZeroSeconds(Seconds::of(7200)),
        /// Whether to use an auto-whitelist.
        use_autowl: Flag = Flag(true),
        /// After how many successful retries for a sender domain a client is no longer greylisted for it.
        autowl_threshold: Count = Count(3),
        /// After how many days without a message an entry of the auto-whitelist expires; then counting
        /// starts from 1 again. An hourly task removes expired rows from the table.
        autowl_expire_days: Limit = Limit(60),
        /// The table of the auto-whitelist, created if it is missing. A table of the original gets a unique
        /// index; duplicate rows for the same client and domain are merged and their counts added up.
        autowl_table: String = "autowl".to_owned(),
        /// Whether clients in the auto-whitelist pass. Successful retries are counted in either case.
        query_autowl: Flag = Flag(true),
        /// Whether to defer a client without a ticket and create one; `0` goes on with the next plugin
        /// instead.
        create_ticket: Flag = Flag(true),
        /// What identifies the client in tickets and in the auto-whitelist. Large senders retry from another
        /// address, which `ip` takes for another client. `ip` is the address; `net` the network of the
        /// address, such as `192.0.2.0/24`; `name` the part of the host name that the hosts of a site have
        /// in common; `spf` the domain of the sender, if SPF says that the client may send for it. After a
        /// change of this option the entries in the auto-whitelist no longer match, so known clients are
        /// greylisted again.
        ///
        /// With `spf`, a retry may come from any host that may send for the domain. If the result of SPF is
        /// not `pass` (the message has no sender, the domain has no record, the check fails or the name
        /// service does not answer), the address is used as with `ip`. If there is an SPF plugin before this
        /// one in the chain, its result is used; otherwise the check is made here.
        ///
        /// With `name`, the client is identified by the name that Postfix has verified (`client_name`)
        /// without its first label, so `mail-ej1-f54.google.com` becomes `google.com`. If the rest would be
        /// a public suffix (`com`, `co.uk`, as listed in the Public Suffix List), the first label is kept
        /// and each number in it is replaced by `#`. If the name is generated from the address, as providers
        /// name their customers (it contains all four numbers of the IPv4 address in a row, or the last two
        /// beside a word such as `dsl`, `pool`, `dyn` or `static`, or the address in hexadecimal), the
        /// address is used as with `ip`. A client without a verified name is identified by its network, as
        /// with `net`.
        ///
        /// An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) counts as the IPv4 address.
        client_key: ClientKey = ClientKey::Ip,
        /// Whether to leave out of the ticket those parts of the sender that change with each attempt: what
        /// follows a plus sign, numbers that mailing lists put in (VERP: `bounces-1234-1` is `bounces-#-#`),
        /// and what BATV and SRS add (`prvs=1234abcdef=alice`, `SRS0=AbCd=5X=example.com=alice`). Without it
        /// a message with such a sender may never pass.
        ignore_sender_tags: Flag = Flag(false),
        /// The length of the network prefix of IPv4 addresses, from 1 to 32 bits, for `net` and `name`.
        ipv4_prefix: Prefix<32> = Prefix(24),
        /// The length of the network prefix of IPv6 addresses, from 1 to 64 bits, for `net` and `name`.
        ipv6_prefix: Prefix<IPV6_LONGEST> = Prefix(64),
        /// A file of clients that are not greylisted, in the format of postgrey(8); may be given several
        /// times. Each line has a domain (including its subdomains; the verified name of the client counts),
        /// an address, a network (`192.0.2.0/24`, `2001:db8::/32`), an IPv4 address without its last numbers
        /// (`192.0.2`), or a Perl regular expression between slashes, for the name or the address, ignoring
        /// case. `#` begins a comment. A line that can't be read is skipped with a warning. The file is read
        /// at the start and at a reload.
        whitelist_clients: Repeated<ListFile<ClientList>>,
        /// A file of recipients whose mail is not greylisted, in the format of postgrey(8); may be given
        /// several times. Each line has an address, a user in any domain (`postmaster@`), a domain (including
        /// its subdomains), or a regular expression between slashes. An address with an extension
        /// (`user+extension@example.org`) is found without it too.
        whitelist_recipients: Repeated<ListFile<RecipientList>>,
    }
}

/// What the session remembers of the auto-whitelist's answer, by the name that the original gives it.
const KNOWN_FIELD: &str = "greylist-is_autowl";

/// What it remembers of the ticket: when it becomes valid, and its key.
const TICKET_FIELD: &str = "greylist-ticket";

/// That this message is in the count of the auto-whitelist.
const COUNTED_MARK: &str = "greylist-autowl-add";

/// That this message has its score.
const SCORED_MARK: &str = "greylist-score";

/// How long a message that passes waits for being counted. The count matters to later ones only.
const COUNT_LIMIT: Duration = Duration::from_secs(1);

/// How long removing a ticket may take; meanwhile the connection reads no other request.
const REMOVE_LIMIT: Duration = Duration::from_secs(1);

pub struct Greylist {
    name: String,
    options: GreylistOptions,
    clients: Clients,
    checks: Checks,
    tickets: Tickets,
    awl: Option<Awl>,
}

/// What came of the test.
enum Test {
    Passed,
    /// The client must retry, in this many seconds if it has a ticket already.
    Deferred(Option<i64>),
    /// There is no ticket, and none is made.
    Untested,
}

impl Plugin for Greylist {
    const NAME: &'static str = "Greylist";
    type Options = GreylistOptions;

    fn new(options: GreylistOptions, setup: &mut Setup<'_, '_>) -> Option<Greylist> {
        setup.check_action("defer_message", &options.defer_message.to_string());
        original::notice_what_holds_now(setup);
        let connections = setup.env.connections;
        let (min, max) = (options.min_retry_wait, options.max_retry_wait);
        let tickets =
            read_block(setup.section, "Ticket", |block| Tickets::read(block, connections, min, max));
        let (table, days) = (&options.autowl_table, options.autowl_expire_days);
        let awl = if options.use_autowl.0 {
            read_block(setup.section, "AWL", |block| Awl::read(block, connections, table, days).map(Some))
        } else {
            setup.section.take_blocks("AWL");
            Some(None)
        };
        warn_of_skipped("whitelist_clients", &options.whitelist_clients, setup);
        warn_of_skipped("whitelist_recipients", &options.whitelist_recipients, setup);
        let clients = Clients {
            key: options.client_key,
            ipv4_prefix: options.ipv4_prefix.0,
            ipv6_prefix: options.ipv6_prefix.0,
        };
        let (tickets, awl) = (tickets?, awl?);
        leave_tasks(setup, &tickets, awl.as_ref());
        leave_intake(setup, awl.as_ref(), clients, options.autowl_threshold.0);
        let untagged = options.ignore_sender_tags.0;
        leave_states(setup, &tickets, awl.as_ref(), clients, untagged, options.autowl_threshold.0);
        let name = setup.name.to_owned();
        let checks = Checks::new(setup.env.lookahead);
        Some(Greylist { name, options, clients, checks, tickets, awl })
    }

    fn blocks() -> Vec<(&'static str, Vec<OptionSpec>)> {
        vec![
            ("Options of a Ticket block", TicketOptions::specs()),
            ("Options of an AWL block", AwlOptions::specs()),
        ]
    }

    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        if self.clients.key == ClientKey::Spf {
            foresee_sender(request, session).into_iter().collect()
        } else {
            Vec::new()
        }
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let request = cx.request;
        // What is missing counts as empty, as in the original: leaving an attribute out lets nobody through.
        let attribute = |name| request.get(name).unwrap_or_default();
        let (address, name) = (attribute("client_address"), attribute("client_name"));
        if self.is_whitelisted(address, name, request.recipient().address(), cx).await? {
            cx.note(findings::whitelisted());
            return Ok(Verdict::Next);
        }
        if !self.options.whitelist_recipients.0.is_empty() {
            cx.session.depend_on(RECIPIENT);
        }
        let sending_for = match self.clients.key {
            ClientKey::Spf => self.checks.passing_domain(cx).await,
            ClientKey::Ip | ClientKey::Net | ClientKey::Name => None,
        };
        let client = self.clients.key_of(request, sending_for.as_deref());
        let triplet = Triplet::of(request, &client, self.options.ignore_sender_tags.0);
        let known = self.is_known(&triplet, cx).await;
        if matches!(known, Ok(true)) {
            return Ok(self.pass(cx));
        }
        // A ticket is one for the recipient, though a valid one passes the whole message.
        cx.session.depend_on(RECIPIENT);
        match (self.test(&triplet, cx).await?, known) {
            (Test::Passed, _) => Ok(self.pass(cx)),
            // It may be known: whether it has to wait is for `on_error` to say.
            (Test::Deferred(_) | Test::Untested, Err(error)) => Err(error.into()),
            (Test::Deferred(left), Ok(_)) => Ok(Verdict::Stop(self.deferral(&triplet, left))),
            (Test::Untested, Ok(_)) => Ok(Verdict::Next),
        }
    }
}

impl Greylist {
    async fn is_whitelisted(
        &self,
        address: &[u8],
        name: &[u8],
        recipient: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<bool, SearchError> {
        let (clients, recipients) = (&self.options.whitelist_clients.0, &self.options.whitelist_recipients.0);
        if clients.iter().any(|file| file.list.contains(address, name))
            || recipients.iter().any(|file| file.list.contains(recipient))
        {
            return Ok(true);
        }
        // An expression is compared with the name and with the address.
        let address = plain_address(address);
        let clients = clients.iter().flat_map(|file| [(&file.patterns, name), (&file.patterns, &*address)]);
        let recipients = recipients.iter().map(|file| (&file.patterns, recipient));
        let mut given_up = None;
        for (patterns, value) in clients.chain(recipients) {
            match cx.find(patterns, value).await {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(true),
                Err(error) => given_up = Some(error),
            }
        }
        given_up.map_or(Ok(false), Err)
    }

    /// Whether the auto-whitelist lets the client through. If so, the message is counted.
    async fn is_known(&self, triplet: &Triplet<'_>, cx: &mut Cx<'_>) -> Result<bool, BackendError> {
        let Some(awl) = self.awl.as_ref().filter(|_| self.options.query_autowl.0) else { return Ok(false) };
        if let Some(known) = cx.session.result(KNOWN_FIELD) {
            return Ok(known == "1");
        }
        let written = triplet.as_written();
        let domains = [domain_of(&triplet.sender), domain_of(&written.sender)];
        let now = cx.world.clock.now();
        let count = awl.count(domains, triplet.client, now, cx.call).await?;
        let known = count.is_some_and(|count| count >= self.options.autowl_threshold.0);
        cx.session.set_for_message(KNOWN_FIELD, if known { "1" } else { "0" });
        if known {
            cx.note(findings::auto_whitelisted(triplet));
            self.count(awl, triplet, cx).await;
        }
        Ok(known)
    }

    /// Looks for the ticket, and makes or uses it.
    async fn test(&self, triplet: &Triplet<'_>, cx: &mut Cx<'_>) -> Result<Test, BackendError> {
        let (now, call) = (cx.world.clock.now(), cx.call);
        let key = self.tickets.key(triplet);
        let written = Some(self.tickets.key(&triplet.as_written())).filter(|written| *written != key);
        let mut versions = [Version::Unknown; 2];
        let ticket = match recall_ticket(cx, &key, now) {
            Some(ticket) => ticket,
            None => {
                let mut found = self.tickets.get(&key, call).await?;
                versions[0] = found.map_or(Version::Unknown, |(_, version)| version);
                if let (None, Some(written)) = (found, &written) {
                    found = self.tickets.get(written, call).await?;
                    versions[1] = found.map_or(Version::Unknown, |(_, version)| version);
                }
                let ticket = found.map(|(ticket, _)| ticket);
                remember_ticket(cx, &key, ticket);
                ticket
            }
        };
        match ticket.map(|ticket| self.tickets.standing(ticket, now)) {
            Some(Standing::Valid) => {
                cx.note(findings::ticket_valid(triplet));
                if let Some(awl) = &self.awl
                    && cx.session.first_in_message(COUNTED_MARK)
                {
                    self.count(awl, triplet, cx).await;
                }
                self.use_up(triplet, std::iter::once(key).chain(written).zip(versions), cx);
                Ok(Test::Passed)
            }
            Some(Standing::Early(left)) => {
                cx.note(findings::ticket_early(triplet, left));
                Ok(Test::Deferred(Some(left)))
            }
            Some(Standing::Absurd) => {
                cx.note(findings::ticket_from_the_future(triplet));
                self.tickets.replace(&key, now, call).await.map(|left| Test::Deferred(Some(left)))
            }
            None if self.options.create_ticket.0 => {
                cx.note(findings::ticket_created(triplet));
                self.tickets.create(&key, now, call).await.map(|()| Test::Deferred(None))
            }
            None => Ok(Test::Untested),
        }
    }

    /// Removes a ticket once Postfix has its answer: a daemon that dies before must not have the client wait
    /// twice.
    fn use_up(&self, triplet: &Triplet<'_>, used: impl Iterator<Item = (Vec<u8>, Version)>, cx: &mut Cx<'_>) {
        let (name, triplet) = (self.name.clone(), triplet.to_string());
        let used = used.inspect(|(key, _)| note_removal(key, cx.call));
        let tickets: Vec<_> = used.map(|(key, version)| self.tickets.used(key, version)).collect();
        cx.after.add(async move {
            for ticket in tickets {
                if let Err(error) = ticket.remove(Call::within(REMOVE_LIMIT)).await {
                    plugins::ticket_not_removed(&name, &triplet, error);
                }
            }
        });
    }

    /// Counts a message that passes, which it does even if that fails.
    async fn count(&self, awl: &Awl, triplet: &Triplet<'_>, cx: &Cx<'_>) {
        let call = cx.call.at_most(COUNT_LIMIT);
        let domain = domain_of(&triplet.sender);
        match awl.add_one(domain, triplet.client, cx.world.clock.now(), call).await {
            Ok(()) => {}
            // That was said when it was found.
            Err(BackendError { failure: Failure::Down(_), .. }) => {}
            Err(error) => {
                plugins::not_counted(&self.name, triplet, error);
            }
        }
    }

    fn deferral(&self, triplet: &Triplet<'_>, left: Option<i64>) -> String {
        let mut answer = self.options.defer_message.fill(&[("%KEY%", &triplet.to_string())]);
        if let Some(left) = left.filter(|_| self.options.append_waittime.0) {
            let _ = write!(answer, " ({left}s left)");
        }
        answer
    }

    fn pass(&self, cx: &mut Cx<'_>) -> Verdict {
        self.options.score.add_once(cx.session);
        self.options.mode.verdict()
    }
}

/// What the session knows of the ticket with this key: `Some(None)` that there is none. A valid ticket of one
/// recipient counts for all of the message.
fn recall_ticket(cx: &Cx<'_>, key: &[u8], now: i64) -> Option<Option<i64>> {
    let (time, of) = cx.session.result(TICKET_FIELD)?.split_once(' ')?;
    let ticket: Option<i64> = time.parse().ok();
    let counts = ticket.is_some_and(|ticket| ticket < now) || of == String::from_utf8_lossy(key);
    counts.then_some(ticket)
}

fn remember_ticket(cx: &mut Cx<'_>, key: &[u8], ticket: Option<i64>) {
    let time = ticket.map_or("-".to_owned(), |ticket| ticket.to_string());
    cx.session.set_for_message(TICKET_FIELD, &format!("{time} {}", String::from_utf8_lossy(key)));
}

fn warn_of_skipped<L>(option: &str, files: &Repeated<ListFile<L>>, setup: &Setup<'_, '_>) {
    for file in &files.0 {
        for (line, why) in file.skipped.iter() {
            let message = format!("file {file}, line {line}: {why}; the line is skipped");
            setup.warn_as(&codes::SKIPPED_ENTRY, option, message);
        }
    }
}
