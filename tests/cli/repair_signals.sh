#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# A repair that is told to end while it plans leaves the image as it was and no journal; one that is
# killed leaves what the next one cleans up.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
make_images
need strace
before=$(digest leaky.qcow2)

# Reading slowly, it plans for as long as this takes.
slow=(strace -D -f -o /dev/null -e 'inject=pread64,preadv:delay_enter=2000000')
"${slow[@]}" true 2> err || {
    echo "skipped: strace does not work here"
    exit 77
}

# interrupt SIGNAL STATUS
interrupt()
{
    local pid got=0
    "${slow[@]}" "$repair" leaky.qcow2 > out 2> err &
    pid=$!
    for _ in $(seq 200); do
        [[ ! -e leaky.qcow2.qcow2kit-undo ]] || break
        sleep 0.05
    done
    sleep 0.3
    kill "-$1" "$pid" || fail "it has ended before the signal $1"
    wait "$pid" || got=$?
    [[ $got == "$2" ]] || fail "status $got, not $2, after a signal $1"
    out_is_empty
    same leaky.qcow2 "$before"
}

interrupt TERM 143
lists leaky.qcow2
interrupt HUP 129
lists leaky.qcow2
interrupt KILL 137
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
for _ in $(seq 100); do # What is inside goes with it, but not at once.
    "$repair" leaky.qcow2 > out 2> err && break
    err_has "another process"
    sleep 0.1
done
out_has "Written, and checked again:"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
run 0 leaky.qcow2
