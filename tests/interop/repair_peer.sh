#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Where QEMU's repair loses data, gives up, or is content with what is wrong: each case shows what
# it does to a damaged image (version 7.2), and that ours brings all of it back.
#
#   repair_peer.sh QCOW2_CHECK QCOW2_REPAIR [CASE...]

# shellcheck disable=SC2119 # functions have options of their own

# shellcheck source=tests/interop/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tests/interop/repair_lib.sh
source "$here/repair_lib.sh"

need qemu-img qemu-io
need_version 7.2
repair=$(cd "$OLDPWD" && realpath "$2")
shift 2
case=setup

# ---- 1: an L1 entry of zeros ----

# All that its L2 table maps is suddenly free space, which QEMU calls leaks without harm to data.
# Giving that space back punches it out of the file: with the entry put back, the data is gone.
zeroed_l1_entry()
{
    create 1100M
    guest "write -P 1 0 1M" "write -P 2 600M 1M" "write -P 3 1030M 1M"
    remember
    local at entry
    at=$(l1_entry image.qcow2 1)
    entry=$(get64 image.qcow2 "$at")
    put64 image.qcow2 "$at" 0
    their_check 3 image.qcow2
    grep -q "This means waste of disk space, but no harm to data" out || fail "QEMU warns now"
    theirs 0 leaks
    their_check 0
    put64 theirs.qcow2 "$at" "$entry"
    must_differ theirs.qcow2

    all_is_well
}

# ---- 2: one flipped bit in an L1 entry ----

# The L2 table is read from 512 bytes further on, so that of a run of 16 clusters only the last is
# found; the other 15 are leaks to be punched out. With the bit put back they are lost.
misaligned_l1_entry()
{
    create 64M
    guest "write -P 9 60M 64k" "write -P 1 $((49 * 64))k 1M"
    remember
    flip image.qcow2 "$(l1_entry image.qcow2 0)" 9
    theirs "0 2" leaks
    flip theirs.qcow2 "$(l1_entry image.qcow2 0)" 9
    must_differ theirs.qcow2
    qemu-io -r -f qcow2 -c "read -P 1 $((64 * 64))k 64k" theirs.qcow2 > out
    ! grep -q -i failed out || fail "not even the last cluster is there"
    qemu-io -r -f qcow2 -c "read -P 0 $((49 * 64))k 960k" theirs.qcow2 > out
    ! grep -q -i failed out || fail "some of the others are there"

    all_is_well
}

# ---- 3: the number of snapshots becomes 0 ----

# Then what only they refer to is a leak as well.
forgotten_snapshots()
{
    create 64M
    guest "write -P 1 0 1M"
    snapshot first
    guest "write -P 2 0 1M"
    snapshot second
    guest "write -P 3 0 1M"
    remember first second
    put32 image.qcow2 60 0
    their_check 3 image.qcow2
    theirs 0 leaks
    their_check 0
    put32 theirs.qcow2 60 2
    must_differ theirs.qcow2

    all_is_well
}

# ---- 4: two guest ranges on one cluster ----

# QEMU counts the cluster twice and is content: the guest sees one range in both places, and the
# cluster that was the second's is given away.
shared_cluster()
{
    create 64M
    guest "write -P 1 0 256k" "write -P 2 1M 256k"
    remember
    local other
    other=$(l2_entry image.qcow2 17)
    put64 image.qcow2 "$other" "$(get64 image.qcow2 "$(l2_entry image.qcow2 2)")"
    theirs 0 all
    their_check 0
    must_differ theirs.qcow2
    all_is_well

    # The same with an entry that leads into the L1 table, and at a refcount block.
    put64 image.qcow2 "$other" $(($(l1_table image.qcow2) | 1 << 63))
    theirs 0 all
    their_check 0
    must_differ theirs.qcow2
    all_is_well

    put64 image.qcow2 "$other" $(($(get64 image.qcow2 "$(refcount_table image.qcow2)") | 1 << 63))
    theirs "0 2" all
    must_differ theirs.qcow2
    all_is_well
}

# ---- 5: a refcount block far behind the end ----

# QEMU grows the file until the block lies inside it.
distant_refcount_block()
{
    create 64M
    guest "write -P 1 0 4M"
    remember
    local at size
    at=$(refcount_table image.qcow2)
    size=$(stat -c %s image.qcow2)
    put64 image.qcow2 "$at" $(($(get64 image.qcow2 "$at") + (8 << 40)))
    theirs "0 1 2" all
    (($(stat -c %s theirs.qcow2) > 8 << 40)) || fail "QEMU does not let the file grow any more"
    rm theirs.qcow2

    all_is_well
    ours 0
    (($(stat -c %s ours.qcow2) <= size + (1 << 20))) || fail "the file has grown too much"
}

# ---- 6: what is never repaired ----

# `check -r all` reports them, and reports them again, for ever. The level is what we need for it.
stays_broken()
{
    local what=$1
    shift
    theirs "1 2 3" all
    cp theirs.qcow2 again.qcow2
    ! qemu-img check -q -r all again.qcow2 > out 2>&1 || fail "QEMU repairs $what by now"
    all_is_well "$@"
    cp whole.qcow2 image.qcow2
}

