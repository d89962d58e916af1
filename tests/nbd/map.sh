#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What clients are told about a disk: its map, which is that of qemu-nbd, and what it can do.

# shellcheck source=tests/nbd/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-nbd

# extents FILE: one line for each, alike ones next to each other joined.
extents()
{
    jq -r '.[] | "\(.offset) \(.length) \(.type)"' "$1" |
        awk 'NR > 1 && $3 == type && $1 == end { end = $1 + $2; next }
             NR > 1 { print start, end, type }
             { start = $1; end = $1 + $2; type = $3 }
             END { print start, end, type }'
}

# same_map IMAGE
same_map()
{
    serve -r "$1"
    nbdinfo --map --json "$uri" > ours.json
    stop
    qemu-nbd -r -f qcow2 -k "$scratch/peer" --fork --pid-file=peer.pid "$1"
    nbdinfo --map --json "nbd+unix:///?socket=$scratch/peer" > theirs.json
    ! kill "$(cat peer.pid)" 2> /dev/null || sleep 0.1
    rm -f peer
    extents ours.json > ours
    extents theirs.json > theirs
    diff theirs ours > map.diff || fail "$1: the maps differ: $(cat map.diff)"
    [[ $(wc -l < ours) -ge $2 ]] || fail "$1: less than $2 extents: $(cat ours)"
}

make_raw disk.raw 64M
qemu-img convert -O qcow2 disk.raw plain.qcow2
qemu-io -c 'write -z 30M 1M' -c 'write -z -u 2M 64k' -c 'discard 192k 64k' plain.qcow2 > /dev/null
same_map plain.qcow2 7
qemu-img convert -c -O qcow2 disk.raw packed.qcow2
same_map packed.qcow2 5
qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 top.qcow2 80M
qemu-io -c 'write -P 0x55 3M 100k' -c 'write -z 64k 64k' top.qcow2 > /dev/null
same_map top.qcow2 9
qemu-img create -q -f qcow2 -o extended_l2=on sub.qcow2 64M
for i in {0..40}; do
    qemu-io -c "write $((i * 100))k 3k" sub.qcow2 > /dev/null
done
same_map sub.qcow2 80

# More extents than one answer holds.
qemu-img create -q -f qcow2 -o cluster_size=512 many.qcow2 16M
commands=()
for ((i = 0; i < 9000; i++)); do
    commands+=("write $((i * 1024)) 512")
done
printf '%s\n' "${commands[@]}" | qemu-io many.qcow2 > /dev/null
same_map many.qcow2 18000

# A map through the server is a map of the disk.
serve -r plain.qcow2
qemu-img map --output=json -f raw "$uri" | jq -c '.[] | [.start, .length, .zero, .data]' > ours
stop
qemu-img map --output=json plain.qcow2 | jq -c '.[] | [.start, .length, .zero, .data]' > theirs
extent_count=$(wc -l < ours)
((extent_count >= 6)) || fail "qemu-img map: $(cat ours)"
diff <(sed 's/,\(true\|false\)]$/]/' theirs | sort -u | wc -l) <(wc -l < theirs) > /dev/null

serve plain.qcow2
nbdinfo --json "$uri" > info.json
jq -e '.exports[0] | .["export-size"] == 67108864 and .can_multi_conn and .can_trim and .can_zero and
    .can_fast_zero and .can_fua and .can_flush and (.is_read_only | not) and .can_cache and
    .block_size_minimum == 1 and .block_size_preferred == 65536' info.json > /dev/null ||
    fail "$(cat info.json)"
stop
serve -r plain.qcow2
nbdinfo --json "$uri" > info.json
jq -e '.exports[0].is_read_only' info.json > /dev/null || fail "$(cat info.json)"
stop
