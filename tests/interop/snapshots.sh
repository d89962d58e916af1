#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Snapshots in both directions: images that QEMU made, with snapshots of its own, are snapshotted,
# reverted and cleared by qcow2-img and by QEMU in turns. After each step `qemu-img check` and
# qcow2-check find nothing, and all states read as they did, as QEMU reads them.
# shellcheck disable=SC2317 # in_parallel calls the functions
#
# usage: snapshots.sh QCOW2_CHECK QCOW2_IMG [PATTERN]; PATTERN selects images by NAME-HISTORY

program=$(realpath "${2:?usage: snapshots.sh QCOW2_CHECK QCOW2_IMG [PATTERN]}")
# shellcheck source=tests/interop/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/interop/images.sh
source "$here/images.sh"
need qemu-img qemu-io jq
pattern=${3:-*}

# Disks of more than this take too long to read as often as here.
readonly most_bytes=$((70 << 20))

# Every sixteenth of those that QEMU can take snapshots of; all of them if a pattern is given.
snapshot_images()
{
    local name cluster size options history number=0
    while read -r name cluster size options history; do
        # Refcounts of one or two bits cannot count that many states.
        case $options in
        *refcount_bits=[12],* | *refcount_bits=[12] | *data_file*) continue ;;
        esac
        ((size <= most_bytes)) || continue
        case $history in
        random | compressed | snapshots | deleted | applied | vmstate | resized)
            number=$((number + 1))
            if [[ $pattern != "*" ]] || ((number % 16 == 0)); then
                echo "$name $cluster $size $options $history"
            fi
            ;;
        esac
    done < <(matrix)
}

# ---- states ----

# Where the state named $1 is kept; the active one is named "".
kept() { printf 'state-%s' "$(md5sum <<< "$1" | cut -c 1-16)"; }

# read_state NAME FILE
read_state()
{
    local arguments=()
    [[ -z $1 ]] || arguments+=(-l "snapshot.name=$1")
    rm -f "$2"
    img convert -O qcow2 "${arguments[@]}" --image-opts "$(spec "$image")" "$2"
}

remember() { read_state "$1" "$(kept "$1")"; }

names() { qemu-img info -U --output=json "$image" | jq -r '.snapshots[]?.name'; }

# expect NAME FILE STEP: the state reads as what is kept in FILE
expect()
{
    read_state "$1" now.qcow2
    qemu-img compare -q now.qcow2 "$2" ||
        complain "$name-$history: $3: state '$1' reads differently"
}

# verify STEP: all is well with the image.
verify()
{
    local status=0 snapshot
    qemu-img check "${secret[@]}" --image-opts "$(spec "$image")" > log 2>&1 ||
        complain "$name-$history: $1: qemu-img check: $(< log)"
    "$check" "$image" > log 2>&1 || status=$?
    ((status == 0)) || complain "$name-$history: $1: qcow2-check: $(head -c 1000 log)"
    expect "" "$(kept "")" "$1"
    while IFS= read -r snapshot; do
        expect "$snapshot" "$(kept "$snapshot")" "$1"
    done < <(names)
}

# ---- steps ----

ours() { must timeout "$our_seconds" "$program" snapshot "$1" "$2" "$image"; }

take()
{
    "$1" -c "$2"
    cp "$(kept "")" "$(kept "$2")"
    verify "$1 takes '$2'"
}

apply()
{
    "$1" -a "$2"
    cp "$(kept "$2")" "$(kept "")"
    verify "$1 applies '$2'"
}

delete()
{
    "$1" -d "$2"
    ! names | grep -qxF -- "$2" || complain "$name-$history: $1: '$2' is still there"
    verify "$1 deletes '$2'"
}

write_more()
{
    local at=0
    ((size < 8 * cluster)) || at=$((RANDOM % 4 * cluster))
    io "write -P $((RANDOM % 255 + 1)) $at 512"
    remember ""
}

take_turns()
{
    local first snapshot
    remember ""
    while IFS= read -r snapshot; do
        remember "$snapshot"
    done < <(names)
    first=$(names | head -n 1)
    take ours "ours"
    write_more
    apply ours "ours"
    take snapshot "theirs"
    write_more
    take ours "ours later"
    if [[ -n $first ]]; then
        apply snapshot "$first"
        apply ours "ours"
        write_more
        apply ours "$first"
        delete ours "$first"
    fi
    write_more
    delete snapshot "ours"
    apply snapshot "ours later"
    delete ours "theirs"
    while IFS= read -r snapshot; do
        delete ours "$snapshot"
    done < <(names)
    [[ -z $(names) ]] || complain "$name-$history: snapshots are left"
}

# The VM's state goes where the snapshot goes.
move_vm_state()
{
    local length=$((2 * cluster + 512))
    io "write -b -P 21 0 $length"
    ours -c "suspended"
    io "write -b -P 22 0 $length"
    ours -a "suspended"
    io "read -b -P 21 0 $length"
    ! grep -q 'verification failed' log ||
        complain "$name-$history: VM state reads differently: $(< log)"
    ours -d "suspended"
    io "read -b -P 21 0 $length"
    ! grep -q 'verification failed' log ||
        complain "$name-$history: VM state reads differently in the end: $(< log)"
    qemu-img check "${secret[@]}" --image-opts "$(spec "$image")" > log 2>&1 ||
        complain "$name-$history: after VM state: $(< log)"
}

# one NAME CLUSTER SIZE OPTIONS HISTORY
one()
{
    local name=$1 cluster=$2 size=$3 options=$4 history=$5 image=image.qcow2
    # shellcheck disable=SC2053
    [[ $name-$history == $pattern ]] || return 0
    (
        RANDOM=1
        create_once
        "history_$history"
        size=$(qemu-img info --output=json "$image" | jq '.["virtual-size"]')
        ((size == 0)) || take_turns
        move_vm_state
        echo "$name-$history" >> through
    ) || complain "$name-$history: not finished"
    rm -f -- *.qcow2 *.raw *.data state-*
}

snapshot_images > images
in_parallel one < images
count=$(find . -name through -exec cat {} + | wc -l)
printf '%s images went through snapshots\n' "$count"
((count)) || complain "no image went through snapshots"
finish
