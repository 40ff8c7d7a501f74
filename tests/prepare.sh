# shellcheck shell=bash
# prepare.sh - what the scripts in this directory want of the machine; to be sourced
#
# The script that sources this has a function `die`, which says one line and exits.

# Installs the Debian packages that are missing; without root it says which.
install_packages() { # install_packages PACKAGE...
    local package missing=()
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    if [[ ${#missing[@]} == 0 ]]; then
        echo "all packages are there"
    elif [[ $EUID != 0 ]]; then
        die "packages are missing; as root: apt-get install ${missing[*]}"
    else
        echo "installing ${missing[*]}"
        install_without_services "${missing[@]}" || exit
    fi
}

apt_get_install() { # apt_get_install PACKAGE...
    local quiet=(-q -y --no-install-recommends -o Dpkg::Use-Pty=0)
    export DEBIAN_FRONTEND=noninteractive
    apt-get "${quiet[@]}" install "$@" && return
    echo "once more, with fresh package lists"
    apt-get -q update
    apt-get "${quiet[@]}" install "$@" || die "apt-get could not install $*"
}

# Debian starts what it installs, unless /usr/sbin/policy-rc.d says no.  Nobody
# asked for an NFS server or the like on this machine, neither now nor after the next
# boot.  (In a shell of its own, for the sake of the trap.)
install_without_services() ( # install_without_services PACKAGE...
    local policy=/usr/sbin/policy-rc.d unit
    local units=(nfs-server.service nfs-client.target rpcbind.socket rpcbind.service
        logrotate.timer dovecot.service dovecot.socket)
    local before=()
    for unit in "${units[@]}"; do
        systemctl -q is-enabled "$unit" 2>/dev/null && before+=("$unit")
    done
    if [[ ! -e $policy ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    fi
    apt_get_install "$@"
    for unit in "${units[@]}"; do
        [[ " ${before[*]-} " == *" $unit "* ]] || systemctl -q disable "$unit" 2>/dev/null || :
    done
)

# User-mode Linux keeps the memory of its machines in files: in /dev/shm, unless
# $TMPDIR says otherwise.  Containers often have hardly any room there.
make_room() { # make_room MEGABYTES
    local room
    [[ -z ${TMPDIR-} ]] || return 0
    room=$(df -m --output=avail /dev/shm 2>/dev/null | tail -n 1) || room=0
    ((room >= $1)) || export TMPDIR=/tmp
}
