# Run in namespaces of its own: package.sh FOLDER PACKAGE PART [OLD PACKAGE]. What is written goes to the folder.
set -euo pipefail
layers=$1 package=$2 part=$3 old=${4:-}
exec 2>&1
mount --make-rprivate /
mount -t tmpfs tmpfs "$layers"
mkdir "$layers/upper" "$layers/work" "$layers/root"
mount -t overlay overlay "$layers/root" \
    -o "lowerdir=${MTPOLICYD_DEBOOTSTRAP:-/},upperdir=$layers/upper,workdir=$layers/work"
root=$layers/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
ip link set lo up
cp "$package" "$root/tmp/new.${package##*.}"
cp "${0%/*}/../../../../../packaging/init.d" "$root/tmp/init.d"
# Machines that have just been made have no names at all.
rm -f "$root/etc/hosts"
if [[ -n $old ]]; then cp "$old" "$root/tmp/old.deb"; fi
# Nothing is started by itself, and there is no systemd that runs.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

cat >"$root/tmp/play" <<'PLAY'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
conf=/etc/mtpolicyd/mtpolicyd.conf
# Packages for other systems bring none, since those have systemd.
script=/usr/share/mtpolicyd/init.d
[[ -e $script ]] || script=/tmp/init.d
cd /tmp
fail() { echo "FAILED: $*"; exit 1; }
is() { [[ $1 == "$2" ]] || fail "\`$1\` is not \`$2\`: $3"; }
installs() { apt-get --yes --no-install-recommends install "$1" </dev/null; }
state() { dpkg-query -W -f '${Version} ${Status}' mtpolicyd 2>/dev/null || true; }

# A machine that never had it.
bare() {
    dpkg --purge --force-depends mtpolicyd >/dev/null 2>&1 || true
    rm -rf /etc/mtpolicyd /var/lib/mtpolicyd /run/mtpolicyd
    sed -i '/^mtpolicyd:/d' /etc/passwd /etc/shadow /etc/group /etc/gshadow
}

# An answer, where the configuration gives one: Debian's of version 2 wants memcached and name servers, which are
# not here, and closes the connection otherwise.
asks() {
    sh $script start
    sh $script status
    answer=$(printf '%s\n' protocol_state=RCPT client_address=192.0.2.1 reverse_client_name=unknown helo_name=there \
        sender= recipient=bob@example.net '' | policyd-client ||
        echo 'no answer')
    sh $script reload
    sh $script status
    sh $script stop
    echo "answer: $answer"
}

# What may be there after `purge`.
nothing_left() {
    left=$(find /etc /var/lib /usr/bin /usr/sbin /usr/lib /lib /usr/share -xdev -iname '*mtpolicyd*' \
        -not -path '/var/lib/dpkg/*' -not -path '/var/lib/apt/*' -not -name '*.dpkg-bak' -not -path '/usr/share/perl5/*' \
        2>/dev/null || true)
    is "$left" '' 'left after purge'
    getent passwd mtpolicyd >/dev/null || fail 'the user stays, since files may be its own'
}

# A later version of the package, for what happens between two of ours.
make_later() {
    [[ -e later.deb ]] && return
    dpkg-deb -R new.deb later
    sed -i 's/^Version: .*/Version: 3.0.1/' later/DEBIAN/control
    dpkg-deb --root-owner-group -Znone -b later later.deb >/dev/null
}

# A file with a mistake stops an upgrade to $1, and everything is as before.
refuses() {
    cp -p $conf good.conf
    before=$(state)
    printf '<Plugin broken>\n' >>$conf
    lines=$(wc -l <$conf)
    if installs "./$1" >refused.log; then cat refused.log; fail 'a broken file was taken'; fi
    grep -q "mtpolicyd.conf:$lines" refused.log || { cat refused.log; fail "no line $lines is named"; }
    grep -q "the new version can't use $conf" refused.log || { cat refused.log; fail 'no reason is given'; }
    is "$(state)" "$before" 'another version is installed'
    cp -p good.conf $conf
    dpkg --audit | grep mtpolicyd && fail 'dpkg is not content'
    return 0
}

# From mtpolicyd 2 with the file that is there.
changes_over() {
    echo 'counted' >/var/lib/mtpolicyd/kept
    sum=$(md5sum <$conf) mode=$(stat -c %a $conf)
    refuses new.deb
    head -n 1 /usr/bin/mtpolicyd | grep -q perl || fail 'the old program is gone'
    [[ -e /etc/cron.d/mtpolicyd ]] || fail 'the old cron file is gone after a refused upgrade'
    installs ./new.deb
    is "$(state)" '3.0.0 install ok installed' 'the package'
    is "$(md5sum <$conf) $(stat -c %a $conf)" "$sum $mode" 'the file has changed'
    is "$(ls /etc/mtpolicyd)" mtpolicyd.conf 'something lies beside the file'
    [[ ! -e /etc/cron.d/mtpolicyd ]] || fail 'the cron file is still there'
    is "$(stat -c '%a %U' /var/lib/mtpolicyd) $(cat /var/lib/mtpolicyd/kept)" '750 mtpolicyd counted' 'the data'
    asks
}

# Between versions of ours, removal and return: the file and the data are as they were.
comes_and_goes() {
    make_later
    refuses later.deb
    installs ./later.deb
    is "$(state)" '3.0.1 install ok installed' 'the later package'
    asks
    apt-get --yes remove mtpolicyd </dev/null
    [[ ! -e /usr/bin/mtpolicyd ]] || fail 'the program is still there'
    is "$(md5sum <$conf) $(cat /var/lib/mtpolicyd/kept)" "$sum counted" 'removal has changed something'
    installs ./new.deb
    is "$(md5sum <$conf) $(cat /var/lib/mtpolicyd/kept)" "$sum counted" 'the return has changed something'
    asks
    apt-get --yes purge mtpolicyd </dev/null
    nothing_left
}

