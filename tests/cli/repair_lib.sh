# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What the tests of qcow2-repair share, on top of lib.sh. Each runs in a folder of its own as
#   bash TEST.sh QCOW2_CHECK Q2_RECIPE QCOW2_REPAIR QCOW2_IMG

# shellcheck source=tests/cli/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
repair=$3
img=$4
touch out err
export repair img

# mend STATUS ARGUMENT...: run qcow2-repair, leave its output in the files out and err.
mend()
{
    local want=$1 got=0
    shift
    "$repair" "$@" > out 2> err || got=$?
    [[ $got == "$want" ]] || fail "status $got, not $want: qcow2-repair $*"
}

digest() { sha256sum < "$1"; }

# same FILE DIGEST: the file is byte for byte what it was.
same() { [[ $(digest "$1") == "$2" ]] || fail "$1 has changed"; }

# lists NAME...: these files, and no others, begin with the name of the first.
lists()
{
    local got
    got=$(printf '%s\n' "${1%%.*}".* | xargs)
    [[ $got == "$*" ]] || fail "there are the files $got, not $*"
}
