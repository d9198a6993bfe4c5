//! Messages about work that no request asks for: tables made at the start, expired rows removed.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Tasks",
    "What is done at the start and every hour, day, week or month. The name of the plugin comes first: \
     `NAME: TEXT`.";

    /// A task has done its work. The texts are below.
    notice done(plugin, done) = "{plugin}: {done}";
    /// A task could not do its work. It is retried at its next time; look at the cause.
    error failed(plugin, error) = "{plugin}: {error}";
    /// A request had to change a table, or could not; the texts are the last three below.
    warning changed(done) = "{done}";
    /// The table of the auto-whitelist exists. Nothing to do.
    task whitelist_ready() = "the auto-whitelist is ready";
    /// Entries of the auto-whitelist were removed after `autowl_expire_days`. Nothing to do.
    task whitelist_expired(count) = "{count} entries of the auto-whitelist have expired";
    /// Values of a SQL store were removed: greylist tickets, trapped clients, sessions. Nothing to do.
    task values_expired(count) = "{count} values have expired";
    /// Reservations of a quota had never been confirmed. Nothing to do.
    task reservations_expired(count) = "{count} reservations have expired";
    /// Accounting removed what is older than `keep`. Nothing to do.
    task rows_expired(count) = "{count} old rows were removed";
    /// RateLimit removed counts of windows that have passed. Nothing to do.
    task counts_expired(count) = "{count} old counts were removed";
    /// The original or an earlier version has counted under keys as they were written in the request, such as
    /// `BOB` for `bob`. Nothing to do.
    task spellings_merged(table, count) =
        "table {table}: {count} rows with another spelling of their key were added to those of the key";
    /// The same, but the database user may not remove rows. Grant the right DELETE, or leave it: such rows
    /// count only for requests with the same spelling.
    task spellings_left(table, why) =
        "table {table}: rows with another spelling of their key can't be added to those of the key ({why})";
    /// The same for the domains of the auto-whitelist. Nothing to do.
    task whitelist_spellings_merged(count) =
        "{count} entries of the auto-whitelist with another spelling of their domain were added to those of \
         the domain";
    /// The table was made by an earlier program with narrow columns. Also logged as a warning during a
    /// request. Nothing to do.
    task columns_widened(table, columns) = "table {table}: the columns {columns} now hold numbers of 64 bits";
    /// The table has narrow columns and the database user may not change them. Run the statement as an
    /// administrator. Also logged as a warning during a request.
    task columns_narrow(table, columns, why, largest, statement) =
        "table {table}: the columns {columns} are narrow and can't be changed ({why}): counting stops at \
         {largest}, and no quota beyond that is ever reached; an administrator may run: {statement}";
    /// The table was made by mtpolicyd 2 in MariaDB or MySQL, where letters with and without accents were the
    /// same. Also logged as a warning during a request. Nothing to do.
    task accents_separated(table) =
        "table {table}: keys that differ in accents only are now counted separately";
    /// The same, but the database user may not change the table. Run the statement as an administrator. Also
    /// logged as a warning during a request.
    task accents_ignored(table, why, statement) =
        "table {table}: keys that differ in accents only are counted as one, and this can't be changed \
         ({why}); an administrator may run: {statement}";
    /// The table had several rows for the same key and time, which were added up. Also logged as a warning
    /// during a request. Nothing to do.
    task rows_merged(table, count) = "table {table}: {count} rows that repeated key and time were merged";
}
