#!/bin/sh
### BEGIN INIT INFO
# Provides:          mtpolicyd
# Required-Start:    $network $local_fs $remote_fs $syslog $named $time
# Required-Stop:     $network $local_fs $remote_fs $syslog $named
# Should-Start:      memcached redis-server mysql postgresql unbound
# Should-Stop:       memcached redis-server mysql postgresql unbound
# X-Start-Before:    postfix
# X-Stop-After:      postfix
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: policy daemon for Postfix
# Description:       mtpolicyd asks an ordered chain of plugins about every message.
### END INIT INFO

# For sysvinit. root starts the daemon, so the configuration names its `user`.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
DAEMON=/usr/bin/mtpolicyd
CONFIG=/etc/mtpolicyd/mtpolicyd.conf

[ -x "$DAEMON" ] || exit 5
[ ! -r /etc/default/mtpolicyd ] || . /etc/default/mtpolicyd

# Longer than any request takes.
STOP_SECONDS=30

# Of mtpolicyd 2, and of configurations with the same `pid_file`.
RUN_FOLDER=/run/mtpolicyd

fail() {
    echo "mtpolicyd: $1" >&2
    exit "${2:-1}"
}

# The processes of the service, found with and without a pid file: also those that finish their connections after
# `upgrade`, and a daemon of version 2, which is a script.
processes() {
    for folder in /proc/[0-9]*; do
        case $(readlink "$folder/exe" 2>/dev/null) in
            "$DAEMON" | "$DAEMON (deleted)")
                case $(tr '\0' ' ' <"$folder/cmdline" 2>/dev/null) in
                    "$DAEMON -c $CONFIG ") echo "${folder#/proc/}" ;;
                esac
                ;;
            */perl*)
                id=$(cat "$RUN_FOLDER/mtpolicyd.pid" 2>/dev/null)
                [ "$id" != "${folder#/proc/}" ] || echo "$id"
                ;;
        esac
    done
}

running() {
    PIDS=$(processes)
    [ -n "$PIDS" ]
}

start() {
    ! running || return 0
    # On a file system in memory it is gone after each boot.
    [ -d "$RUN_FOLDER" ] || install -d -o mtpolicyd -g mtpolicyd -m 0755 "$RUN_FOLDER"
    [ ! -x /sbin/restorecon ] || /sbin/restorecon "$RUN_FOLDER"
    # It returns when the ports are open, and prints its mistakes.
    "$DAEMON" -c "$CONFIG"
}

stop() {
    running || return 0
    kill -TERM $PIDS 2>/dev/null
    left=$STOP_SECONDS
    while running; do
        [ "$left" -gt 0 ] || fail "these processes do not end: $PIDS"
        sleep 1
        left=$((left - 1))
    done
}

# It waits for what comes of it. 2 is that the daemon can't be asked: `enabled = off` in `<Control>`.
reload() {
    "$DAEMON" reload -c "$CONFIG" && return
    [ $? -eq 2 ] || fail "the daemon goes on with the previous configuration" 6
    check && kill -HUP $PIDS
}

# A file with a mistake changes nothing.
check() {
    "$DAEMON" check "$CONFIG" >/dev/null || fail "the daemon goes on with the previous configuration" 6
}

case "$1" in
    start) start ;;
    stop) stop ;;
    restart) check && stop && start ;;
    try-restart) if running; then check && stop && start; fi ;;
    reload | force-reload)
        running || fail "it is not running" 7
        reload
        ;;
    # A new version takes over the ports; not one connection is refused.
    upgrade)
        running || fail "it is not running" 7
        check && kill -USR2 $PIDS
        ;;
    status)
        if running; then
            echo "mtpolicyd is running as process" $PIDS
        else
            echo "mtpolicyd is not running"
            exit 3
        fi
        ;;
    *)
        echo "usage: $0 {start|stop|restart|try-restart|reload|force-reload|upgrade|status}" >&2
        exit 2
        ;;
esac
