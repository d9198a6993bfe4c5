//! Every number that the daemon has.
//!
//! Knows: names, labels and what they mean. Must not know: where a number comes from.

use super::{Configured, Word, metrics};

metrics! {
    /// Requests that were answered, by what Postfix was told. `closed` means that the connection was closed
    /// without an answer.
    counter requests(host: &Configured, outcome: Word) = "mtpolicyd_requests";
    /// Time from a request to its answer. The example of a bucket is the last decision in it, which
    /// `mtpolicyd explain` shows.
    histogram request_seconds(host: &Configured) in seconds = "mtpolicyd_request_seconds";
    /// Requests of which is known what the shadow of the host (option `shadow`) would have decided, by what
    /// Postfix was told and by that. Pairs that never occurred are left out.
    counter shadow(host: &Configured, live: Word, shadow: Word) = "mtpolicyd_shadow";
    /// Requests that a shadow has not looked at: `busy` (too many at once) or `left_out` (the request can't
    /// be decided again, since its time was over or it had no session).
    counter shadow_dropped(host: &Configured, reason: Word) = "mtpolicyd_shadow_dropped";
    /// Turns of a plugin, by how they ended: `next` (the chain went on), `stopped` (it decided), `skipped`
    /// (a backend failed and the chain went on), `failed` (a backend failed and that ended the chain),
    /// `undecided` (the request itself kept it from deciding), `off` (it is switched off), `not_finished`
    /// (the time of the request was over).
    counter plugin_outcomes(host: &Configured, plugin: &Configured, outcome: Word) =
        "mtpolicyd_plugin_outcomes";
    /// Requests beyond a limit of RateLimit or a quota, whatever was done about it.
    counter limit_hits(host: &Configured, plugin: &Configured) = "mtpolicyd_limit_hits";
    /// Time that the turns of a plugin took, with the plugins inside it.
    counter plugin_seconds(host: &Configured, plugin: &Configured) in seconds = "mtpolicyd_plugin_seconds";
    /// Questions to servers, by the kind of the server and where the answer came from: `asked`,
    /// `asked_ahead` (before the plugin wanted it) or `remembered`. At most 64 per request are counted.
    counter lookups(kind: Word, origin: Word) = "mtpolicyd_lookups";
    /// Time that requests waited for servers of this kind.
    counter lookup_seconds(kind: Word) in seconds = "mtpolicyd_lookup_seconds";
    /// Answers of a DNS list: `listed`, `clear`, `refused` (an error code), `timeout`, `error`, or `ignored`
    /// (the list says the same of everybody).
    counter dnslist_answers(list: &Configured, answer: Word) = "mtpolicyd_dnslist_answers";
    /// 1 for the state that a DNS list is in, 0 for the others.
    gauge dnslist_state(list: &Configured, state: Word) = "mtpolicyd_dnslist_state";
    /// 1 if a DNS list is quarantined, since it failed two tests in a row.
    gauge dnslist_quarantined(list: &Configured) = "mtpolicyd_dnslist_quarantined";
    /// 1 if a server that the configuration names answers, 0 if not. It is asked when the numbers are.
    gauge backend_up(connection: &Configured) = "mtpolicyd_backend_up";
    /// Time that calls to a server or database took that has answered, refused, or not answered in time, with
    /// those of tasks; also one in a file. What was not asked since it is down counts as an error only.
    histogram backend_seconds(connection: &Configured) in seconds = "mtpolicyd_backend_seconds";
    /// Calls that failed: `down` (nobody was reached, or it is known to be down and was not asked),
    /// `timeout`, `refused`, `no_table` (the daemon makes it and asks again), `bad_value` (the request's own
    /// content), `denied` (a right is missing).
    counter backend_errors(connection: &Configured, kind: Word) = "mtpolicyd_backend_errors";
    /// Values in a store in memory, those included that have expired and were not removed yet.
    gauge memory_store_entries(store: &Configured) = "mtpolicyd_memory_store_entries";
    /// Open connections of Postfix.
    gauge connections() = "mtpolicyd_connections";
    /// Maximum number of them.
    gauge connections_limit() = "mtpolicyd_connections_limit";
    /// Connections of Postfix that were accepted.
    counter connections_accepted() = "mtpolicyd_connections_accepted";
    /// Connections of Postfix that ended: `quiet` (between two requests), `cut` (within one, or the client
    /// was too slow), `broken` (not a policy request), `evicted` (another one needed the place), `failed`
    /// (the socket).
    counter connections_ended(reason: Word) = "mtpolicyd_connections_ended";
    /// Sessions of messages that are kept in memory.
    gauge sessions() = "mtpolicyd_sessions";
    /// Questions to name servers that have no answer yet.
    gauge dns_in_flight() = "mtpolicyd_dns_in_flight";
    /// Answers of name servers that are remembered.
    gauge dns_cache_entries() = "mtpolicyd_dns_cache_entries";
    /// Memory that they take.
    gauge dns_cache_bytes() in bytes = "mtpolicyd_dns_cache_bytes";
    /// 1 if the journal can be written, 0 if not.
    gauge journal_up() = "mtpolicyd_journal_up";
    /// Decisions handed to the journal.
    counter journal_sent() = "mtpolicyd_journal_sent";
    /// Decisions that the journal has lost.
    counter journal_lost() = "mtpolicyd_journal_lost";
    /// Decisions that are not in the file, or the database, yet.
    gauge journal_queue() = "mtpolicyd_journal_queue";
    /// Decisions in the file, or in the database those of all daemons.
    gauge journal_decisions() = "mtpolicyd_journal_decisions";
    /// How far back the journal has every decision that it was handed.
    gauge journal_oldest() in seconds = "mtpolicyd_journal_oldest_seconds";
    /// Size of the file, as far as it is in use, or of all blocks in the database.
    gauge journal_bytes() in bytes = "mtpolicyd_journal_bytes";
    /// Events by their kind, whether they began or ended something.
    counter events(kind: Word) = "mtpolicyd_events";
    /// Events for a receiver of `<Notify>`: `delivered`, `failed` (given up) or `dropped` (too many waited).
    counter event_deliveries(receiver: &Configured, result: Word) = "mtpolicyd_event_deliveries";
    /// Events that wait for a receiver.
    gauge events_waiting(receiver: &Configured) = "mtpolicyd_events_waiting";
    /// Reloads of the configuration: `reloaded`, or `refused` because of mistakes or of this machine.
    counter reloads(result: Word) = "mtpolicyd_reloads";
    /// The hash of the configuration in use, which the log has too.
    info config(hash: &Configured) = "mtpolicyd_config";
    /// When it was read, in seconds since 1970.
    gauge config_read() in seconds = "mtpolicyd_config_read_timestamp_seconds";
    /// Warnings about it.
    gauge config_warnings() = "mtpolicyd_config_warnings";
    /// The program.
    info build(version: Word) = "mtpolicyd_build";
    /// Processor time of the process.
    counter process_cpu() in seconds = "process_cpu_seconds";
    /// Memory of the process that is in use.
    gauge process_resident_memory() in bytes = "process_resident_memory_bytes";
    /// Address space of the process.
    gauge process_virtual_memory() in bytes = "process_virtual_memory_bytes";
    /// Threads of the process.
    gauge process_threads() = "process_threads";
    /// Open files of the process.
    gauge process_open_fds() = "process_open_fds";
    /// Maximum number of them.
    gauge process_max_fds() = "process_max_fds";
    /// When the process began to answer, in seconds since 1970.
    gauge process_start_time() in seconds = "process_start_time_seconds";
}
