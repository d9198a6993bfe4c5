//! Codes of notices: worth knowing, and passed by `check --strict`.
//!
//! Knows: texts. Must not know: where something is noticed.

config_general::codes! {
    NOTICES;
    /// The options belong to the prefork model or to Net::Server, which the original is made of. One process
    /// serves all connections here, so they have no effect and may be removed.
    N001 NO_EFFECT_ANY_MORE = "options of the original that have no effect",
        ignore "The file is still used with mtpolicyd 2.05.";
    /// mtpolicyd 2.05 ignored the option, and now it holds. Look whether its value is what you want.
    N002 HOLDS_NOW = "an option that 2.05 ignored", ignore "The value is as it should be.";
    /// The file sets no `user`, so a daemon that root starts stays root.
    N003 STAYS_ROOT = "the daemon stays root if root starts it",
        ignore "Another program, such as systemd, starts it as another user.";
    /// Something about the file is worth knowing.
    N004 WORTH_KNOWING = "something worth knowing", ignore "It is known.";
}
