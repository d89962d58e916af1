# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the tests of the command line share. Each runs in a folder of its own as
#   bash TEST.sh QCOW2_CHECK Q2_RECIPE [more]
# and stops at the first thing that is not as it says.

set -euo pipefail

check=$1
recipe=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
unset NO_COLOR
export check recipe here scratch

# The line of the test that called.
fail()
{
    local frame=0
    while [[ ${BASH_SOURCE[frame]} == */lib.sh ]]; do
        frame=$((frame + 1))
    done
    printf '%s:%s: %s\n' "${BASH_SOURCE[frame]}" "${BASH_LINENO[frame - 1]}" "$1" >&2
    printf -- '--- stdout\n%s\n--- stderr\n%s\n' "$(head -c 4000 out)" "$(head -c 4000 err)" >&2
    exit 1
}

# run STATUS ARGUMENT...: run qcow2-check, leave its output in the files out and err.
run()
{
    local want=$1 got=0
    shift
    "$check" "$@" > out 2> err || got=$?
    [[ $got == "$want" ]] || fail "status $got, not $want: qcow2-check $*"
}

out_has() { grep -qF -- "$1" out || fail "stdout lacks: $1"; }
err_has() { grep -qF -- "$1" err || fail "stderr lacks: $1"; }
out_lacks() { ! grep -qF -- "$1" out || fail "stdout has: $1"; }
out_is_empty() { [[ ! -s out ]] || fail "stdout is not empty"; }
err_is_empty() { [[ ! -s err ]] || fail "stderr is not empty"; }

# jq_is EXPRESSION VALUE: what jq makes of stdout.
jq_is()
{
    local got
    got=$(jq -r "$1" out) || fail "stdout is no JSON: $1"
    [[ $got == "$2" ]] || fail "jq '$1' gives $got, not $2"
}

# image NAME: build an image from the recipe on stdin.
image()
{
    cat > recipe
    "$recipe" recipe "$1"
}

# The images that most tests use.
make_images()
{
    image clean.qcow2 << 'END'
version 3
cluster-size 64K
size 1G
write 0 1M 0x11
END
    image damaged.qcow2 << 'END'
version 3
cluster-size 64K
size 1G
write 0 1M 0x11
snapshot "before"
write 64K 128K 0x22
l2[1].offset = 0x99990000
END
    image leaky.qcow2 << 'END'
version 3
cluster-size 64K
size 1G
leak 3
END
    echo "no image at all, but long enough to be one if it wanted to" > other.txt
}

need()
{
    command -v "$1" > /dev/null || {
        echo "skipped: no $1"
        exit 77
    }
}
