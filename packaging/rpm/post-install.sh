install -d -o mtpolicyd -g mtpolicyd -m 0750 /var/lib/mtpolicyd
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
    # 1 is a first installation: the distribution says whether services are enabled.
    [ "$1" -gt 1 ] || systemctl preset mtpolicyd.service >/dev/null 2>&1 || :
fi
exit 0
