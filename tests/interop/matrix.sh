#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Whatever QEMU makes is clean, and both programs count the same in it: images of all features, each
# with a history (images.sh), checked by both. Only where QEMU was killed may the image be unclean,
# and then both have to say so in the same way.
#
# usage: matrix.sh QCOW2_CHECK [PATTERN]; of images named NAME-HISTORY like PATTERN

# shellcheck source=tests/interop/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/images.sh
source "$here/images.sh"
need qemu-img qemu-io jq
pattern=${2:-*}

# Clean also to those who read all data and follow all names.
check_deeply()
{
    local status=0
    timeout "$our_seconds" "$check" --deep --chain "$1" > "deep.$worker" 2>&1 || status=$?
    ((status == 0)) || complain "$2: --deep --chain: $status: $(head -c 2000 "deep.$worker")"
}

# one NAME CLUSTER SIZE OPTIONS HISTORY: make the image and look at it.
one()
{
    local name=$1 cluster=$2 size=$3 options=$4 history=$5 image=image.qcow2
    local folder=files.$worker
    # shellcheck disable=SC2053
    [[ $name-$history == $pattern ]] || return 0
    mkdir "$folder"
    make_and_look || return 1
    rm -rf "$folder"
}
