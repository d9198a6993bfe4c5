//! Codes of doubts: the file is used, but perhaps it does not mean what its writer thinks.
//!
//! Knows: texts. Must not know: where a doubt comes up.

config_general::codes! {
    DOUBTS;
    /// No declaration reads the option or block, so it has no effect. mtpolicyd 2.05 ignores such lines
    /// silently. The help has the nearest name that there is.
    W010 UNKNOWN_OPTION = "an option or block that does not exist",
        ignore "Another program reads the file too.";
    /// The line has a name and no value. The option counts as not given.
    W011 NO_VALUE = "an option without a value", ignore "The default is wanted.";
    /// A line of one word is an option without a value, and no option has this name.
    W012 STRAY_WORD = "a line of one word", ignore "It is a reminder; a comment is a better place for it.";
    /// The option has no effect beside another one that is given, or without one that is not.
    W013 NO_EFFECT = "an option that has no effect here", ignore "The other option will be changed soon.";
    /// A plugin or a virtual host can never do anything: it lacks an option, or nothing leads to it.
    W014 NEVER_ACTS = "a plugin or host that never acts", ignore "It will be completed later.";
    /// The value is used, but something about it is surprising. The text says what.
    W015 STRANGE_VALUE = "a surprising value", ignore "It is meant as it is written.";
    /// Postfix reads the action otherwise than it looks: a first word that it does not know defers every
    /// message, a bare number may be permission. Begin with an action of access(5).
    W016 STRANGE_ACTION = "an action that Postfix reads otherwise",
        ignore "The first word is the name of a restriction class in main.cf.";
    /// An entry of a list or an expression can't be used and is skipped; the others hold.
    W017 SKIPPED_ENTRY = "an entry that is skipped", ignore "The entry is for another program.";
    /// A table or file that an option names can't be used now. The plugin fails until it can.
    W018 NOT_THERE_YET = "a file or service that is not there now", ignore "It is made later.";
    /// The file that is to run in the shadow of a virtual host can't be used; `check` prints what is wrong
    /// with it. The host answers as ever, but has no shadow.
    W019 NO_SHADOW = "a shadow that can't be used", ignore "The file is written later.";

    /// A password or key is in a file that every user of the machine can read. `chown root:mtpolicyd`,
    /// `chmod 640`.
    W020 READABLE_SECRET = "a secret that every user can read",
        ignore "Nobody else has an account on the machine.";
    /// A password or key goes over the network without encryption. Use `https://` or a UNIX socket.
    W021 PLAIN_SECRET = "a secret that is sent unencrypted",
        ignore "The network between is a tunnel or a wire of your own.";
    /// `group` or `chroot` is given without `user`: a daemon that root starts stays root, and a chroot does
    /// not hold root.
    W022 STILL_ROOT = "the daemon stays root although the file looks otherwise",
        ignore "The daemon is never started by root.";
    /// The user that the daemon will be can't read or write a file, or a folder is not there. `check` looks
    /// with the rights of that user.
    W023 NO_ACCESS = "a file that the daemon can't use",
        ignore "The file or folder is made by another program before the daemon starts.";
    /// A table of a database lacks a right or is not as it has to be.
    W024 NO_RIGHT = "a table that can't be used", ignore "The right is granted before the daemon starts.";
    /// A server does not answer now. That is not a mistake of the file: `check --strict` passes it.
    W025 NO_ANSWER = "a server that does not answer now", ignore "It is not running at the moment.";

    /// The domain of a list is not the name of a zone, so nobody is on it.
    W030 NOT_A_ZONE = "a list that can list nobody", ignore "Never: the plugin does nothing.";
    /// Any answer of the list counts, and some mean something else: that it is asked too often, or that it
    /// does not know the client well. On an allow list that lets everybody in. Name the answers that count
    /// with `return_codes`.
    W031 ANY_ANSWER_ALLOWS = "an allow list without return codes",
        ignore "The list has one answer only, and it is your own.";
    /// The return codes include answers that never count: error codes, or what the list says to whoever
    /// may not ask.
    W032 CODE_NEVER_COUNTS = "return codes that never count", ignore "The range is right apart from them.";
    /// The zone is known as a list of good clients, and the plugin rejects those on it.
    W033 REJECTS_GOOD_ONES = "an allow list used to reject", ignore "The zone is a private copy of another.";
    /// The list has been closed. At best it answers nothing and costs a lookup for each message; some closed
    /// lists list every address in the end, so that all mail is rejected. Remove the plugin.
    W034 CLOSED_LIST = "a list that has been closed",
        ignore "The zone is your own, on a name server of your own.";

    /// A plugin adds to a score that no plugin of the file looks at. Point a ScoreAction or AddScoreHeader at
    /// it (`score_field`), or remove the score.
    W040 UNREAD_SCORE = "a score that nobody reads",
        ignore "The scores are only watched, in the log or the journal.";
    /// The plugin stands behind one that answers every request, so its turn never comes.
    W041 NEVER_REACHED = "a plugin that is never reached",
        ignore "The plugin before it is a switch that is removed later.";
    /// `result_from` names no plugin before this one that finds what it needs, so this one never acts.
    W042 NO_RESULT = "a result that nobody finds", ignore "The plugin is in a file that is included later.";
    /// The option looks at a field of the session that no plugin before this one sets.
    W043 UNSET_FIELD = "a field that nobody sets",
        ignore "Another daemon with the same session cache sets it.";
    /// The plugin is asked only at a stage at which Postfix does not know yet what it counts: the number of
    /// recipients is 0 before DATA, and the size is only what the client announces before END-OF-MESSAGE.
    W044 UNKNOWN_AT_STAGE = "a stage that can't deliver what is counted",
        ignore "The size that clients announce is good enough.";
    /// The condition compares the stage with a word that Postfix never sends. The stages are CONNECT, EHLO,
    /// HELO, MAIL, RCPT, DATA, END-OF-MESSAGE, VRFY and ETRN.
    W045 NO_SUCH_STAGE = "a stage that Postfix does not have", ignore "Another program asks the daemon.";

    /// The time-outs do not fit into one another: what a plugin or connection may wait for is not shorter
    /// than the request may take, or the request may take longer than Postfix waits, which is 100 seconds
    /// (`smtpd_policy_service_timeout`). The outer one ends the request first, and the inner one never
    /// applies.
    W050 TIMEOUT_ORDER = "time-outs in the wrong order",
        ignore "The same connection is used without a request too, by the tasks of the night.";
    /// A session is discarded if a request takes longer than its lock holds.
    W051 SHORT_LOCK = "a lock that requests may outlive", ignore "Requests are known to be quicker.";

    /// An `allow` that silences nothing: the doubt is gone, or stands on another line. Remove the comment.
    W090 UNUSED_ALLOW = "an `allow` that silences nothing",
        ignore "The doubt comes up on other machines only.";
    /// The comment names no code of a doubt. A mistake can't be allowed.
    W091 BAD_ALLOW = "an `allow` of no known doubt", ignore "The code is of a newer version.";
}
