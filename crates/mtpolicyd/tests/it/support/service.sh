# Run in namespaces of its own: service.sh FOLDER PACKAGE. A bare Debian, in the folder MTPOLICYD_DEBOOTSTRAP, is
# booted with its own systemd in a network of its own, and the package is used there. What is written goes to
# FOLDER.
set -euo pipefail
layers=$1 package=$2
exec 2>&1
mount --make-rprivate /
mount -t tmpfs tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/root"
mount -t overlay overlay "$layers/root" \
    -o "lowerdir=$MTPOLICYD_DEBOOTSTRAP,upperdir=$layers/upper,workdir=$layers/work"
root=$layers/root
cp "$package" "$root/root/new.deb"
# Machines that have just been made have no names at all.
rm -f "$root/etc/hosts"

# A control group of its own, so that it does not meet the services of this machine.
name=mtpolicyd-${layers##*[/.]}
groups=()
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    if [[ -e $hierarchy/cgroup.procs ]] && mkdir "$hierarchy/$name"; then
        groups+=("$hierarchy/$name")
    fi
done
nspawn='' leader=''
leave() {
    if [[ -n $nspawn ]]; then kill -KILL "$nspawn" $leader 2>/dev/null && wait "$nspawn" 2>/dev/null; fi
    # What was killed is gone a moment later.
    for group in "${groups[@]}"; do
        until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.1; done
    done
}
trap leave EXIT
(
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec systemd-nspawn --quiet --register=no --keep-unit --private-network --machine "$name" \
        --directory "$root" --boot
) >"$layers/console" </dev/null &
nspawn=$!
inside() {
    nsenter --target "$leader" --mount --uts --ipc --net --pid --root --wd \
        env -i LC_ALL=C TERM=dumb HOME=/root DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin bash "$@" </dev/null
}
until [[ -n $leader && -S /proc/$leader/root/run/systemd/private ]]; do
    if ! kill -0 "$nspawn" 2>/dev/null; then
        cat "$layers/console"
        echo 'LEFT OUT: it does not boot'
        exit
    fi
    leader=$(ps -o pid= --ppid "$nspawn" | head -n 1 | tr -d ' ' || true)
done
inside -c 'systemctl is-system-running --wait' || true

cat >"$root/root/play" <<'PLAY'
set -euo pipefail
cd /root
conf=/etc/mtpolicyd/mtpolicyd.conf
drop_in=/etc/systemd/system/mtpolicyd.service.d/override.conf
fail() { echo "FAILED: $*"; journalctl -u 'mtpolicyd*' -n 60 --no-pager; exit 1; }
is() { [[ $1 == "$2" ]] || fail "\`$1\` is not \`$2\`: $3"; }
has() { [[ $1 == *"$2"* ]] || fail "\`$1\` has no \`$2\`: $3"; }
pid() { systemctl show --property MainPID --value mtpolicyd; }
journal() { journalctl -u mtpolicyd -o cat --no-pager --since "$since"; }
ask() {
    printf '%s\n' protocol_state=RCPT client_address=192.0.2.1 reverse_client_name=unknown helo_name=there \
        "sender=${1:-}" recipient=bob@example.net "instance=$RANDOM.$RANDOM" '' | policyd-client "${@:2}" 2>&1
}
# Waits, as long as the whole test may take, for a command that succeeds.
await() { until "$@"; do sleep 0.1; done; }
begin() {
    echo "== $1"
    since=$(date '+%F %T')
    rm -f "$drop_in"
    systemctl daemon-reload
    systemctl reset-failed mtpolicyd mtpolicyd.socket 2>/dev/null || true
}
# Another file; the plugins of the only host are the input.
use_chain() {
    {
        # As in the packaged file: a reload can't change the user.
        printf 'user = mtpolicyd\ngroup = mtpolicyd\nport = 127.0.0.1:12345\n'
        printf '%s\n<VirtualHost 12345>\nname = inbound\n' "${1:-}"
        cat
        echo '</VirtualHost>'
    } >$conf
}
drop_in() {
    mkdir -p "${drop_in%/*}"
    printf '[Service]\n%s\n' "$@" >"$drop_in"
    systemctl daemon-reload
}
fixed() { printf '<Plugin a>\nmodule = Action\naction = "reject %s"\n</Plugin>\n' "$1"; }
restart() { systemctl reset-failed mtpolicyd; systemctl restart mtpolicyd; }
fails() { if "$@" >said 2>&1; then fail "\`$*\` succeeds"; fi; }

begin 'a stranger'
apt-get --yes --no-install-recommends install ./new.deb
is "$(systemctl is-active mtpolicyd)" active 'after the installation'
is "$(ask alice@example.org)" 'PREPEND X-MtScore: NO score=0' 'the first question'
exposure=$(systemd-analyze security mtpolicyd | sed -n 's/.*exposure level for.*: \([0-9.]*\) .*/\1/p')
is "$exposure" 1.4 'the sandbox'
systemd-analyze verify --man=no mtpolicyd.service mtpolicyd.socket >said 2>&1 || true
is "$(grep mtpolicyd said || true)" '' 'the units'
has "$(systemctl show --property StatusText mtpolicyd)" 'answering on 127.0.0.1:12345' 'the status'

begin 'a file with a mistake'
fixed one | use_chain
systemctl reload mtpolicyd
await eval '[[ $(ask) == "reject one" ]]'
cp $conf good
old=$(pid)
echo '<Plugin broken>' >>$conf
fails systemctl reload mtpolicyd
is "$(ask) $(pid)" "reject one $old" 'after a refused reload'
has "$(journal)" '<Plugin broken> opened in line' 'the mistake in the journal'
systemctl kill --kill-whom=main --signal=USR2 mtpolicyd
await eval '[[ $(journal) == *"not handed over"* ]]'
is "$(ask) $(pid)" "reject one $old" 'after a refused hand-over'
fails mtpolicyd check --as mtpolicyd
fails systemctl restart mtpolicyd
is "$(systemctl is-active mtpolicyd)" failed 'after a restart with a mistake'
fails apt-get --yes --no-install-recommends install --reinstall ./new.deb
has "$(cat said)" "the new version can't use $conf" 'an upgrade with a mistake'
cp good $conf
restart
is "$(ask)" 'reject one' 'after the correction'

begin 'a new process without a pause'
old=$(pid)
systemctl kill --kill-whom=main --signal=USR2 mtpolicyd
await eval '[[ $(pid) != "$old" ]]'
is "$(ask)" 'reject one' 'the new process'
old=$(pid)
systemctl reload mtpolicyd
is "$(systemctl is-active mtpolicyd) $(pid)" "active $old" 'a reload of the new process'

begin 'a daemon that hangs'
drop_in WatchdogSec=2
restart
old=$(pid)
kill -STOP "$old"
await eval '[[ $(pid) != "$old" && $(systemctl is-active mtpolicyd) == active ]]'
is "$(ask)" 'reject one' 'after the watchdog'

begin 'log_file in the sandbox'
install -d -o mtpolicyd -g mtpolicyd /var/log/mtpolicyd
fixed two | use_chain 'log_file = /var/log/mtpolicyd/mtpolicyd.log'
fails restart
has "$(journal)" 'Read-only file system (os error 30); a systemd unit names its folder with' 'the reason'
drop_in LogsDirectory=mtpolicyd
restart
is "$(ask)" 'reject two' 'with the drop-in'
await grep -q 'result=reject two' /var/log/mtpolicyd/mtpolicyd.log

begin 'SQLite in another folder'
install -d -o mtpolicyd -g mtpolicyd /srv/policy
{
    printf '<Plugin count>\nmodule = Accounting\nfields = client_address\n</Plugin>\n'
    fixed three
} | use_chain '<Connection db>
module = Sql
dsn = "dbi:SQLite:dbname=/srv/policy/data.sqlite"
</Connection>'
restart
has "$(ask || true)" 'the server closed without an answer' 'without the drop-in'
has "$(journal)" "can't open /srv/policy/data.sqlite: /srv/policy: Read-only file system" 'the reason'
drop_in ReadWritePaths=/srv/policy
restart
is "$(ask)" 'reject three' 'with the drop-in'
[[ -s /srv/policy/data.sqlite ]] || fail 'there is no file'

begin 'a UNIX socket of a group'
groupadd --force other
install -d -o mtpolicyd -g mtpolicyd /var/spool/postfix/mtpolicyd
socket=/var/spool/postfix/mtpolicyd/policy.sock
{
    printf 'port = "%s|unix"\nsocket_group = other\nsocket_mode = 0660\n' $socket
    printf '<VirtualHost "%s">\nname = a\n' $socket
    fixed four
    echo '</VirtualHost>'
} >$conf
fails restart
has "$(journal)" 'to be in the group of `socket_group`' 'the reason'
drop_in SupplementaryGroups=other
restart
is "$(stat -c '%U:%G %a' $socket)" 'mtpolicyd:other 660' 'the socket'
is "$(ask '' -s $socket)" 'reject four' 'through it'

begin 'addresses of this machine'
ip address add 8.8.4.4/32 dev lo
{
    printf '<Plugin verify>\nmodule = SMTPVerify\n'
    printf 'perm_fail_action = reject\ntemp_fail_action = defer\n</Plugin>\n'
    fixed five
} | use_chain
restart
is "$(ask 'a@[8.8.4.4]')" 'reject five' 'an own address is not asked'
is "$(ask 'a@[8.8.8.8]')" 'defer' 'another address'

begin 'ports by systemd'
fixed six | use_chain
systemctl stop mtpolicyd
systemctl enable --now mtpolicyd.socket
systemctl start mtpolicyd
(for _ in 1 2 3; do systemctl restart mtpolicyd; done; touch restarted) &
while [[ ! -e restarted ]]; do is "$(ask)" 'reject six' 'during a restart'; done
wait $!
systemctl reset-failed mtpolicyd
systemctl stop mtpolicyd
is "$(ask)" 'reject six' 'after it was stopped'
apt-get --yes --no-install-recommends install --reinstall ./new.deb
is "$(systemctl is-active mtpolicyd.socket mtpolicyd | tr '\n' ' ')" 'active active ' 'after an upgrade'
echo '<Plugin broken>' >>$conf
systemctl stop mtpolicyd
ask || true
await eval '[[ $(systemctl show --property Result mtpolicyd.socket) == Result=service-start-limit-hit ]]'
fixed seven | use_chain
# As docs/install.md says.
systemctl stop mtpolicyd
systemctl reset-failed mtpolicyd mtpolicyd.socket
systemctl start mtpolicyd.socket mtpolicyd
is "$(ask)" 'reject seven' 'after the correction'

begin 'the end'
apt-get --yes purge mtpolicyd
is "$(systemctl is-active mtpolicyd.socket mtpolicyd | tr '\n' ' ')" 'inactive inactive ' 'after purge'
left=$(find /etc /var/lib /usr /lib -xdev -iname '*mtpolicyd*' -not -path '/var/lib/dpkg/*' \
    -not -path "${drop_in%/*}*")
is "$left" '' 'left after purge'
echo 'ALL DONE'
PLAY
inside /root/play
inside -c 'systemctl poweroff' || true
wait "$nspawn" || true
