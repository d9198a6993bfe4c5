//! Messages of the console.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "The console",
    "Pages for browsers, with the block `<Console>`: the port, and who signs in.";

    /// The address of `<Console>` can't be opened, or its certificate can't be used, so nobody can see the
    /// console; requests of Postfix are answered. Free the port or correct the option, then reload.
    error no_console(error) = "no console: {error}";
    /// The certificate of the console was replaced by one that can't be used; the previous one stays in use.
    /// The files are read again every minute until they can be.
    error console_certificate_kept(error) =
        "console: the new certificate can't be used: {error}; the previous one stays in use";
    /// The certificate of the console was replaced, and the new one is in use. Nothing to do.
    notice console_certificate_new() = "console: the new certificate is in use";
    /// Somebody has asked for a link with `mtpolicyd console open`. Nothing to do.
    notice console_link(user, level) = "console: link for {user}, level {level}";
    /// Somebody has made a token with `mtpolicyd console token add`. Nothing to do.
    notice console_token_added(user, name, level) = "console: token {name}, level {level}, made by {user}";
    /// Somebody has removed a token; whoever was signed in by it no longer is. Nothing to do.
    notice console_token_removed(user, name) = "console: token {name} removed by {user}";
    /// Somebody has signed in to the console, by a link or with a token. Nothing to do.
    notice console_signed_in(name, level, client) = "console: {name} signed in from {client}, level {level}";
    /// Somebody has tried a link or a token that is not valid, or not any more. After five within a minute
    /// the client has to wait. If it goes on, look at who the client is.
    warning console_refused(client) = "console: sign-in refused for {client}";
}
