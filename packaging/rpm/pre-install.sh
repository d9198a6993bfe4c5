# The user owns a file of the package, so it comes first.
getent group mtpolicyd >/dev/null || groupadd --system mtpolicyd
getent passwd mtpolicyd >/dev/null || useradd --system --gid mtpolicyd --home-dir /var/lib/mtpolicyd \
    --no-create-home --shell /sbin/nologin --comment 'Policy daemon for Postfix' mtpolicyd
exit 0