never_repaired()
{
    create 1100M
    guest "write -P 1 0 1M" "write -P 2 600M 1M"
    snapshot first
    guest "write -P 3 64k 128k"
    remember first
    cp image.qcow2 whole.qcow2
    local l1 l2
    l1=$(l1_entry image.qcow2 1)
    l2=$(l2_entry image.qcow2 3)

    put64 image.qcow2 "$l2" $((1 << 63 | 1 << 40))
    stays_broken "an L2 entry past the end"
    flip image.qcow2 "$l2" 12
    stays_broken "an unaligned L2 entry"
    flip image.qcow2 "$l2" 58
    stays_broken "reserved bits of an L2 entry"
    put64 image.qcow2 "$l1" $((1 << 63 | 1 << 40))
    stays_broken "an L1 entry past the end"
    flip image.qcow2 "$l1" 60
    stays_broken "reserved bits of an L1 entry"
    put64 image.qcow2 "$(snapshot_table image.qcow2)" $((1 << 40))
    stays_broken "a snapshot's L1 table past the end"
}

# Subclusters that are allocated and zero at once.
subcluster_bits()
{
    create 64M extended_l2=on
    guest "write -P 1 0 256k" "write -P 2 512k 6k"
    remember
    cp image.qcow2 whole.qcow2
    local table
    table=$(host_of image.qcow2 "$(l1_entry image.qcow2 0)")
    put32 image.qcow2 $((table + 8 * 16 + 8)) 0x2
    # Either could be what is wrong.
    ours 2
    stays_broken "subcluster bits" --likely
}

# ---- 7: what it cannot even start with ----

cannot_start()
{
    theirs 1 all
    cmp -s image.qcow2 theirs.qcow2 || fail "QEMU does something about $1 by now"
    all_is_well
    cp whole.qcow2 image.qcow2
}

unusable_header()
{
    create 64M
    guest "write -P 1 0 1M" "write -P 2 8M 1M"
    remember
    cp image.qcow2 whole.qcow2
    put32 image.qcow2 20 29
    cannot_start "cluster_bits"
    put64 image.qcow2 40 $(($(l1_table image.qcow2) + 1))
    cannot_start "an unaligned L1 table"
    put32 image.qcow2 36 0
    cannot_start "an L1 table that is too small"
    put64 image.qcow2 48 $(($(refcount_table image.qcow2) + 1))
    cannot_start "an unaligned refcount table"
    put32 image.qcow2 96 9
    cannot_start "refcount_order"

    qemu-img bitmap --add image.qcow2 dirty
    guest "write -P 3 4M 1M"
    remember
    cp image.qcow2 whole.qcow2
    local at
    at=$(LC_ALL=C grep -obUaP '\x23\x85\x28\x75' image.qcow2 | head -n 1 | cut -d : -f 1)
    put64 image.qcow2 "$(get64 image.qcow2 $((at + 24)))" $((1 << 60 | 5))
    cannot_start "a bitmap directory"
}

# Its backing file is elsewhere today: that is no reason not to look at this one.
missing_backing_file()
{
    qemu-img create -q -f raw base.raw 64M
    qemu-io -f raw -c "write -P 7 0 2M" base.raw > out
    create 64M backing_file=base.raw,backing_fmt=raw
    guest "write -P 1 1M 512k" "write -P 2 8M 1M"
    remember
    put64 image.qcow2 "$(l2_entry image.qcow2 18)" $((1 << 63 | 1 << 40))
    mv base.raw elsewhere.raw
    theirs 1 all
    cmp -s image.qcow2 theirs.qcow2 || fail "QEMU goes without the backing file by now"

    ours 0
    mv elsewhere.raw base.raw
    same ours.qcow2 || fail "not everything is back"
    their_check 0 ours.qcow2
    all_is_well
    rm base.raw
}

# ---- 8: a healthy image ----

# With snapshots and a persistent bitmap, QEMU's repair writes the header before it has read how
# many snapshots there are. Nothing is wrong with the image before; all snapshots are gone after.
healthy()
{
    create 64M
    guest "write -P 1 0 1M"
    snapshot first
    guest "write -P 2 0 1M"
    remember first
    cp image.qcow2 whole.qcow2
    qemu-img bitmap --add image.qcow2 dirty
    remember first
    their_check 0 image.qcow2
    theirs 0 all
    [[ $(get32 theirs.qcow2 60) == 0 ]] || fail "the snapshot is still counted"
    their_check 0
    put32 theirs.qcow2 60 1
    must_differ theirs.qcow2

    ours 0
    cmp -s image.qcow2 ours.qcow2 || fail "a healthy image was written to"

    # An autoclear bit that QEMU does not know does the same.
    cp whole.qcow2 image.qcow2
    put64 image.qcow2 88 $((1 << 20))
    theirs 0 all
    [[ $(get32 theirs.qcow2 60) == 0 ]] || fail "the snapshot is still counted"
    all_is_well
}

# ---- 9: an L1 table of zeros ----

