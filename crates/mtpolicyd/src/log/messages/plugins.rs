//! Messages of plugins about their own state, apart from what they find about a message.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Plugins",
    "What goes wrong in a plugin without ending the request.";

    /// A lookup of this plugin does not work: the query or the filter is wrong, a table or a permission is
    /// missing, settings are not JSON, or answers can't be shared. The text says which. Such a lookup counts
    /// as having found nothing.
    error lookup_failed(plugin, what) = "{plugin}: {what} (logged at most once per minute)";

    /// The client passed the greylist, but its ticket could not be removed. It expires by itself; check the
    /// connection.
    warning ticket_not_removed(plugin, triplet, error) =
        "plugin {plugin}: the ticket of {triplet} could not be removed: {error}";
    /// The auto-whitelist could not count a message. It passes in any case; check the connection.
    warning not_counted(plugin, triplet, error) = "plugin {plugin}: {triplet} was not counted: {error}";
    /// Rows of the auto-whitelist that stood for the same sender and client were added up, once, after an
    /// upgrade. Nothing to do.
    warning whitelist_merged(table, connection, removed, merged) =
        "table {table} of connection {connection}: {removed} duplicate rows were merged into {merged} \
         others, so that the table could get a unique index";
    /// The honeypot could not store the client. Its message to the trap is handled, later ones are not
    /// recognised; check the connection.
    warning not_trapped(plugin, client, error) = "plugin {plugin}: {client} was not recorded: {error}";
    /// Postfix asks Quota before the number or the size is known. Move the policy service to
    /// `smtpd_end_of_data_restrictions`. Logged once per plugin.
    warning metric_unknown(plugin, metric, why) = "plugin {plugin}: metric {metric}: {why}";
    /// Postfix asks Accounting before the number of recipients or the size is known. Move the policy service
    /// to `smtpd_end_of_data_restrictions`. Logged once per plugin.
    warning amount_unknown(plugin, why) = "plugin {plugin}: {why}";
    /// The database user may not write the table of reservations. Grant the permissions, or accept that a
    /// quota may be exceeded by messages that arrive at the same moment.
    warning no_reservations(table, why, reservations) =
        "table {table}: no message can have a place reserved ({why}), so messages that are checked at the \
         same time may exceed a quota together; reservations need the rights SELECT, INSERT and DELETE on \
         the table {reservations}";
    /// A reserved place of a quota could not be given back. Until it expires, the quota counts one message
    /// more.
    notice reservation_left(error) = "a reservation was not released, it will expire: {error}";
    /// The web service of HttpLookup sent a member that the plugin does not have. Check its spelling. Logged
    /// once per name.
    warning unknown_member(plugin, name) =
        "{plugin}: the answer has `{name}`, which is unknown and ignored (logged once)";
    /// RateLimit counts bytes, but a client did not announce a size. Ask in `smtpd_end_of_data_restrictions`,
    /// where Postfix knows it. Logged once per plugin.
    warning size_unknown(plugin) =
        "{plugin}: a client has not announced the size of its message; it counts only if Postfix also asks \
         in smtpd_end_of_data_restrictions";
    /// A key has used most of its limit. Look at what this user or client sends.
    warning nearly_full(plugin, key, rate, count, what) =
        "{plugin}: {key} is at 80 % of {rate}: {count} {what}";
    /// A key has reached its limit; its messages are refused, unless the plugin is passive. An account may
    /// have been stolen.
    warning full(plugin, key, rate, count, what) = "{plugin}: {key} has used up {rate}: {count} {what}";
    /// An administrator has changed what a plugin remembers, with a command or over the control socket. The
    /// command at the end undoes it.
    notice changed_by_hand(plugin, key, done, who, undo) =
        "{plugin}: {key}: {done}, by {who}; undo: {undo}";
}
