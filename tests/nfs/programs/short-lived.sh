#!/bin/bash
# usage: short-lived.sh FILE WRITER COUNT
# Appends each line by a process of its own, as logger-like programs do.

. "${0%/*}/common.sh"
file=$1 writer=$2 count=$3
start_together "$writer"
for ((number = 0; number < count; number++)); do
    line "$writer" "$number"
    /usr/bin/printf '%s\n' "$LINE" >>"$file" || exit
done
