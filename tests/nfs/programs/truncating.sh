#!/bin/bash
# usage: truncating.sh FILE WRITER COUNT
# Empties FILE by `>` COUNT times, each time when something has come into it; ends
# when nothing comes for some seconds.

. "${0%/*}/common.sh"
file=$1 writer=$2 count=$3
start_together "$writer"
exec {never}<> <(:)
for ((number = 0; number < count; number++)); do
    patience=$((SECONDS + 5))
    until [[ -s $file ]]; do
        ((SECONDS < patience)) || exit 0
        read -r -t 0.005 -u "$never"
    done
    : >"$file" || exit
done
