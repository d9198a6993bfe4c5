//! Codes of mistakes: with one of them the file is not used.
//!
//! Knows: texts. Must not know: where a mistake is found.

config_general::codes! {
    MISTAKES;
    /// An option that can be given once is given again. Keep one of the lines.
    E010 REPEATED_OPTION = "an option occurs more than once";
    /// The block can't do without the option. Add it; if something like it is there, it is misspelled.
    E011 MISSING_OPTION = "a required option is missing";
    /// The text is not a value of this option: a word that is none of the allowed ones, a number that is not
    /// a number. The help says what a value looks like.
    E012 BAD_VALUE = "a value that can't be read";
    /// The value can be read, but it can't be used here: it contradicts another option, or this build of the
    /// daemon does not have what it asks for.
    E013 UNUSABLE_VALUE = "a value that can't be used";
    /// Options of the block exclude one another, or one of them needs another that is not there.
    E014 CONTRADICTION = "options that contradict each other";
    /// A block, or a plugin of one name, is there more than once where one of them is expected.
    E015 REPEATED_BLOCK = "a block occurs more than once";
    /// Something about a block as a whole is wrong: it has no name, or is nested too deep, or can't be used
    /// as it stands.
    E016 BAD_BLOCK = "a block that can't be used";
    /// `module` names no plugin that there is.
    E017 NO_MODULE = "there is no such module";
    /// An option names a `<Connection>` that the file does not have, or one of another kind.
    E018 NO_CONNECTION = "there is no such connection";
    /// Options of mtpolicyd 1.x that 2.x removed. The help has the block to write in their place.
    E019 REMOVED_OPTION = "an option of mtpolicyd 1.x";
    /// No virtual host is configured, or one has no port or no plugin, or nobody answers on a port.
    E020 BAD_HOST = "a virtual host that can't answer";
    /// The user or group that the daemon is to become does not exist, or may not be taken.
    E021 NO_USER = "there is no such user or group";
}
