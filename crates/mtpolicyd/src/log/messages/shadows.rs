//! Messages about configurations that run in the shadow of virtual hosts.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Shadows",
    "Configurations that are tried in the shadow of a virtual host, with `shadow` in its block.";

    /// A file runs in the shadow of a virtual host from now on, at the start and at each reload. Nothing to
    /// do.
    notice shadow(host, path) = "{host}: {path} runs in its shadow";
    /// A mistake in a file that is to run in a shadow. `mtpolicyd check` of the daemon's own file prints it
    /// together with the line; correct it and reload.
    error shadow_mistake(text) = "shadow: {text}";
    /// The file can't run in the shadow of these virtual hosts, which answer as ever. What is wrong with it
    /// is in the lines before this one, if it is a mistake in the file.
    error no_shadow(hosts, path, why) = "{hosts}: no shadow: {path} can't be used: {why}";
    /// The shadow would have decided a request otherwise: what was answered, what would have been, the plugin
    /// of the shadow that decided, and the request as an example, which `mtpolicyd explain` shows. Logged at
    /// most once per minute for the same two outcomes; the last number counts those that were not logged
    /// since. `mtpolicyd decisions --shadow-differs` lists all of them.
    notice shadow_differs(host, live, shadow, by, id, more) =
        "{host}: shadow differs: live={live} shadow={shadow} by={by} id={id} more={more}";
}
