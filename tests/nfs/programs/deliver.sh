#!/bin/bash
# usage: deliver.sh PROGRAM FILE WRITER COUNT
# Delivers COUNT mails to the mailbox FILE: by `procmail`, by `dovecot` (dovecot-lda, as
# user 1000), or as a script does it that locks with `dotlockfile`.  Prints what came of
# it, in the words of attempts.py.

. "${0%/*}/common.sh"
program=$1 file=$2 writer=$3 count=$4
rules=/tmp/$writer.rules
limit=${TIME_LIMIT:-100}
done='' failed=0

case $program in
procmail)
    # Nobody is to see what cannot be delivered.
    cat >"$rules" <<END
SHELL=/bin/sh
PATH=/usr/bin:/bin
ORGMAIL=/tmp/$writer.undelivered
DEFAULT=$file
LOCKSLEEP=1
:0:
$file
END
    ;;
dovecot)
    export USER=$writer HOME=/tmp/$writer.home
    install -d -o 1000 -g 1000 "$HOME"
    cat >"$rules" <<END
mail_location = mbox:$HOME:INBOX=$file:INDEX=MEMORY
mail_nfs_storage = yes
mmap_disable = yes
mbox_write_locks = dotlock fcntl
postmaster_address = postmaster@example.org
hostname = example.org
log_path = $HOME/log
ssl = no
END
    ;;
esac

deliver() { # deliver NAME
    local mail
    printf -v mail 'From %s Mon Jan  1 00:00:00 2024\nFrom: %s\nSubject: %s\n\nThis is %s.\n' \
        "$writer@example.org" "$writer@example.org" "$1" "$1"
    case $program in
    procmail)
        # It exits with 0 also when it has put a mail elsewhere; the check will tell.
        procmail "$rules" <<<"$mail"
        ;;
    dovecot)
        setpriv --reuid 1000 --regid 1000 --clear-groups \
            /usr/lib/dovecot/dovecot-lda -c "$rules" -e <<<"${mail#*$'\n'}" ||
            { tail -n 3 "$HOME/log" >&2 && return 1; }
        ;;
    dotlockfile)
        dotlockfile -l -r 60 -i 1 "$file.lock" || return
        printf '%s\n' "$mail" >>"$file"
        local status=$?
        dotlockfile -u "$file.lock" && return "$status"
        ;;
    esac
}

start_together "$writer"
SECONDS=0
for ((number = 0; number < count && SECONDS < limit; number++)); do
    if deliver "$writer.$number"; then
        done+=,$number
    else
        ((++failed))
    fi
done
printf 'done %s\nrefused 0\nfailed %d\n' "${done#,}" "$failed"
((SECONDS < limit)) || {
    echo "$writer: not ready after $limit seconds" >&2
    exit 1
}
