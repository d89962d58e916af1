#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Requests of all kinds, aligned and not, change the disk as they change a raw file.

# shellcheck source=tests/nbd/lib.sh
source "$(dirname "$0")/lib.sh"

# Deterministic, so that a failure comes back: numbers from a seed.
RANDOM=4711
commands_for()
{
    local i offset length
    for ((i = 0; i < 150; i++)); do
        offset=$(((RANDOM * 32768 + RANDOM) % (16 << 20) / 512 * 512))
        length=$(((RANDOM * 8 % 300000 + 512) / 512 * 512))
        ((offset + length <= 16 << 20)) || length=512
        case $((RANDOM % 5)) in
        0) echo "write -z $offset $length" ;;
        1) echo "write -z -u $offset $length" ;;
        2) echo "write -f -P $((RANDOM % 255 + 1)) $offset $length" ;;
        *) echo "write -P $((RANDOM % 255 + 1)) $offset $length" ;;
        esac
        ((i % 20)) || echo "flush"
    done
}

for variant in cluster_size=64k cluster_size=1k extended_l2=on compat=0.10 lazy_refcounts=on; do
    commands_for > commands
    rm -f disk.raw
    truncate -s 16M disk.raw
    qemu-img create -q -f qcow2 -o "$variant" disk.qcow2 16M
    qemu-io -f raw disk.raw < commands > /dev/null
    serve disk.qcow2
    qemu-io -f raw "$uri" < commands > io.log 2>&1 || fail "$variant: $(cat io.log)"
    ! grep -qiE 'fail|error' io.log || fail "$variant: $(grep -iE 'fail|error' io.log)"
    same "$uri" raw disk.raw
    stop
    clean disk.qcow2
    same disk.qcow2 qcow2 disk.raw

    # Trimmed ranges read as zeros, and their clusters are free.
    serve disk.qcow2
    io 'discard 0 16M' 'read -P 0 0 16M' "$uri"
    stop
    clean disk.qcow2
    [[ $(qemu-img check --output=json disk.qcow2 | jq '."allocated-clusters" // 0') == 0 ]] ||
        fail "$variant: trimmed clusters are still allocated"
done

# Without discard, nothing is trimmed.
qemu-img create -q -f qcow2 disk.qcow2 16M
serve disk.qcow2 discard=off
io 'write -P 1 0 1M' "$uri"
nbdinfo --json "$uri" | jq -e '.exports[0].can_trim | not' > /dev/null || fail "it can trim"
io 'write -z -u 0 1M' 'read -P 0 0 1M' "$uri"
stop
clean disk.qcow2
[[ $(qemu-img check --output=json disk.qcow2 | jq '."allocated-clusters"') == 16 ]] ||
    fail "discard=off gave clusters back"
