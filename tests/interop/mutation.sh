#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What both programs say of images of QEMU's in which a word of the metadata was changed: a fixed
# series of random changes (mutate.c). Where the counts differ, a problem that we found must explain
# it by a row of the file `explanations`. Whatever was changed, qcow2-check neither crashes nor hangs.
#
# shellcheck disable=SC2317 # in_parallel calls the functions
#
# usage: mutation.sh QCOW2_CHECK MUTATE [COUNT [SEED]]

# shellcheck source=tests/interop/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/images.sh
source "$here/images.sh"
need qemu-img qemu-io jq
need_version 7.2
mutate=$(cd "$OLDPWD" && realpath "$2")
count=${3:-300}
seed=${4:-1}
bases="v2-deleted v3-snapshots v3-512-applied v3-512-compressed v3-resized v3-bitmaps zstd-compressed
    extended-snapshots extended-zeroed refcounts-1-written refcounts-64-512-vmstate metadata-written
    data-zeroed"

# Make the base image NAME-HISTORY, as base in the folder of this worker.
base()
{
    local name=$1 cluster=$2 size=$3 options=$4 history=$5 image=image.qcow2
    (
        create "$image" "$size"
        "history_$history"
    ) || return 1
    mkdir "$scratch/base/$name-$history"
    mv -- * "$scratch/base/$name-$history"
}

# one BASE NUMBER: damage a copy of it.
one()
{
    local name=$1-$2
    cp --sparse=always "$scratch/base/$1"/* .
    "$mutate" image.qcow2 "$seed" "$2" > mutation || return 1
    echo "$name $(< mutation)" >> "$scratch/mutations"
    examine "$name" image.qcow2
    rm -f -- image.qcow2*
}

# matches_problem PROBLEM FIELD OURS QEMU REASON: whether one of the problems that we found is that,
# and the difference of that kind.
matches_problem()
{
    # shellcheck disable=SC2053,SC2154 # patterns; variables of explain
    [[ ,$problems, == *,$1,* && $field == $2 ]] || return 1
    # shellcheck disable=SC2053 # patterns
    case $3 in
    more) ((${ours/absent/0} > ${qemu/absent/0})) ;;
    fewer) ((${ours/absent/0} < ${qemu/absent/0})) ;;
    any) ;;
    *) [[ $ours == $3 && $qemu == $4 ]] ;;
    esac
}

mkdir base
while read -r name cluster size options history; do
    [[ " ${bases//$'\n'/ } " != *" $name-$history "* ]] ||
        echo "$name $cluster $size $options $history"
done < <(QCOW2KIT_TEST_ALL=1 matrix) | in_parallel base
mapfile -t made < <(ls base)
rm -rf -- [0-9]*
for ((number = 0; number < count; number++)); do
    echo "${made[number % ${#made[@]}]} $number"
done | in_parallel one
differences_in > found
explain "$here/explanations" matches_problem some
if [[ -s failures ]]; then
    printf 'The changes behind the failures:\n'
    cut -d: -f1 failures | sort -u | while read -r name; do
        grep -- "^$name " mutations || true
    done
fi
printf '%s images compared, %s differences\n' "$(count_reports)" "$(wc -l < found)"
finish
