#!/bin/bash
# shellcheck disable=SC2030,SC2031 # HOME set in a subshell: each job's own
#
# Init (process 1) of one machine of the test cluster.  Booted by `cluster`,
# never run by hand: it runs inside User-mode Linux and takes its role from the
# environment, which the kernel fills from the unknown words of its command line:
#
#   CL_DIR      the cluster's state directory, as the outer machine names it
#   CL_NAME     server, host1, host2, ...
#   CL_IP       this machine's address
#   CL_SERVER   the server's address
#   CL_HOSTS    how many hosts there are (for /etc/hosts)
#   CL_EXPORT   export options (server)
#   CL_FRESH    1 when the server's disk was just made (server)
#   CL_VERS     NFS version to mount (hosts)
#   CL_MOUNT    further mount options, may be "none" (hosts)
#
# A host with a system of its own (`cluster up --system`) is not booted by this: a
# service there calls it, and it only carries out orders.
#
# Everything lives in functions: bash reads a script while it runs it, and
# main() makes sure that all of it is read before /tmp and others are covered.
#
# A fork costs 20 to 50 ms in here, so this prefers builtins and one process
# that does much (ip -batch, modprobe -a) over many that do little.

set -eEu

# The outer root file system is shared read-write (hostfs), so everything that
# a machine needs for itself must be covered by a tmpfs of its own.
export PATH=/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
STATE=/run/cluster # CL_DIR, seen from in here
ME=$STATE/m/$CL_NAME

fail() {
    trap - ERR
    echo "INIT FAILED at line $1: $2"
    echo "line $1: $2" >"$ME/failed" || :
    # Power off; the end of process 1 would be a panic with a long trace.
    echo o >/proc/sysrq-trigger
    sleep 10
}

say() { # how far the boot came, and when; seen by `cluster console`
    local up
    read -r up _ </proc/uptime
    echo "[$up] $*"
}

mount_own_file_systems() {
    mount -t proc proc /proc
    echo "$CL_NAME" >/proc/sys/kernel/hostname
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -m 755 /run/cluster /run/bin /run/lock /run/rpcbind /run/rpc_pipefs
    mount -t tmpfs -o mode=755 tmpfs /mnt
    # A second hostfs mount, of the state directory alone: it stays visible
    # although /tmp, where the state directory mostly is, gets covered next.
    mount -t hostfs -o "$CL_DIR" none "$STATE"
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mkdir -p "$CL_DIR" && mount --bind "$STATE" "$CL_DIR"
    # The kernel mounted devtmpfs on /dev by itself.
    mkdir -p /dev/pts /dev/shm
    mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
    mount -t tmpfs -o mode=1777 tmpfs /dev/shm
    ln -sfn /proc/self/fd /dev/fd
    ln -sfn /proc/self/fd/0 /dev/stdin
    ln -sfn /proc/self/fd/1 /dev/stdout
    ln -sfn /proc/self/fd/2 /dev/stderr
}

cover_etc_files() {
    # Private copies bound over the shared files: this machine's host name, the
    # cluster's names, and allow_other for FUSE mounts of ordinary users.
    local n
    {
        echo "127.0.0.1 localhost"
        echo "$CL_SERVER server"
        for ((n = 1; n <= CL_HOSTS; n++)); do
            echo "${CL_SERVER%.*}.$((n + 1)) host$n"
        done
    } >/run/hosts
    echo "$CL_NAME" >/run/hostname
    echo user_allow_other >/run/fuse.conf
    for n in hosts hostname fuse.conf; do
        if [[ -e /etc/$n ]]; then mount --bind "/run/$n" "/etc/$n"; fi
    done
}

load_modules() {
    # Debian keeps UML's modules apart from /lib/modules, so modprobe needs to
    # be told.  The wrapper is also what the kernel calls when it wants a module.
    mkdir -p /run/modroot/lib
    ln -s /usr/lib/uml/modules /run/modroot/lib/modules
    printf '#!/bin/sh\nexec /sbin/modprobe -d /run/modroot "$@"\n' >/run/bin/modprobe
    chmod 755 /run/bin/modprobe
    echo /run/bin/modprobe >/proc/sys/kernel/modprobe
    /sbin/modprobe -d /run/modroot -a "$@"
}

network_up() {
    ip -batch - <<EOF
link set lo up
link set eth0 up
address add $CL_IP/24 dev eth0
EOF
}

