#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# snapshot, resize and bitmap: the same change as qemu-img makes.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

make()
{
    local name=$1
    shift
    (cd peer && qemu-img create -q -f qcow2 "$@" "$name" 20M &&
        qemu-io -c "write -P 1 0 1M" -c "write -P 2 3M 70k" "$name" > /dev/null)
}

make disk.qcow2
make old.qcow2 -o compat=0.10
make small.qcow2 -o cluster_size=4k,refcount_bits=64
make extended.qcow2 -o extended_l2=on
make over.qcow2 -b disk.qcow2 -F qcow2
make marked.qcow2
truncate -s 10M peer/raw
share true

names=(disk.qcow2 old.qcow2 small.qcow2 extended.qcow2 over.qcow2)
# QEMU records that no instructions were executed; ours that nobody counted them.
export filter='del(.snapshots[]?["date-sec", "date-nsec", "icount"])'
export text_filter='; s/(DATE.*[^ ]) +0? *$/\1/'

# ---- snapshots ----

write_all()
{
    local folder
    for folder in peer own; do
        (cd "$folder" && qemu-io "$@" > out-io) || fail "qemu-io cannot write to $folder"
    done
}

for name in "${names[@]}"; do
    both 0 snapshot -c one "$name"
    write_all -c "write -P 3 512k 1M" "$name"
    both 0 snapshot -c "two words" "$name"
    write_all -c "write -P 4 0 100k" -c "discard 3M 1M" "$name"
    both 0 snapshot -l "$name"
    same "$name"
    both 0 snapshot -a one "$name"
    same "$name"
    both 0 snapshot -a 2 "$name"
    same "$name"
    both 0 snapshot -q -c one "$name"
    same_info "$name"
    both 0 snapshot -d one "$name"
    both 0 snapshot -l "$name"
    both 0 snapshot -d "two words" "$name"
    same "$name"
    both 0 snapshot -d one "$name"
    both 1 snapshot -d one "$name"
    both 1 snapshot -a one "$name"
    same "$name"
    same_info "$name"
done
both 1 snapshot -c x raw
both 1 snapshot -c x missing.qcow2
both 1 snapshot -U -c x disk.qcow2
both 1 snapshot -c x -d y disk.qcow2
both 1 snapshot
export filter=.

# ---- size ----

for name in "${names[@]}"; do
    both 0 resize "$name" +1M
    both 0 resize -q "$name" 30M
    both 1 resize "$name" 32000001
    same "$name"
    both 1 resize "$name" 5M
    both 0 resize --shrink "$name" 5M
    same "$name"
    both 0 resize --shrink "$name" -1M
    both 0 resize --preallocation=metadata "$name" +3M || true
    both 0 resize --preallocation=full "$name" +1M
    same "$name"
    same_info "$name"
    both 1 resize "$name" -10M
    both 1 resize --shrink "$name" -100M
    both 1 resize "$name" 0
    both 1 resize "$name" 1x
    both 1 resize "$name"
    both 1 resize --preallocation=nonsense "$name" +1M
    both 1 resize --preallocation=full --shrink "$name" -1M
    same "$name"
    same_info "$name"
done
both 0 resize -f raw raw +1M
both 0 resize -f raw --shrink raw 1000
both 0 resize -f raw --preallocation=full raw 10000
both 0 resize -f raw --preallocation=falloc raw 30000
both 1 resize -f raw --preallocation=metadata raw +1M
cmp peer/raw own/raw || fail "raw files differ"

# ---- bitmaps ----

both 0 bitmap --add marked.qcow2 a
both 1 bitmap --add marked.qcow2 a
both 0 bitmap --add --disable marked.qcow2 b
both 0 bitmap --add -g 4k marked.qcow2 "two words"
both 1 bitmap --add -g 5k marked.qcow2 odd
both 1 bitmap --add -g 256 marked.qcow2 odd
same_info marked.qcow2
write_all -c "write -P 5 8M 1M" marked.qcow2
both 0 bitmap --merge a --merge "two words" marked.qcow2 b
both 0 bitmap --clear marked.qcow2 a
both 0 bitmap --disable marked.qcow2 a
both 0 bitmap --enable marked.qcow2 b
both 0 bitmap --add --merge b --disable marked.qcow2 copy
both 1 bitmap --merge none marked.qcow2 b
both 1 bitmap --remove marked.qcow2 none
same marked.qcow2
same_info marked.qcow2
(cd peer && qemu-img create -q -f qcow2 same-size.qcow2 20M)
cp peer/same-size.qcow2 own
both 0 bitmap --add same-size.qcow2 from
both 0 bitmap --merge b -b marked.qcow2 -F qcow2 same-size.qcow2 from
both 1 bitmap --merge b -b raw -F raw same-size.qcow2 from
same_info same-size.qcow2
for name in a b copy "two words"; do
    both 0 bitmap --remove marked.qcow2 "$name"
done
same_info marked.qcow2
same marked.qcow2
both 1 bitmap marked.qcow2 a
both 1 bitmap -g 4k --clear marked.qcow2 a
both 1 bitmap -b disk.qcow2 --clear marked.qcow2 a
both 1 bitmap -F qcow2 --merge a marked.qcow2 a
both 1 bitmap --add marked.qcow2
both 1 bitmap --add raw a
