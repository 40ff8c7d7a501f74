#!/bin/bash
# usage: rotate.sh HOW FILE COUNT
# Lets logrotate rotate the log FILE COUNT times, each time when something has come
# into it; ends when nothing comes for some seconds.  HOW: `copytruncate` or `create`.
# Prints how often it has been rotated.

. "${0%/*}/common.sh"
how=$1 file=$2 count=$3
rotated=0
printf '%s {\n su root root\n rotate 99\n %s\n}\n' "$file" "$how" >/tmp/rotate.conf
exec {never}<> <(:)

# With `create`, a log that is there before logrotate could make one is renamed by it,
# over what it has renamed so within the same hour.  A directory of that name keeps it
# from losing that; then it complains, and leaves the log as it is.
if [[ $how == create ]]; then
    mkdir "$file-$(date +%Y%m%d%H).backup" "$file-$(date -d '1 hour' +%Y%m%d%H).backup" || exit
fi
for ((number = 0; number < count; number++)); do
    patience=$((SECONDS + 5))
    until [[ -s $file ]]; do
        ((SECONDS < patience)) || break 2
        read -r -t 0.005 -u "$never"
    done
    if ! logrotate -f -s /tmp/rotate.state /tmp/rotate.conf 2>/tmp/rotate.errors; then
        errors=$(</tmp/rotate.errors)
        if [[ $how != create || $errors != *"already exists"* ]]; then
            echo "$errors" >&2
            exit 1
        fi
    fi
    ((++rotated))
    read -r -t 0.2 -u "$never"
done
echo "$rotated"
