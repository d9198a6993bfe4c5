//! Every message that the clients of servers log: its text, its level, and what to do about it.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Connections",
    "The `<Connection>` blocks and other servers that plugins ask. Requests do not ask a connection that is \
     down; one task retries it until it is back.";

    /// The server is unreachable, refused the connection or did not answer in time. `on_error` of each plugin
    /// decides what becomes of requests meanwhile. Logged once per outage.
    error down(connection, cause) = "connection {connection} is down: {cause}";
    /// The server answers again. Nothing to do.
    warning back(connection) = "connection {connection} is back";
    /// The server, or its user, may have fewer connections than `max_connections` of the `<Connection>`
    /// block. Requests wait for one another; lower `max_connections` or raise the limit of the server. Logged
    /// at most once per minute.
    warning no_more_connections(connection, cause) =
        "connection {connection}: the server accepts no more connections: {cause}; requests share those that \
         are open";
    /// The process may read this SQLite file but not write it. Nothing to do if that is intended; otherwise
    /// check the owner of the file and of its folder.
    notice read_only(connection, path) = "connection {connection}: {path} is read-only";
    /// The file system (often NFS) can't share memory between processes. Move the file to a local disk if
    /// commits are too slow.
    warning no_write_ahead_log(connection, mode) =
        "connection {connection}: the file system does not support a write-ahead log; commits are slower \
         with {mode}";
    /// The write-ahead log of a SQLite file that no longer exists could not be removed. Remove it by hand,
    /// or SQLite may apply it to the new file.
    warning left_behind(connection, path, error) = "connection {connection}: can't remove {path}: {error}";
    /// Somebody has removed or replaced the SQLite file while it was in use. What was in it is lost unless it
    /// was moved.
    warning file_replaced(connection) =
        "connection {connection}: the file was removed or replaced; opening it again";
    /// Somebody has removed the `-wal` file of a SQLite database while it was in use. Do not remove it.
    warning log_removed(connection) =
        "connection {connection}: the write-ahead log was removed; opening the file again";
    /// A query of the administrator returned too much. Add a condition or a `LIMIT` to it.
    warning too_many_rows(rows, bytes) =
        "a query returned more than {rows} rows or {bytes} bytes; the rest is ignored";
    /// The memory store has reached `max_entries` or `max_size`. Raise them, or move to Redis or SQL. Logged
    /// at most once per minute.
    warning store_full(connection) =
        "Connection {connection}: the store is full; values that expire first are evicted (see max_entries \
         and max_size)";
    /// Something other than memcached listens at this address. Correct the `<Connection>` block.
    error not_memcached(connection, reply) = "connection {connection}: not the memcached protocol: {reply}";
    /// fail2ban did not answer in time. Bans are still sent, and requests no longer wait for the answer.
    error fail2ban_late(connection) =
        "connection {connection}: no reply in time; requests no longer wait for it";
    /// fail2ban answers in time again. Nothing to do.
    warning fail2ban_back(connection) = "connection {connection} replies again";
    /// fail2ban refused a ban or never answered, and the request that wanted it has ended already. Check the
    /// name of the jail.
    error fail2ban_failed(error) = "{error}";
}
