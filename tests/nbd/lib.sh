# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the tests of the NBD server share. A test runs in a scratch folder of its own as
#
#   bash TEST.sh PLUGIN [LIBRARY]
#
# where LIBRARY is what the server must have loaded for a plugin with a sanitizer inside. `serve`
# starts a server with these arguments of the plugin at `uri`; `stop` ends it and fails where it does
# not end well or complained, `end` does not mind complaints.

set -euo pipefail

plugin=$(realpath "$1")
preload=${2:-}
scratch=$(mktemp -d)
server=
trap 'leave' EXIT
cd "$scratch"

readonly plugin preload scratch
# shellcheck disable=SC2034 # for the tests
readonly uri="nbd+unix:///?socket=$scratch/socket"

leave()
{
    [[ -z $server ]] || kill -KILL "$server" 2> /dev/null || true
    rm -rf "$scratch"
}

fail()
{
    echo "$0: $*" >&2
    [[ ! -s server.log ]] || sed 's/^/server: /' server.log >&2
    exit 1
}

need()
{
    local program
    for program in "$@"; do
        command -v "$program" > /dev/null || {
            echo "skipped: no $program"
            exit 77
        }
    done
}
need nbdkit nbdcopy nbdinfo qemu-img qemu-io jq

# serve [-OPTION]... PARAMETER...: options are the server's own.
serve()
{
    local options=() tries
    while [[ $1 == -* ]]; do
        options+=("$1")
        shift
    done
    # Memory that the server itself does not give back at its end is none of our business.
    ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD=$preload \
        nbdkit -f -U "$scratch/socket" "${options[@]}" "$plugin" "$@" 2> server.log &
    server=$!
    for ((tries = 0; tries < 200; tries++)); do
        [[ ! -S socket ]] || return 0
        kill -0 "$server" 2> /dev/null || fail "the server did not start"
        sleep 0.05
    done
    fail "the server did not start in time"
}

# end: with SIGTERM, which has it close the image.
end()
{
    local status=0 tries
    kill "$server"
    for ((tries = 0; tries < 600; tries++)); do
        kill -0 "$server" 2> /dev/null || break
        sleep 0.05
    done
    ((tries < 600)) || fail "the server does not end"
    wait "$server" || status=$?
    server=
    rm -f socket
    [[ $status == 0 ]] || fail "the server ended with status $status"
}

stop()
{
    end
    [[ ! -s server.log ]] || fail "the server complained"
}

# clean IMAGE: nothing is wrong with it and nothing leaks.
clean()
{
    qemu-img check "$1" > check.log 2>&1 || fail "$1: $(cat check.log)"
}

# same IMAGE FORMAT RAW: the disk's content is that of a raw file.
same()
{
    qemu-img compare -f "$2" -F raw "$1" "$3" > compare.log 2>&1 ||
        fail "$1 is not $3: $(cat compare.log)"
}

# io COMMAND... IMAGE: all of them succeed.
io()
{
    local commands=()
    while (($# > 1)); do
        commands+=(-c "$1")
        shift
    done
    qemu-io -f raw "${commands[@]}" "$1" > io.log 2>&1 || fail "$1: $(cat io.log)"
    ! grep -qiE 'fail|error|Pattern verification' io.log || fail "$1: $(cat io.log)"
}

# A raw file with data, zeros, holes, and the start of a pattern in many places.
make_raw()
{
    truncate -s "$2" "$1"
    qemu-io -f raw -c 'write -P 0x11 0 1M' -c 'write -P 0x22 5M 300k' -c 'write -P 0x33 20000k 77k' \
        -c 'write -P 0 9M 1M' "$1" > /dev/null
    dd if=/dev/urandom of="$1" bs=64k seek=200 count=33 conv=notrunc status=none
}
