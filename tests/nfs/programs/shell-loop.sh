#!/bin/bash
# usage: shell-loop.sh FILE WRITER COUNT
# Appends lines as shell scripts do: each `>>` opens, appends and closes.  With $AGAIN
# a line that is refused is tried again.

. "${0%/*}/common.sh"
file=$1 writer=$2 count=$3
start_together "$writer"
for ((number = 0; number < count; number++)); do
    line "$writer" "$number"
    until echo "$LINE" >>"$file"; do
        [[ -n ${AGAIN-} ]] || exit
    done
done