# The image becomes empty, and the file too.
zeroed_l1_table()
{
    create 64M
    guest "write -P 1 0 3M" "write -P 2 20M 3M"
    remember
    put64 image.qcow2 "$(l1_entry image.qcow2 0)" 0
    local before
    before=$(du -k image.qcow2 | cut -f 1)
    theirs 0 all
    their_check 0
    grep -q "No errors were found on the image" out || fail "QEMU finds something by now"
    must_differ theirs.qcow2
    (($(du -k theirs.qcow2 | cut -f 1) < before / 10)) || fail "the data is still in the file"

    all_is_well
}

# ---- 10: an L1 entry that leads to the guest's data ----

# QEMU takes what the guest wrote for L2 entries, and corrects the flags in it.
l1_entry_at_data()
{
    create 1100M
    # A file of the guest in which some words could be entries.
    local i
    for ((i = 0; i < 128; i++)); do
        printf '\x80\0\0\0\0\x05\0\0%504s' "record $i of the guest"
    done > pattern
    guest "write -P 1 0 1M" "write -s pattern 2M 64k" "write -P 2 600M 1M"
    remember
    local data
    data=$(host_of image.qcow2 "$(l2_entry image.qcow2 32)")
    put64 image.qcow2 "$(l1_entry image.qcow2 1)" $((1 << 63 | data))
    theirs "0 1 2 3" all
    must_differ theirs.qcow2
    ! cmp -s <(dd if=theirs.qcow2 bs=64k skip=$((data / 65536)) count=1 status=none) pattern ||
        fail "the guest's data was left alone"

    # The table that is lost is two bits away from the entry, which is not proof enough by default.
    all_is_well --likely
}

# ---- 11: a compressed cluster that claims too much ----

# Its descriptor ends behind the last cluster of the file, so QEMU does not count it at all: the
# cluster that it lies in is free, and the next write takes it.
compressed_past_end()
{
    create 64M
    guest "write -P 1 0 64k" "write -c -P 2 1M 64k"
    remember
    local at
    at=$(l2_entry image.qcow2 16)
    # As many sectors as there can be.
    put64 image.qcow2 "$at" $(($(get64 image.qcow2 "$at") | 0xff << 54))
    theirs "0 2" all
    qemu-io -f qcow2 -c "write -P 3 2M 1M" theirs.qcow2 > out 2>&1 || true
    ! qemu-io -r -f qcow2 -c "read -P 2 1M 64k" theirs.qcow2 > out 2>&1 ||
        ! grep -q -v -i -e failed -e error out || fail "the compressed cluster is still there"

    all_is_well
}

# ---- 12: a random number of snapshots ----

# QEMU gives up in the middle, and nobody can open what it leaves.
random_snapshots()
{
    create 64M
    guest "write -P 1 0 1M"
    snapshot first
    guest "write -P 2 0 1M"
    remember first
    put32 image.qcow2 60 0x5eed
    theirs "1 2" all
    must_differ theirs.qcow2
    their_check 1

    all_is_well
}

# ---- 13: the order of writes ----

# syncs_before_header TRACE: how often the file was made durable between the write before that of
# the header and that one.
syncs_before_header()
{
    awk '
    /fdatasync|fsync/ { syncs++ }
    /pwrite/ {
        offset = $0
        sub(/\) *=.*/, "", offset)
        sub(/.*, /, "", offset)
        if (offset + 0 < 512) {
            print syncs + 0
            found = 1
            exit
        }
        syncs = 0
    }
    END { if (!found) print "none" }' "$1"
}

# New refcount blocks and the header that leads to them go down without a barrier in between: what
# the disk keeps of them after a power cut is anybody's guess.
unordered_writes()
{
    command -v strace > /dev/null || return 0
    strace -f -o /dev/null true 2> /dev/null || return 0
    create 64M
    guest "write -P 1 0 4M"
    remember
    put64 image.qcow2 "$(refcount_table image.qcow2)" 0x1000000000001
    cp image.qcow2 theirs.qcow2
    strace -f -o trace -e trace=pwrite64,pwritev,pwritev2,fdatasync,fsync \
        qemu-img check -r all theirs.qcow2 > out 2>&1 || true
    [[ $(syncs_before_header trace) == 0 ]] || fail "QEMU has a barrier there by now"

    all_is_well
    cp image.qcow2 ours.qcow2
    rm -f ours.qcow2.qcow2kit-undo
    strace -f -o trace -e trace=pwrite64,pwritev,pwritev2,fdatasync,fsync \
        "$repair" ours.qcow2 > out 2>&1 || fail "not repaired"
    [[ $(syncs_before_header trace) != 0 ]] || fail "no barrier before the header"
}

cases=(zeroed_l1_entry misaligned_l1_entry forgotten_snapshots shared_cluster
    distant_refcount_block never_repaired subcluster_bits unusable_header missing_backing_file
    healthy zeroed_l1_table l1_entry_at_data compressed_past_end random_snapshots unordered_writes)
(($#)) || set -- "${cases[@]}"
for case; do
    rm -f -- *
    (
        trap - EXIT
        "$case"
    ) || exit 1
done
