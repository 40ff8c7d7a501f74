# shellcheck shell=bash
# What the shell programs share: the lines that they append, and a common start.
# No function here forks; a fork is slow on the machines of the cluster.

LETTERS=abcdefghijklmnopqrstuvwxyz
LETTERS+=$LETTERS$LETTERS$LETTERS

line() { # line WRITER NUMBER -> LINE, the same that common.py makes
    local size=$((40 + $2 * 7 % 60)) head
    printf -v head '@%s %06d %d ' "$1" "$2" "$size"
    # shellcheck disable=SC2034 # for the caller
    printf -v LINE '%s%s %08x' "$head" "${LETTERS:$2 % 26:size - ${#head} - 10}" \
        $((($2 * 2654435761 + size) & 0xffffffff))
}

start_together() { # start_together WRITER: ready; and waits until all are
    [[ -n ${BARRIER-} ]] || return 0
    local never
    exec {never}<> <(:)
    : >"$BARRIER/$1"
    until [[ -e $BARRIER/go ]]; do read -r -t 0.005 -u "$never"; done
    exec {never}<&-
}
