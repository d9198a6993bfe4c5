//! Messages about the journal of decisions.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "The journal",
    "The file or the database of the block `<Journal>`. Whatever is wrong with it, requests are answered as \
     before.";

    /// Decisions can't be written; logged at most once per minute. It is tried again every second, and up to
    /// 4,096 decisions wait for it; further ones are lost. Look at the cause: a full disk, missing rights, a
    /// file of another program or of a later version, which stays as it is; a database that is down, or that
    /// refuses something.
    error unwritable(why, count) = "journal: {why}; {count} decisions were lost";
    /// Decisions can be written again. Those that waited are in the journal.
    notice writable(file, count) = "journal: {file} is written again; {count} decisions were lost";
    /// More decisions came than could be written; logged at most once per minute. The disk may be slow.
    warning lost(count) = "journal: {count} decisions were lost, since they could not be written in time";
    /// Two daemons that share the database give their decisions identifiers with the same number, so two
    /// decisions may have the same one. Both are kept, but a search shows one of them. Set another `node` in
    /// one of the two. Logged once per hour.
    warning same_node(host, node) =
        "journal: the daemon on {host} has the same number too (node = {node}), so identifiers of decisions \
         may occur twice";
    /// The file was damaged. It has another name now, under which it may be looked at or removed, and a new
    /// one was begun.
    error put_aside(why, renamed, count) =
        "journal: {why}; it is now {renamed}, and a new one was begun without its {count} decisions";
    /// Somebody has removed the file or put another one in its place. The daemon goes on with what is there,
    /// or a new one.
    warning removed(why) = "journal: {why}; the daemon writes to the file that is there now, or a new one";
    /// The system has no thread left for the journal, so decisions are kept in memory only. Look at the limit
    /// of processes (`ulimit -u`, `TasksMax=`) and restart.
    error no_thread(error) = "journal: {error}; decisions are not written";
    /// An administrator has had everything removed that names somebody, with `mtpolicyd decisions forget`.
    /// Decisions in memory may also be among those of the journal.
    notice forgotten(user, count, memory) =
        "journal: {user} had everything about an address removed: {count} decisions of the journal, \
         {memory} in memory";
    /// It could not be removed from the journal; of those in memory it was. Do it again.
    error not_forgotten(user, error) =
        "journal: {user} wanted everything about an address removed, which failed: {error}";
    /// The daemon has ended before everything was written.
    warning not_finished(file) =
        "journal: {file} could not be written in time, so the last decisions are lost";
}
