//! Messages of the daemon as a whole: start, reload, shutdown, listeners, client connections, requests.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "The daemon and its clients",
    "Start, reload and shutdown, the ports, the connections of Postfix, and requests that failed.";

    /// All ports are open and requests are answered. Nothing to do.
    notice listening(version, addresses) = "mtpolicyd {version} listens on {addresses}";
    /// The configuration that is in use from now on, at the start and at each reload. Daemons whose
    /// configurations say the same, except for the addresses to listen on, log the same hash. Comments and
    /// blanks make no difference, and neither do values that may hold a password.
    notice configuration_in_use(path, hash) = "the configuration {path} has the hash {hash}";
    /// A warning about the configuration file, at the start or at a reload. `mtpolicyd check` prints it
    /// together with the line.
    warning configuration_warning(text) = "{text}";
    /// A mistake in the configuration file, at a reload. `mtpolicyd check` prints it together with the line;
    /// correct it and reload again.
    error configuration_error(text) = "{text}";
    /// Something worth knowing about the configuration file. Nothing to do.
    notice configuration_notice(text) = "{text}";
    /// The daemon could not start, or had to stop: a port is in use, a permission is missing, a file can't
    /// be opened. The text says which; remove the cause and start it again.
    error stopped(error) = "{error}";
    /// `log_file` can't be opened, so the log goes to the standard error. Check the folder and its owner,
    /// then reload.
    error no_log_file(error) = "{error}: logging here instead";
    /// The daemon runs as root because no other user is configured. Set `user` and `group`, or `User=` in the
    /// systemd unit.
    warning runs_as_root(note) = "{note}";
    /// The limit of open files (`ulimit -n`, `LimitNOFILE=`) is too low for `max_connections`. Raise the
    /// limit or lower the option.
    warning too_few_files(wanted, places) =
        "max_connections = {wanted} exceeds the limit of open files; using {places}";
    /// A connection of the configuration did not answer within two seconds at the start. Requests are
    /// answered already; a line about the connection follows if it is down.
    warning starting_without() = "a connection is slow or down; opening the ports without waiting for it";
    /// The new configuration is in use. Nothing to do.
    notice reloaded(path) = "reloaded {path}";
    /// The configuration file has mistakes, which are in the lines before this one. Correct them and reload
    /// again.
    error not_reloaded() = "not reloaded: the old configuration stays in use";
    /// The new configuration can't be used on this machine, for instance because a port is in use. Remove the
    /// cause and reload again.
    error reload_failed(error) = "not reloaded: {error}; the old configuration stays in use";
    /// Somebody has asked for a reload with `mtpolicyd reload` or at the control socket; what came of it
    /// follows. Nothing to do.
    notice reload_requested(user) = "reload requested by {user}";
    /// Somebody has changed how much is logged, with `mtpolicyd log-level`. Nothing to do.
    notice log_level_requested(user, level, time) = "log level {level} requested by {user}, {time}";
    /// The time of a log level that was set by hand is over. Nothing to do.
    notice log_level_is_back(level) = "log level {level} again, as configured";
    /// The socket for `mtpolicyd status` and the other commands can't be made, so they do not work; requests
    /// of Postfix are answered. Name another path with `socket` in `<Control>`, or write `enabled = off`
    /// there.
    notice no_control_socket(error) = "no control socket: {error}";
    /// The port of `<Metrics>` can't be opened, so monitoring can't read the numbers there; requests of
    /// Postfix are answered. Free the port or name another one, then reload.
    error no_metrics(error) = "no metrics: {error}";
    /// A reload was requested while another one was running. Nothing to do.
    warning reload_queued() =
        "a reload is in progress; the configuration will be read again when it has finished";
    /// This option is only read at the start. Restart the daemon to use its new value.
    warning needs_restart(option) = "the changed {option} takes effect at the next restart";
    /// The new configuration does not use this port. Nothing to do.
    notice port_closed(address) = "no longer listening on {address}";
    /// Somebody has asked for a new process with `mtpolicyd reload --exec`. Nothing to do.
    notice handover_requested(user) = "handover requested by {user}";
    /// SIGUSR2 has arrived, or `mtpolicyd reload --exec` was used: the program is started again, and takes
    /// over the ports when it is ready. Nothing to do.
    notice handover_started(program) = "starting {program} to take over the ports";
    /// A new process has taken over the ports. This one answers on the connections that it has until their
    /// clients close them, for 20 minutes at most. Nothing to do.
    notice handed_over(process, count) =
        "process {process} has taken over the ports; {count} connections are finished here";
    /// The connections that were left at a handover have been closed by their clients, and the old process
    /// ends. Nothing to do.
    notice handover_finished() = "the connections from before the handover are finished";
    /// After SIGUSR2 the new process did not start; the text says why. The old one goes on, as if nothing
    /// had happened. Remove the cause and try again.
    error not_handed_over(error) = "not handed over: {error}; this process stays in service";
    /// SIGTERM or SIGINT has arrived. Nothing to do.
    notice shutting_down() = "mtpolicyd shutting down; finishing requests in flight";
    /// Requests were still running when the time for shutting down was over; Postfix asks again. If it
    /// happens often, look for a slow backend with `log_level = 4`.
    error connections_left(count) = "{count} connections did not finish in time";
    /// The session store was too slow while the daemon was shutting down. Greylisting and counters are not
    /// affected; plugins may add their score to a message a second time.
    error sessions_left() = "some sessions were not saved in time";
    /// A bug in the program. The connection is closed or the message deferred, and the daemon goes on.
    /// Please report it with this line.
    error bug(panic) = "a bug, please report it: {panic}";

    /// The process or the system has run out of file descriptors or memory. Raise `LimitNOFILE=`, or lower
    /// `max_connections`. Logged at most once per minute.
    error accept_failed(port, error) = "[{port}]: can't accept a connection: {error}";
    /// There are more client connections than `max_connections`. Raise it if they are smtpd processes of
    /// yours; otherwise look at who connects. Logged at most once per minute.
    error connections_full(count) =
        "all {count} connections are in use (max_connections); closing the longest idle one for each new one";
    /// Postfix has closed its connection between two requests. Nothing to do.
    info connection_closed(port) = "[{port}]: the connection is closed";
    /// A client left in the middle of a request, took too long to send it, or did not read its answer.
    /// Nothing to do, unless it is frequent.
    notice connection_cut(port, why) = "[{port}]: {why}; the connection is closed";
    /// An idle connection was closed because others needed its place or its memory. See `max_connections`.
    notice connection_evicted(port) = "[{port}]: the connection is closed to make room for others";
    /// The client does not speak the policy protocol. Check what connects to this port.
    error protocol_error(port, error) = "[{port}]: {error}; the connection is closed";
    /// The connection to a client broke. Postfix opens a new one.
    notice connection_failed(port, error) = "[{port}]: the connection failed: {error}";

    /// A client is still connected to a port that a reload has removed. Change `check_policy_service` in
    /// main.cf.
    error no_host(port) = "no VirtualHost answers on port {port} any more; the connection is closed";
    /// A plugin could not do its work and its `on_error` ended the chain. The cause is a backend in most
    /// cases; the line of the request says what Postfix was told.
    error request_failed(host, instance, failure) =
        "{host}: instance={instance}, error while processing request: {failure}";
    /// A plugin could not do its work, and the chain went on without it. The message may pass without this
    /// check; look at the cause.
    error plugin_skipped(plugin, cause) =
        "plugin {plugin} failed: {cause}; it is skipped (on_error = continue)";
    /// Something in the request kept a plugin from deciding, and `on_bad_request = continue` ignores that.
    /// Frequent lines of one client may be an attempt to get around the plugin: use `on_bad_request = defer`.
    warning undecided_ignored(plugin, cause) =
        "plugin {plugin} could not decide: {cause}; skipped (on_bad_request = continue)";
    /// Something in the request kept a plugin from deciding. The other plugins may still refuse the message;
    /// otherwise it is deferred. Nothing to do for a forged request; for a genuine one look at the cause.
    warning undecided(plugin, cause) =
        "plugin {plugin} could not decide: {cause}; the message is deferred unless another plugin refuses it";
    /// Postfix would not have understood the action of this plugin as it is written, so it was changed: an
    /// empty action, a bare number, control characters, a text that is too long and others. Correct the
    /// action.
    warning action_changed(host, plugin, warning) = "{host}: plugin {plugin}: {warning}";
    /// How long each plugin took, with nested plugins behind `>`, and the whole request.
    debug times(request, times, total) = "{request}, times: {times}in all {total} ms";

    /// What a request asked of a server, how long it waited for the answer, and whether it was asked ahead.
    /// A value of a store is not shown, nor are the parameters of a query.
    debug lookup(request, kind, server, question, answer, waited, origin) =
        "{request}, lookup: {kind}{server}: {question}: {answer} ({waited} ms, {origin})";
    /// The request asked more than is kept; the first ones were logged.
    debug lookups_left_out(request, count) = "{request}, lookup: {count} more, which were not kept";

    /// The file or the system log accepted lines more slowly than they came, so some are missing. Lower
    /// `log_level`, or look for a full disk.
    warning_text lines_lost(count) =
        "{count} log lines were lost: the log took them too slowly or not at all";
    /// The log file could not be opened again, at SIGHUP or SIGUSR1. Lines still go to the old file, which
    /// logrotate may have renamed. Check the folder and its owner.
    error_text log_not_reopened(error) = "{error}; the previous file stays in use";
}
