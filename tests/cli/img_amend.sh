#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# amend: the same change as qemu-img makes, and key slots that QEMU opens.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

(
    cd peer || exit
    qemu-img create -q -f qcow2 disk.qcow2 20M
    qemu-io -c "write -P 1 0 1M" -c "write -P 2 3M 70k" -c "write -z 5M 1M" disk.qcow2
    qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 over.qcow2
    qemu-io -c "write -P 3 64k 64k" -c "write -z 1M 64k" -c "write -c 2M 64k" over.qcow2
    qemu-img create -q -f qcow2 snapshots.qcow2 20M
    for name in one two three; do
        qemu-io -c "write -P 4 0 1M" snapshots.qcow2
        qemu-img snapshot -c $name snapshots.qcow2
    done
    qemu-img create -q -f qcow2 -o compression_type=zstd zstd.qcow2 1M
    qemu-img create -q -f qcow2 -o extended_l2=on extended.qcow2 1M
    truncate -s 1M raw
    for number in 1 2 3; do
        printf 'pass phrase %s' $number > key$number
    done
    qemu-img create -q -f qcow2 --object secret,id=a,file=key1 \
        -o encrypt.format=luks,encrypt.key-secret=a,encrypt.iter-time=10 luks.qcow2 1M
) > out
share true

for name in disk.qcow2 over.qcow2 snapshots.qcow2; do
    for options in compat=0.10 compat=1.1 refcount_bits=64 refcount_bits=8 lazy_refcounts=on \
        lazy_refcounts=off refcount_bits=16 compat=v2 \
        compat=v3,refcount_bits=32,lazy_refcounts=on size=30M; do
        # What is below is nothing to refcounts, and QEMU takes seconds for each.
        [[ $name != over.qcow2 || $options != refcount_bits=* ]] || continue
        both 0 amend -o $options $name
        same $name
        same_info $name
    done
    both 1 amend -o compat=0.10,lazy_refcounts=on $name
    both 1 amend -o refcount_bits=7 $name
    both 1 amend -o refcount_bits=128 $name
    both 1 amend -o cluster_size=4k $name
    both 1 amend -o nonsense=on $name
    both 1 amend -o compat=nonsense $name
    both 1 amend -o backing_file=other,backing_fmt=raw $name
    both 1 amend -o encrypt.state=active $name
    both 1 amend $name
    same $name
    same_info $name
done
both 1 amend -o refcount_bits=1 snapshots.qcow2
both 1 amend -o compat=v2,refcount_bits=16,lazy_refcounts=off snapshots.qcow2
# qemu-img makes broken images of these.
for name in zstd extended; do
    [[ $(in_folder own "$img" amend -o compat=0.10 $name.qcow2) == 1 ]] || fail "amends $name"
    same $name.qcow2
done
both 1 amend -o lazy_refcounts=on raw
both 1 amend -o compat=1.1
same snapshots.qcow2

# Progress ends with everything.
[[ $(in_folder own "$img" amend -p -o refcount_bits=16 disk.qcow2) == 0 ]] || fail "does not amend"
grep -q '    (100.00/100%)' out || fail "no progress"

# ---- key slots ----

secrets=()
for number in 1 2 3; do
    secrets+=(--object "secret,id=k$number,file=key$number")
done

image() { echo "driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=$1"; }

amend()
{
    local status=$1 key=$2
    shift 2
    both "$status" amend "${secrets[@]}" --image-opts -o "$*" "$(image "$key")"
}

# opens KEY...: these open the image, the others do not.
opens()
{
    local key want
    for key in k1 k2 k3; do
        want=1
        [[ " $* " != *" $key "* ]] || want=0
        [[ $(in_folder own qemu-io "${secrets[@]}" -c "read 0 4k" --image-opts "$(image $key)") \
            == "$want" ]] || fail "$key: not $want"
        [[ $(in_folder own "$img" map "${secrets[@]}" --image-opts "$(image $key)") == 0 ]] ||
            fail "map needs a key"
    done
}

export filter='del(.. | .uuid?, .iters?, ."master-key-iters"?)'
opens k1
amend 0 k1 encrypt.state=active,encrypt.new-secret=k2,encrypt.iter-time=10
opens k1 k2
same_info luks.qcow2
amend 0 k2 encrypt.state=active,encrypt.new-secret=k3,encrypt.keyslot=5,encrypt.iter-time=10
opens k1 k2 k3
same_info luks.qcow2
amend 1 k2 encrypt.state=active,encrypt.new-secret=k3,encrypt.keyslot=5
amend 1 k2 encrypt.state=active,encrypt.new-secret=k3,encrypt.keyslot=8
amend 1 k2 encrypt.state=active
amend 1 k2 encrypt.state=nonsense
amend 1 k2 encrypt.new-secret=k1
amend 1 k2 encrypt.state=inactive
amend 1 k2 encrypt.state=inactive,encrypt.new-secret=k1
amend 0 k2 encrypt.state=inactive,encrypt.old-secret=k1
opens k2 k3
same_info luks.qcow2
amend 1 k2 encrypt.state=inactive,encrypt.old-secret=k1
amend 0 k2 encrypt.state=inactive,encrypt.keyslot=5
opens k2
amend 1 k2 encrypt.state=inactive,encrypt.keyslot=1
amend 1 k2 encrypt.state=inactive,encrypt.old-secret=k2
opens k2
same_info luks.qcow2
both 0 amend --force "${secrets[@]}" --image-opts -o encrypt.state=inactive,encrypt.keyslot=1 \
    "$(image k2)"
opens
