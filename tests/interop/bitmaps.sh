#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Bitmaps go back and forth: what QEMU makes we keep up to date, what we make QEMU reads, bit by bit.
#
#   bash bitmaps.sh QCOW2_IMG

set -euo pipefail

img=$(realpath "$1")
scratch=$(mktemp -d)
peer=
trap '[[ -z $peer ]] || kill -KILL "$peer" 2> /dev/null || true; rm -rf "$scratch"' EXIT
cd "$scratch"

for program in qemu-img qemu-io qemu-nbd nbdinfo jq; do
    command -v "$program" > /dev/null || {
        echo "skipped: no $program"
        exit 77
    }
done

fail()
{
    echo "$0: $*" >&2
    exit 1
}

clean()
{
    qemu-img check "$1" > check.log 2>&1 || fail "$1: $(cat check.log)"
}

# dirty IMAGE NAME: lines "OFFSET END" of what QEMU takes for dirty.
dirty()
{
    local tries
    rm -f socket
    qemu-nbd -r -t -f qcow2 -B "$2" -k "$scratch/socket" "$1" &
    peer=$!
    for ((tries = 0; tries < 200; tries++)); do
        [[ ! -S socket ]] || break
        kill -0 "$peer" 2> /dev/null || fail "qemu-nbd does not serve bitmap $2 of $1"
        sleep 0.05
    done
    nbdinfo --json --map="qemu:dirty-bitmap:$2" "nbd+unix:///?socket=$scratch/socket" |
        jq -r '.[] | select(.type == 1) | "\(.offset) \(.offset + .length)"' > extents
    kill "$peer"
    wait "$peer" || true
    peer=
    awk 'NR > 1 && $1 == end { end = $2; next }
        NR > 1 { print start, end }
        { start = $1; end = $2 }
        END { if (NR) print start, end }' extents
}

# expect IMAGE NAME LINE...
expect()
{
    local image=$1 name=$2
    shift 2
    dirty "$image" "$name" > got
    { (($# == 0)) || printf '%s\n' "$@"; } > want
    diff want got > bits.diff || fail "$image: bitmap $name: $(cat bits.diff)"
}

# flags IMAGE NAME: as qemu-img says.
flags()
{
    qemu-img info --output=json "$1" | jq -r --arg name "$2" \
        '."format-specific".data.bitmaps[] | select(.name == $name) |
            "\(.granularity) \(.flags | sort | join(","))"'
}

readonly k=1024
for cluster in 512 4k 64k 2M; do
    # Made by QEMU, written to by us.
    rm -f a.qcow2
    qemu-img create -q -f qcow2 -o cluster_size=$cluster a.qcow2 64M
    qemu-img bitmap --add -g 512 a.qcow2 fine
    qemu-img bitmap --add -g 64k --disable a.qcow2 off
    qemu-io -c 'write 1M 4k' -c 'write 63M 1M' a.qcow2 > /dev/null
    "$img" io -c 'write 5M 1k' -c 'write -z 10M 4k' a.qcow2 > /dev/null || fail "io"
    clean a.qcow2
    expect a.qcow2 fine "$((1024 * k)) $((1028 * k))" "$((5120 * k)) $((5121 * k))" \
        "$((10240 * k)) $((10244 * k))" "$((64512 * k)) $((65536 * k))"
    expect a.qcow2 off
    [[ $(flags a.qcow2 fine) == "512 auto" && $(flags a.qcow2 off) == "65536 " ]] ||
        fail "flags: $(flags a.qcow2 fine), $(flags a.qcow2 off)"

    # Made by us, written to by QEMU.
    rm -f b.qcow2
    qemu-img create -q -f qcow2 -o cluster_size=$cluster b.qcow2 64M
    "$img" bitmap --add -g 512 b.qcow2 ours
    "$img" bitmap --add -g 32k --disable b.qcow2 still
    [[ $(flags b.qcow2 ours) == "512 auto" && $(flags b.qcow2 still) == "32768 " ]] || fail "flags"
    clean b.qcow2
    qemu-io -c 'write 8M 1k' b.qcow2 > /dev/null
    "$img" io -c 'write 9M 512' b.qcow2 > /dev/null
    qemu-io -c 'write 0 64k' b.qcow2 > /dev/null
    clean b.qcow2
    expect b.qcow2 ours "0 $((64 * k))" "$((8192 * k)) $((8193 * k))" "$((9216 * k)) $((9216 * k + 512))"
    expect b.qcow2 still

    # The operations, with QEMU's on the same image as the measure.
    cp b.qcow2 c.qcow2
    for program in "$img b.qcow2" "qemu-img c.qcow2"; do
        read -r tool image <<< "$program"
        "$tool" bitmap --merge ours "$image" still
        "$tool" bitmap --clear "$image" ours
        "$tool" bitmap --disable "$image" ours
        "$tool" bitmap --enable "$image" still
        qemu-io -c 'write 20M 1M' "$image" > /dev/null
        "$tool" bitmap --add --merge still -g 1M "$image" sum
        clean "$image"
    done
    for name in ours still sum; do
        dirty c.qcow2 $name > want
        dirty b.qcow2 $name > got
        diff want got > bits.diff || fail "$cluster: $name after the operations: $(cat bits.diff)"
        [[ $(flags b.qcow2 $name) == "$(flags c.qcow2 $name)" ]] || fail "$cluster: flags of $name"
    done
    [[ -s got ]] || fail "$cluster: nothing is dirty"

    # Following the size.
    "$img" resize -q b.qcow2 96M 2> /dev/null || "$img" resize b.qcow2 96M > /dev/null
    qemu-img resize -q c.qcow2 96M
    clean b.qcow2
    for name in ours still sum; do
        dirty c.qcow2 $name > want
        dirty b.qcow2 $name > got
        diff want got > bits.diff || fail "$cluster: $name after resizing: $(cat bits.diff)"
    done

    # Removing.
    for name in ours still sum; do
        "$img" bitmap --remove b.qcow2 $name
        clean b.qcow2
    done
    [[ $(qemu-img info --output=json b.qcow2 | jq '."format-specific".data.bitmaps') == null ]] ||
        fail "$cluster: bitmaps are left"
done

# What QEMU left in use stays in use, and can only be removed.
qemu-img create -q -f qcow2 d.qcow2 16M
qemu-img bitmap --add d.qcow2 lost
mkfifo commands
qemu-io d.qcow2 < commands > prompt 2>&1 &
peer=$!
exec 8> commands
until [[ -s prompt ]]; do
    kill -0 "$peer" || fail "qemu-io does not begin"
    sleep 0.05
done
cp d.qcow2 e.qcow2
kill -KILL "$peer"
wait "$peer" 2> /dev/null || true
peer=
flags e.qcow2 lost | grep -q in-use || fail "QEMU does not mark bitmaps in use"
"$img" io -c 'write 0 64k' e.qcow2 > /dev/null
flags e.qcow2 lost | grep -q in-use || fail "in-use was lost"
! "$img" bitmap --clear e.qcow2 lost 2> /dev/null || fail "an inconsistent bitmap was cleared"
"$img" bitmap --remove e.qcow2 lost
clean e.qcow2
