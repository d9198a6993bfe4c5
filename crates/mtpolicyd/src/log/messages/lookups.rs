//! Messages about lookups: DNS lists, name servers, queries of the administrator.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Lookups",
    "DNS lists, name servers, and what a server answered to a query.";

    /// The server answers, but refuses us: wrong password, missing permission, unknown database. Correct the
    /// `<Connection>` block or the server.
    error refused(error) = "{error}";
    /// A request held a value that the database has no representation for, so it can't be in the table.
    /// Nothing to do.
    notice value_not_found(error) = "{error}; a value that can't be looked up counts as not found";
    /// The list of name servers has a problem: `resolv.conf` can't be read, or names no server. The previous
    /// one stays in use.
    warning name_servers(problem) = "{problem}";
    /// The DNS list does not answer, or answers with a code that says that it refuses us. Clients pass it
    /// unlisted. A list often refuses public or busy resolvers: use a resolver of your own, or get an
    /// account. Logged at most once per hour and list.
    warning list_unusable(list, cause, failures) =
        "DNS list {list} gave no usable answer, so nothing is listed: {cause} (failures since the last such \
         line, logged at most once per hour: {failures})";
    /// The DNS list has failed two rounds of tests in a row (RFC 5782, section 5): it lists everybody or
    /// nothing, refuses, or does not answer. `mtpolicyd lists --test` shows what it answers. Remove it if it
    /// was closed; a private list without test points has the option `test = off`. Logged once, until it is
    /// well again.
    warning list_quarantined(list, state, advice) = "DNS list {list} is quarantined ({state}): {advice}";
    /// The DNS list has passed its tests again, after this time. Nothing to do.
    warning list_well(list, seconds) = "DNS list {list} is well again, after {seconds} s in quarantine";
    /// The DNS list had not answered for this time. Nothing to do.
    warning list_back(list, seconds) = "DNS list {list} answers again, after {seconds} s";
}