# Debian's package, without the sixty of Perl that it wants: a bare machine has none, and it is not started here.
make_old() {
    dpkg-deb -R old.deb old
    sed -i 's/^Depends: .*/Depends: adduser/' old/DEBIAN/control
    dpkg-deb --root-owner-group -Znone -b old old.deb >/dev/null
}

upgrade() {
    make_old
    echo '== an unedited file'
    bare
    dpkg -i old.deb
    dpkg-query -W -f '${Conffiles}' mtpolicyd | grep -q "$(md5sum <$conf | cut -d ' ' -f 1)" || fail 'it is edited'
    changes_over
    comes_and_goes
    [[ ! -e /etc/cron.d/mtpolicyd.dpkg-bak ]] || fail 'an unedited cron file was kept'

    echo '== an edited file'
    bare
    dpkg -i old.deb
    ours='  <Plugin ours>\n    module = "Action"\n    action = "reject by ours"\n  </Plugin>'
    sed -i "0,/^[[:space:]]*<Plugin/s,,$ours\n&,; /<SessionCache>/,/<\/SessionCache>/d" $conf
    echo '# ours' >>/etc/cron.d/mtpolicyd
    changes_over
    is "$answer" 'reject by ours' 'the policy is another one'
    [[ -e /etc/cron.d/mtpolicyd.dpkg-bak ]] || fail 'an edited cron file was not kept'
    comes_and_goes
    is "$answer" 'reject by ours' 'the policy is another one'
}

fresh() {
    bare
    installs ./new.deb
    is "$(stat -c '%a %U:%G' $conf /var/lib/mtpolicyd | tr '\n' ' ')" \
        '640 root:mtpolicyd 750 mtpolicyd:mtpolicyd ' 'rights'
    is "$(readlink -f /usr/sbin/mtpolicyd)" /usr/bin/mtpolicyd 'the link'
    mtpolicyd check --strict
    for page in man1/policyd-client.1 man5/mtpolicyd.conf.5 man5/mtpolicyd-RBL.5 man8/mtpolicyd.8; do
        # Minimal machines have no manual: their dpkg leaves it out.
        [[ -e /usr/share/man/$page.gz ]] || grep -qrs 'path-exclude' /etc/dpkg/dpkg.cfg.d || fail "no $page"
    done
    for file in bash-completion/completions/mtpolicyd zsh/vendor-completions/_mtpolicyd \
        fish/vendor_completions.d/mtpolicyd.fish mtpolicyd/logrotate; do
        [[ -s /usr/share/$file ]] || fail "no $file"
    done
    bash -n /usr/share/bash-completion/completions/mtpolicyd
    ! grep -rlE '\]\((docs/|\.\./\.\./)' /usr/share/doc/mtpolicyd/README.md /usr/share/doc/mtpolicyd/guide ||
        fail 'a link leads out of the installed pages'
    grep -q '^ExecStart=/usr/bin/mtpolicyd ' /lib/systemd/system/mtpolicyd.service || fail 'the unit'
    echo 'counted' >/var/lib/mtpolicyd/kept
    sum=$(md5sum <$conf)
    asks
    is "$answer" 'PREPEND X-MtScore: NO score=0' 'the answer of the default file'
    comes_and_goes
}

rpm_installed() {
    is "$(stat -c '%a %U:%G' $conf /var/lib/mtpolicyd | tr '\n' ' ')" \
        '640 root:mtpolicyd 750 mtpolicyd:mtpolicyd ' 'rights'
    mtpolicyd check --strict --as mtpolicyd
    asks
    is "$answer" 'PREPEND X-MtScore: NO score=0' 'the answer of the default file'
    sed -i '0,/<Plugin/s,,<Plugin ours>\nmodule = "Action"\naction = "reject by ours"\n</Plugin>\n&,' $conf
    echo 'counted' >/var/lib/mtpolicyd/kept
}

rpm_upgraded() {
    is "$(stat -c '%a %U:%G' $conf) $(cat /var/lib/mtpolicyd/kept)" '640 root:mtpolicyd counted' 'what was there'
    asks
    is "$answer" 'reject by ours' 'the policy is another one'
}

rpm_removed() {
    [[ ! -e /usr/bin/mtpolicyd && ! -e $conf ]] || fail 'something is still there'
    grep -q 'reject by ours' $conf.rpmsave || fail 'the edited file is lost'
    is "$(cat /var/lib/mtpolicyd/kept)" counted 'the data'
    getent passwd mtpolicyd >/dev/null || fail 'the user is gone'
}

"$1"
echo 'ALL DONE'
PLAY
if [[ $part == rpm ]]; then
    # What it requires is in no database of RPM here.
    rpms() { rpm --root "$root" --dbpath /var/lib/rpm --nodeps "$@"; }
    parts() { chroot "$root" bash /tmp/play "$1"; }
    parts bare
    mkdir -p "$root/var/lib/rpm"
    rpms --install "$package"
    parts rpm_installed
    rpms --upgrade --replacepkgs "$package"
    parts rpm_upgraded
    rpms --erase mtpolicyd
    parts rpm_removed
    exit
fi
exec chroot "$root" bash /tmp/play "$part"