start_server() {
    load_modules nfsd fuse loop sch_netem
    mkdir -p /mnt/disk /mnt/exports
    # The disk is a UML block device over an image in the state directory; it
    # outlives a power cut of this machine, and ext4 replays its journal here.
    mount -t ext4 -o noinit_itable /dev/ubda /mnt/disk
    # NFS state (which clients may reclaim their locks) has to outlive a power
    # cut too, so /var/lib/nfs is on the disk as well.
    if [[ ! -d /mnt/disk/data ]]; then
        mkdir -m 1777 /mnt/disk/data /mnt/disk/squash
        mkdir -p /mnt/disk/state/{sm,sm.bak,v4recovery,nfsdcld}
        : >/mnt/disk/state/etab
        : >/mnt/disk/state/rmtab
        rmdir /mnt/disk/lost+found
    fi
    mount --bind /mnt/disk/state /var/lib/nfs
    # The exports' root is a small tmpfs with the real exports bound into it:
    # the machine's own root is hostfs, which knfsd cannot export.
    mount -t tmpfs -o size=64k,mode=755 tmpfs /mnt/exports
    mkdir /mnt/exports/data /mnt/exports/squash
    mount --bind /mnt/disk/data /mnt/exports/data
    mount --bind /mnt/disk/squash /mnt/exports/squash

    mount -t nfsd nfsd /proc/fs/nfsd
    mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
    # Short, so that a test can wait for a lease to run out.
    echo 10 >/proc/fs/nfsd/nfsv4leasetime
    echo 10 >/proc/fs/nfsd/nfsv4gracetime
    rpcbind -w
    nfsdcld
    rpc.mountd
    exportfs -o "ro,fsid=0,no_subtree_check,insecure,sync" '*:/mnt/exports'
    exportfs -o "$CL_EXPORT,fsid=1,no_subtree_check,insecure" '*:/mnt/exports/data'
    exportfs -o "rw,sync,root_squash,fsid=2,no_subtree_check,insecure" '*:/mnt/exports/squash'
    rpc.nfsd -V 4.2 -V 3 8
    # On a new disk nobody can have a lock to reclaim: no need to wait.
    # (Refused as busy when the kernel has seen that by itself.)
    if [[ $CL_FRESH == 1 ]]; then
        echo Y 2>/dev/null >/proc/fs/nfsd/v4_end_grace || :
    fi
}

# mount.cluster VERS OPTS: the one place that knows how the NFS is mounted;
# `cluster remount` calls it too.
write_mount_helper() {
    cat >/run/bin/mount.cluster <<EOF
#!/bin/bash
# usage: mount.cluster VERS OPTS [EXPORT [WHERE]]
opts=vers=\$1
path=/\${3:-data}
# Version 3 knows no pseudo root, and names the whole path; its locks stay on
# the host (nolock), for there is no statd here.
if [[ \$1 == 3 ]]; then opts+=,nolock path=/mnt/exports\$path; fi
if [[ \${2:-none} != none ]]; then opts+=,\$2; fi
exec mount -t nfs -o "\$opts" "$CL_SERVER:\$path" "\${4:-/mnt/nfs}"
EOF
    chmod 755 /run/bin/mount.cluster
}

start_host() {
    load_modules nfsv3 nfsv4 fuse loop sch_netem
    mount -t tmpfs -o mode=755 tmpfs /var/lib/nfs
    mkdir /mnt/nfs
    write_mount_helper
    say "waiting for the server"
    while [[ ! -e $STATE/m/server/ready ]]; do pause 0.05; done
    # A server that is just being restarted refuses: a host boots again in a storm.
    local tries=0
    until mount.cluster "$CL_VERS" "$CL_MOUNT"; do
        ((++tries < 20))
        pause 0.5
    done
}

# pause SECONDS without a fork: a read that can only time out.
pause() { read -r -t "$1" -u 9 || :; }

declare -A GROUP=() # job -> its process group

# A job is a directory jobs/ID with `script` and `user`; its output goes to
# `out` and `err`, at last its exit status to `rc`.  hostfs writes through, so
# the outer machine sees the output at once.
start_job() {
    local dir=$ME/jobs/$1 user='' text=()
    [[ -e $dir/script ]] || return 0
    mapfile -d '' -t text <"$dir/script"
    read -r user <"$dir/user" || :
    (
        set +eE
        cd /tmp || :
        if [[ -n $user && $user != 0 ]]; then
            export HOME=/tmp/home-$user USER=u$user
            [[ -d $HOME ]] || { mkdir -p "$HOME" && chown "$user:$user" "$HOME"; }
            setpriv --reuid "$user" --regid "$user" --clear-groups \
                bash -c "${text[0]-}"
        else
            bash -c "${text[0]-}"
        fi
        echo "$?" >"$dir/rc"
    ) >"$dir/out" 2>"$dir/err" </dev/null 9<&- &
    GROUP[$1]=$!
}

kill_job() {
    [[ -z ${GROUP[$1]-} ]] || kill -KILL -- "-${GROUP[$1]}" 2>/dev/null || :
    unset "GROUP[$1]"
}

# Orders come as lines on a console whose other end is a fifo of the outer
# machine: unlike polling a directory this costs nothing while idle, and an
# order is seen at once.
serve() {
    local order job
    set +eE
    trap - ERR
    set -m # every job becomes a process group, so that it can be killed whole
    while :; do
        while read -r order job; do
            case $order in
            run) start_job "$job" ;;
            kill) kill_job "$job" ;;
            done) unset "GROUP[$job]" ;;
            esac
        done
        exec </dev/tty1 # end of file, which a console gives on a stray ^D
    done </dev/tty1
}

be_ready() {
    say "ready"
    : >"$ME/ready"
    serve
}

main() {
    trap 'fail "$LINENO" "$BASH_COMMAND"' ERR
    mount_own_file_systems
    exec 9<> <(:) # see pause
    say "file systems mounted"
    cover_etc_files
    network_up
    if [[ $CL_NAME == server ]]; then start_server; else start_host; fi
    # Device nodes come from devtmpfs for root alone.
    chmod 666 /dev/fuse
    export HOME=/root USER=root LANG=C.UTF-8
    unset TERM mem uml_dir
    be_ready
}

if [[ $$ == 1 ]]; then main; else be_ready; fi
