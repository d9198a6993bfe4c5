# After an upgrade, once all files are there. RPM can't look at the configuration before that, so a file that the
# new version refuses keeps the old process running.
if [ -d /run/systemd/system ] && systemctl is-active --quiet mtpolicyd.service; then
    if said=$(/usr/bin/mtpolicyd check /etc/mtpolicyd/mtpolicyd.conf 2>&1); then
        systemctl restart mtpolicyd.service || :
    else
        printf '%s\n' "$said" >&2
        echo 'mtpolicyd: not restarted, since the new version refuses the configuration; the old one goes on' >&2
    fi
fi
exit 0
