#!/bin/bash
# debian.sh - install the package on a bare Debian, use it as the README says, remove it
#
# usage: debian.sh ROOT PACKAGE
#
# ROOT is a Debian made by debootstrap, with fuse3 and man-db.  To be run in a mount and a
# pid namespace of its own, which ends all that is left; nothing outside ROOT is changed.

set -eu -o pipefail
root=$1 package=$2

inside() { chroot "$root" "$@"; }
step() { echo "== $*"; }
is() { # is WANTED FOUND
    [[ $1 == "$2" ]] || {
        echo "wanted: $1"
        echo "found:  $2"
        exit 1
    } >&2
}
# All that is there, but what dpkg, apt and man keep of everything that was ever installed.
files() {
    (cd "$root" && find . -xdev -path ./proc -prune -o -path ./dev -prune -o \
        -path ./var/lib/dpkg -prune -o -path ./var/log -prune -o \
        -path ./var/cache -prune -o -path ./tmp -prune -o -print) | sort
}

mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t tmpfs -o mode=755 none dev
# Not kept beyond a boot, as daemons have it.
mount -t tmpfs -o mode=755 none run
for node in null:3 zero:5 random:8 urandom:9; do
    mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"
done
mknod -m 666 dev/fuse c 10 229
cp "$package" dotlockfs.deb
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
mkdir -p net/data srv/data
# As systemd makes it; fusermount3 asks for it.
ln -sf ../proc/self/mounts etc/mtab
files >tmp/before

step install
inside dpkg --install /dotlockfs.deb
inside dotlockfs --version
# fuse3 is recommended only: everything else is there by the package's own dependencies.
is '' "$(inside ldd /usr/bin/dotlockfs | grep 'not found' || :)"

step manual
for page in dotlockfs.1 dotlockfs-run.1 dotlockfs.toml.5 mount.dotlockfs.8 mount.fuse.dotlockfs.8; do
    inside man --where "${page##*.}" "${page%.*}"
    inside man "${page##*.}" "${page%.*}" | grep -q dotlockfs
done
inside whatis dotlockfs

step completions
for file in bash-completion/completions/dotlockfs zsh/vendor-completions/_dotlockfs \
    fish/vendor_completions.d/dotlockfs.fish; do
    grep -q check-config "usr/share/$file"
done
inside dotlockfs check-config /usr/share/doc/dotlockfs/examples/dotlockfs.toml >tmp/explained

step licenses
licenses=usr/share/doc/dotlockfs/third-party-licenses.txt
grep -q '^libc [0-9.]*: MIT OR Apache-2.0$' "$licenses"
grep -q "/$licenses" usr/share/doc/dotlockfs/copyright

step mount
inside mount -t dotlockfs -o allow_other /net/data /srv/data
is 'fuse.dotlockfs' "$(inside findmnt -no FSTYPE /srv/data)"
inside sh -c 'echo one >>/srv/data/log'
is one "$(cat net/data/log)"
daemon=$(pgrep -f 'mount[.]dotlockfs')

# Nothing but the package's scripts asks whether systemd runs, or calls it.
mkdir -p run/systemd/system
echo 'echo "$*" >>/tmp/asked' | sed '1i #!/bin/sh' >usr/bin/systemctl
chmod 755 usr/bin/systemctl

step upgrade
inside dpkg --install /dotlockfs.deb
is daemon-reload "$(sort -u tmp/asked)"
is "$daemon" "$(pgrep -f 'mount[.]dotlockfs')"
inside sh -c 'echo two >>/srv/data/log'

step "fstab, and without root"
echo '/net/data /srv/data fuse.dotlockfs allow_other 0 0' >etc/fstab
inside umount /srv/data
inside mount -a
install -d -o 1000 home/user home/user/data home/user/guarded
chown -R 1000 home/user
echo 'user:x:1000:1000::/home/user:/bin/sh' >>etc/passwd
user=(setpriv --reuid=1000 --regid=1000 --clear-groups)
inside "${user[@]}" dotlockfs /home/user/data /home/user/guarded
inside "${user[@]}" sh -c 'echo mine >>/home/user/guarded/log'
is mine "$(cat home/user/data/log)"
inside "${user[@]}" fusermount3 -u /home/user/guarded

step remove
rm tmp/asked
said=$(inside dpkg --remove dotlockfs)
is $'stop dotlockfs@*.service\ndaemon-reload' "$(cat tmp/asked)"
rm -r usr/bin/systemctl run/systemd
echo "$said"
[[ $said == *$'\n  /srv/data\n'* || $said == *$'\n  /srv/data' ]] || is 'a line: /srv/data' "$said"
inside sh -c 'echo three >>/srv/data/log'
is $'one\ntwo\nthree' "$(cat srv/data/log)"
inside umount /srv/data

step purge
inside dpkg --purge dotlockfs
sed -i /^user:/d etc/passwd
: >etc/fstab
rm -r home/user net/data/* net/data/.[!.]*
files >tmp/after
diff tmp/before tmp/after
step all is well
