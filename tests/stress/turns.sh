#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Images that QEMU made, and the same random requests to copies of each: all by qemu-io, all by
# `qcow2-img io`, and by both in turns. The copies read the same afterwards, and both checks are
# content.
#
# usage: turns.sh QCOW2_CHECK QCOW2_IMG [SEED]

set -euo pipefail

check=$(realpath "$1")
program=$(realpath "$2")
seed=${3:-1}
if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
    echo "there is no QEMU here"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
RANDOM=$seed

readonly size=$((1 << 20)) rounds=3 requests=30

# Put -c REQUEST for each of a few random requests into `commands`. QEMU compresses only what has no
# cluster yet, so that a part of the disk is left to that until the last round.
choose()
{
    local cluster=$1 version=$2 plain=$3 offset length how end=$((size * 3 / 4))
    ((round + 1 < rounds)) || end=$size
    commands=()
    for ((i = 0; i < requests; i++)); do
        offset=$(((RANDOM << 15 | RANDOM) % (end / 512) * 512))
        length=$(((RANDOM % (RANDOM % 4 ? 9 : 300) + 1) * 512))
        how=$((RANDOM % 9))
        if ((how == 6)); then
            offset=$((offset / cluster * cluster))
            length=$cluster
        fi
        ((offset + length <= end)) || length=$((end - offset))
        case $how in
        [0-3]) commands+=(-c "write -P $((RANDOM % 256)) $offset $length") ;;
        4) commands+=(-c "write -z $offset $length") ;;
        5) commands+=(-c "flush") ;;
        6) if ((version == 3)); then
               commands+=(-c "write -z -u $offset $length")
           fi ;;
        7) if ((plain == 0 && end < size && packed + cluster <= size)); then
               commands+=(-c "write -c -P $((RANDOM % 256)) $packed $cluster")
               packed=$((packed + cluster))
           fi ;;
        8) commands+=(-c "discard $offset $length") ;;
        esac
    done
}

theirs()
{
    qemu-io -f qcow2 "${commands[@]}" "$1" >log 2>&1 || { cat log; return 1; }
}

ours()
{
    "$program" io -f qcow2 "${commands[@]}" "$1" >log 2>&1 || { cat log; return 1; }
}

examine()
{
    local image=$1
    qemu-img check -q "$image" || { echo "$kind: qemu-img check finds faults in $image"; return 1; }
    "$check" "$image" >log 2>&1 || { cat log; return 1; }
    qemu-img compare -q -f qcow2 -F qcow2 all-theirs.qcow2 "$image" || {
        echo "$kind: $image reads otherwise than QEMU's"
        return 1
    }
}

# The copies go through a few rounds of requests.
try()
{
    local options=$1 backing=$2 cluster version plain=0
    packed=$((size * 3 / 4))
    kind="$options ${backing:+over a backing file}"
    cluster=$(sed -n 's/.*cluster_size=\([0-9]*\).*/\1/p' <<<"$options")
    case $options in *compat=0.10*) version=2 ;; *) version=3 ;; esac
    case $options in *data_file*) plain=1 ;; esac
    qemu-img create -q -f qcow2 -o "$options" ${backing:+-b "$backing" -F qcow2} \
        all-theirs.qcow2 $size
    cp all-theirs.qcow2 all-ours.qcow2
    cp all-theirs.qcow2 first-ours.qcow2
    cp all-theirs.qcow2 first-theirs.qcow2
    for ((round = 0; round < rounds; round++)); do
        choose "$cluster" "$version" "$plain"
        theirs all-theirs.qcow2
        ours all-ours.qcow2
        if ((round % 2 == 0)); then
            ours first-ours.qcow2
            theirs first-theirs.qcow2
        else
            theirs first-ours.qcow2
            ours first-theirs.qcow2
        fi
        for image in all-ours first-ours first-theirs; do
            examine $image.qcow2 || {
                printf '%s\n' "seed $seed, round $round:" "${commands[@]}"
                exit 1
            }
        done
    done
    rm -f ./*-ours.qcow2 ./*-theirs.qcow2
}

qemu-img create -q -f qcow2 -o cluster_size=4096 below.qcow2 700K
qemu-io -f qcow2 -c "write -P 7 100K 300K" -c "write -c -P 9 500K 4096" \
    -c "write -z 200K 50K" below.qcow2 >/dev/null

for backing in "" below.qcow2; do
    try compat=0.10,cluster_size=512 "$backing"
    try compat=0.10,cluster_size=65536 "$backing"
    try cluster_size=512 "$backing"
    try cluster_size=4096,refcount_bits=64 "$backing"
    try cluster_size=65536,lazy_refcounts=on "$backing"
    try cluster_size=2097152 "$backing"
    try cluster_size=16384,extended_l2=on "$backing"
    try cluster_size=65536,extended_l2=on,compression_type=zstd "$backing"
    try cluster_size=1024,refcount_bits=1 "$backing"
done
