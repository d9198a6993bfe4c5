# Run in namespaces of its own, $1 is an empty folder: what is written to the system's folders goes there.
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
for folder in etc usr/local var/lib var/log var/spool; do
    mkdir -p "$1/$folder/upper" "$1/$folder/work"
    chmod --reference="/$folder" "$1/$folder/upper"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work" "/$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
# What a new machine does not have.
rm -rf /etc/mtpolicyd /var/lib/mtpolicyd /etc/systemd/system/mtpolicyd.service
sed -i '/^mtpolicyd:/d' /etc/passwd /etc/shadow /etc/group /etc/gshadow
mkdir -p /usr/local/sbin /usr/local/bin /etc/systemd/system
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cp "$2/systemctl" /usr/local/sbin/
# The packages are here already; others would be missing from the list of ./test.
for program in apt apt-get dpkg-reconfigure; do
    printf '#!/bin/sh\n' >/usr/local/sbin/$program
done
chmod 755 /usr/local/sbin/*
cd "$3"
exec bash "$4"
