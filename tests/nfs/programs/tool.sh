#!/bin/bash
# usage: tool.sh TOOL FILE WRITER COUNT
# Updates FILE by an ordinary tool, COUNT times: `sed`, `sort` and `vim` each add a
# line, `git` makes a commit in the working tree FILE.  What is refused because
# somebody else was faster is tried again, as one would by hand.  Prints what came of
# it, in the words of attempts.py.

. "${0%/*}/common.sh"
tool=$1 file=$2 writer=$3 count=$4
errors=/tmp/tool.$BASHPID.errors
limit=${TIME_LIMIT:-100}
done='' refused=0 failed=0
export GIT_AUTHOR_NAME=$writer GIT_AUTHOR_EMAIL=$writer@example.org
export GIT_COMMITTER_NAME=$writer GIT_COMMITTER_EMAIL=$writer@example.org

use_tool() { # use_tool NAME: adds NAME to the file
    case $tool in
    sed) sed -i "\$a $1" "$file" ;;
    sort) sort -o "$file" "$file" - <<<"$1" ;;
    vim) flock "${file%.*}.guard" vim.tiny -u NONE -n -es "$file" <<<$'$a\n'"$1"$'\n.\nwq' ;;
    git)
        echo "$1" >"$file/$1.txt" &&
            git -C "$file" add "$1.txt" &&
            git -C "$file" commit -q --allow-empty -m "$1"
        ;;
    esac
}

# Says an error that it is worth trying again?
comes_too_late() {
    case $tool in
    git)
        [[ $1 == *.lock\'*File\ exists* || $1 == *"cannot lock ref"* ||
            $1 == *"unable to write new index file"* ]]
        ;;
    *) [[ $1 == *"Stale file handle"* ]] ;;
    esac
}

start_together "$writer"
SECONDS=0
for ((number = 0; number < count; number++)); do
    until use_tool "$writer.$number" >/dev/null 2>"$errors"; do
        why=$(<"$errors")
        if ! comes_too_late "$why" || ((SECONDS >= limit)); then
            ((++failed > 5)) || echo "$writer: update $number: $why" >&2
            continue 2
        fi
        ((++refused))
        sleep "0.0$((RANDOM % 10))"
    done
    done+=,$number
done
printf 'done %s\nrefused %d\nfailed %d\n' "${done#,}" "$refused" "$failed"
((SECONDS < limit)) || {
    echo "$writer: not ready after $limit seconds" >&2
    exit 1
}
