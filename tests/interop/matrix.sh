#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Whatever QEMU makes is clean, and both programs count the same in it: images of all features, each
# with a history (images.sh), checked by both. Only where QEMU was killed may the image be unclean,
# and then both have to say so in the same way.
# shellcheck disable=SC2317 # in_parallel calls the functions
#
# usage: matrix.sh QCOW2_CHECK [PATTERN]; PATTERN selects images by NAME-HISTORY

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
    timeout "$our_seconds" "$check" --deep --chain "$image" > log 2>&1 || status=$?
    ((status == 0)) || complain "$name-$history: --deep --chain gives $status: $(head -c 2000 log)"
}

# The killed need not be clean.
look()
{
    examine "$name-$history" "$image" "${secret[@]}" --image-opts "$(spec "$image")"
    if [[ $history != killed ]]; then
        check_deeply
        ((our_status == 0)) || complain "$name-$history: not clean: exit status $our_status"
    fi
}

# one NAME CLUSTER SIZE OPTIONS HISTORY
one()
{
    local name=$1 cluster=$2 size=$3 options=$4 history=$5 image=image.qcow2
    # shellcheck disable=SC2053
    [[ $name-$history == $pattern ]] || return 0
    (
        create_once
        "history_$history"
        look
    ) || complain "$name-$history: not made"
    rm -f -- *.qcow2 *.raw *.data
}

matrix > images
in_parallel one < images
differences_in > differences
while read -r name field ours qemu _; do
    complain "$name: $field: ours $ours, QEMU's $qemu"
done < differences
printf '%s images compared\n' "$(count_reports)"
finish
