# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What tests of repairs next to QEMU's share. A case makes image.qcow2 with qemu-img and qemu-io,
# remembers what the guest reads of it (`remember`), damages it, and lets both repair a copy: theirs
# in theirs.qcow2, ours in ours.qcow2.

# Stops at the first thing that is not as it says, with the line of the test that called.
fail()
{
    local frame=0
    while [[ ${BASH_SOURCE[frame]} == */repair_lib.sh ]]; do
        frame=$((frame + 1))
    done
    printf '%s:%s: %s: %s\n' "${BASH_SOURCE[frame]##*/}" "${BASH_LINENO[frame - 1]}" "$case" "$1" >&2
    [[ ! -f out ]] || tail -c 3000 out >&2
    exit 1
}

# ---- words of a file ----

# get64 FILE OFFSET, get32 FILE OFFSET: a big-endian number; bit 63 makes it negative, as
# everywhere in this shell.
get64() { echo "$((0x$(od -An -v -tx1 -j "$(($2))" -N 8 "$1" | tr -d ' \n')))"; }
get32() { echo "$((0x$(od -An -v -tx1 -j "$(($2))" -N 4 "$1" | tr -d ' \n')))"; }

# put FILE OFFSET HEX...: write these bytes.
put()
{
    local file=$1 offset=$2
    shift 2
    # shellcheck disable=SC2059 # the format is the bytes
    printf "$(printf '%s' "$*" | tr -d ' ' | sed 's/../\\x&/g')" |
        dd of="$file" bs=1 seek="$((offset))" conv=notrunc status=none
}

# put64 FILE OFFSET NUMBER, put32 FILE OFFSET NUMBER
put64() { put "$1" "$2" "$(printf '%016x' "$(($3))")"; }
put32() { put "$1" "$2" "$(printf '%08x' "$(($3))")"; }

# flip FILE OFFSET BIT: of the 64-bit word there.
flip() { put64 "$1" "$2" "$(($(get64 "$1" "$2") ^ (1 << $3)))"; }

# ---- structures of an image ----

l1_table() { get64 "$1" 40; }
refcount_table() { get64 "$1" 48; }
snapshot_table() { get64 "$1" 64; }

# l1_entry FILE INDEX: where it is.
l1_entry() { echo "$(($(l1_table "$1") + $2 * 8))"; }

# host_of FILE OFFSET: where the entry at this offset leads.
host_of() { echo "$(($(get64 "$1" "$2") & 0x00fffffffffffe00))"; }

# l2_entry FILE INDEX: where that of the first L2 table is.
l2_entry() { echo "$(($(host_of "$1" "$(l1_entry "$1" 0)") + $2 * 8))"; }

# ---- images ----

# create SIZE [OPTIONS]: an empty image.qcow2.
create() { qemu-img create -q -f qcow2 ${2:+-o "$2"} image.qcow2 "$1"; }

# guest COMMAND...: what the guest does to image.qcow2, as qemu-io has it.
guest()
{
    local command arguments=()
    for command; do
        arguments+=(-c "$command")
    done
    qemu-io -f qcow2 "${arguments[@]}" image.qcow2 > out 2>&1 || fail "qemu-io $*"
    ! grep -q -i -e failed -e error out || fail "qemu-io $*"
}

snapshot() { qemu-img snapshot -q -c "$1" image.qcow2; }

# content IMAGE [SNAPSHOT]: a digest of what a guest reads; "unreadable" where QEMU cannot read it.
# What is converted to depends on the content alone, and is as small as that.
content()
{
    rm -f flat
    if timeout 60 qemu-img convert -q -m 1 -f qcow2 ${2:+-l "snapshot.name=$2"} -O qcow2 "$1" flat \
        2> out; then
        sha256sum < flat
    else
        echo unreadable
    fi
    rm -f flat
}

# remember [SNAPSHOT...]: what the guest reads of image.qcow2 and these snapshots.
remember()
{
    local name
    snapshots=("$@")
    declare -gA remembered=([disk]=$(content image.qcow2))
    for name; do
        remembered[$name]=$(content image.qcow2 "$name")
    done
    qemu-img check -q image.qcow2 || fail "the image is not healthy to begin with"
}

# same IMAGE: whether disk and snapshots read as was remembered.
same()
{
    local name
    [[ $(content "$1") == "${remembered[disk]}" ]] || return 1
    for name in "${snapshots[@]}"; do
        [[ $(content "$1" "$name") == "${remembered[$name]}" ]] || return 1
    done
}

must_differ() { ! same "$1" || fail "$1 is whole: QEMU does better than that"; }

# ---- repairing ----

# theirs STATUS LEVEL: QEMU repairs a copy.
theirs()
{
    local want=$1 got=0
    cp image.qcow2 theirs.qcow2
    (
        ulimit -v "$qemu_memory_kib" 2> /dev/null
        exec timeout -k 1 60 qemu-img check -r "$2" theirs.qcow2
    ) > out 2>&1 || got=$?
    [[ " $want " == *" $got "* ]] || fail "qemu-img check -r $2 ends with $got, not $want"
}

# their_check STATUS [IMAGE]: what it says without repairing.
their_check()
{
    local got=0
    timeout -k 1 60 qemu-img check "${2-theirs.qcow2}" > out 2>&1 || got=$?
    [[ $got == "$1" ]] || fail "qemu-img check of ${2-theirs.qcow2} ends with $got, not $1"
}

# ours STATUS [OPTION...]: we repair a copy.
ours()
{
    local want=$1 got=0
    shift
    rm -f ours.qcow2 ours.qcow2.qcow2kit-undo
    cp image.qcow2 ours.qcow2
    "$repair" "$@" ours.qcow2 > out 2>&1 || got=$?
    [[ $got == "$want" ]] || fail "qcow2-repair $* ends with $got, not $want"
}

# all_is_well [OPTION...]: we repair a copy; then disk and snapshots are whole, both programs find
# nothing wrong, a second run finds nothing to do, and undoing gives the damaged image back.
all_is_well()
{
    ours 0 "$@"
    same ours.qcow2 || fail "not everything is back"
    their_check 0 ours.qcow2
    "$check" -q ours.qcow2 > out 2>&1 || fail "qcow2-check is not content"
    local before
    before=$(sha256sum < ours.qcow2)
    "$repair" --journal=second "$@" ours.qcow2 > out 2>&1 || fail "a second repair fails"
    [[ $(sha256sum < ours.qcow2) == "$before" ]] || fail "a second repair changes the image"
    rm -f second
    if [[ -f ours.qcow2.qcow2kit-undo ]]; then
        "$repair" --undo=ours.qcow2.qcow2kit-undo ours.qcow2 > out 2>&1 || fail "undoing fails"
        cmp -s image.qcow2 ours.qcow2 || fail "undoing does not give the damaged image back"
    fi
}
