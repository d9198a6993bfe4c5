//! Messages about the session cache.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Sessions",
    "The session cache. Without its session a message is still answered, but its checks are made again for \
     each recipient, and its score starts again.";

    /// The memory session cache has reached `max_sessions` or `max_size`. Raise them, or lower `expire`.
    /// Logged at most once per minute.
    warning cache_full() =
        "SessionCache is full; evicting the least recently used sessions (see max_sessions and max_size)";
    /// The store of the sessions answers, but with an error, so requests have sessions in the memory of this
    /// daemon. The text has the cause, such as a table that is missing. Logged at most once per minute.
    error private_session(error) =
        "session cache: {error}; requests have sessions in memory (logged at most once per minute)";
    /// The store of the sessions works again. Lines about its connection say why it did not. Requests were
    /// answered meanwhile with what this daemon knew of their messages. Logged at most once per minute.
    warning cache_back(count) =
        "the session cache is back; {count} requests had a session in memory meanwhile";
    /// A request took longer than its lock on the session, so that another request may have it by now. Raise
    /// `lock_timeout` or look for the slow plugin with `log_level = 4`.
    warning outlived_lock() = "session discarded: the request outlived lock_timeout";
    /// The store has evicted the lock, was restarted, or has failed over. Check its memory limit.
    warning lock_lost() =
        "session discarded: the store lost its lock, and another request has saved the session";
    /// The store could not save the session. The text has the cause.
    warning not_saved(error) = "session discarded: {error}";
    /// The store could not be told that a request has ended. The next request of the message waits until the
    /// lock expires.
    notice not_unlocked(error) = "session lock not released, it will expire: {error}";
}
