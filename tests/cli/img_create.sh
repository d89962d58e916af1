#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# create and measure: the same line, the same image and the same sizes as qemu-img's.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

printf 'secret' > peer/key
share true

# made NAME ARGUMENT...: both make it, and it is the same image.
made()
{
    local name=$1
    shift
    both 0 create -f qcow2 "$@"
    same_info "$name"
    [[ $name == data.qcow2 ]] || same "$name"
}

made plain.qcow2 plain.qcow2 1G
made odd.qcow2 odd.qcow2 1000001
made fraction.qcow2 fraction.qcow2 1.5k
made nothing.qcow2 nothing.qcow2 0
made huge.qcow2 -o cluster_size=2M huge.qcow2 1P
for compat in 0.10 v2 1.1 v3; do
    made $compat.qcow2 -o compat=$compat $compat.qcow2 100M
done
for size in 512 4k 64K 2M; do
    made c$size.qcow2 -o cluster_size=$size,size=10M c$size.qcow2
done
for bits in 1 2 4 8 16 32 64; do
    made r$bits.qcow2 -o refcount_bits=$bits r$bits.qcow2 10M
done
made lazy.qcow2 -o lazy_refcounts=on lazy.qcow2 10M
made zstd.qcow2 -o compression_type=zstd zstd.qcow2 10M
made extended.qcow2 -o extended_l2=on extended.qcow2 10M
made extended16.qcow2 -o extended_l2=on,cluster_size=16k extended16.qcow2 10M
for mode in off metadata falloc full; do
    made p$mode.qcow2 -o preallocation=$mode p$mode.qcow2 3M
    made pe$mode.qcow2 -o preallocation=$mode,extended_l2=on,cluster_size=32k pe$mode.qcow2 3M
done
made data.qcow2 -o data_file=data.raw data.qcow2 3M
made data.qcow2 -o data_file=rawdata.raw,data_file_raw=on data.qcow2 3M
made twice.qcow2 -o size=2M -o cluster_size=32k -o size=3M twice.qcow2
made replaced.qcow2 replaced.qcow2 1M
made replaced.qcow2 -o cluster_size=512 replaced.qcow2 2M
made over.qcow2 -b plain.qcow2 -F qcow2 over.qcow2
made over.qcow2 -b plain.qcow2 -F qcow2 over.qcow2 2G
made over.qcow2 -o backing_file=plain.qcow2,backing_fmt=qcow2 over.qcow2
made over.qcow2 -b plain.qcow2 -F qcow2 -o extended_l2=on,preallocation=metadata over.qcow2 3M
mkdir peer/folder own/folder
made folder/over.qcow2 -b ../plain.qcow2 -F qcow2 folder/over.qcow2
both 0 create -q -f qcow2 quiet.qcow2 1M
both 0 create -u -f qcow2 -b missing.qcow2 -F qcow2 unsafe.qcow2 1M
same_info unsafe.qcow2

# Encryption: only the unlocking tells. The time that it takes is short here.
export filter='del(.. | .uuid?, .iters?, ."master-key-iters"?)'
secret=(--object "secret,id=s,file=key")
key=encrypt.key-secret=s
both 0 create -f qcow2 "${secret[@]}" -o encrypt.format=aes,$key aes.qcow2 1M
same_info aes.qcow2
both 0 create -f qcow2 "${secret[@]}" -o encryption=on,$key aes.qcow2 1M
same_info aes.qcow2
for more in cipher-alg=aes-128,encrypt.hash-alg=sha512,encrypt.ivgen-alg=plain \
    cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256; do
    both 0 create -f qcow2 "${secret[@]}" \
        -o encrypt.format=luks,$key,encrypt.iter-time=10,encrypt.$more luks.qcow2 1M
    same_info luks.qcow2
    (cd own && qemu-img check -q "${secret[@]}" --image-opts \
        driver=qcow2,file.filename=luks.qcow2,$key) || fail "QEMU does not open it"
    (cd own && qemu-io "${secret[@]}" -c "read -P 0 0 1M" --image-opts \
        driver=qcow2,file.filename=luks.qcow2,$key > /dev/null) || fail "QEMU does not read it"
done
export filter=.

# Raw images.
both 0 create raw 1M
both 0 create -f raw -o size=3M raw
both 0 create -f raw -o preallocation=full raw 64k
both 0 create -f raw -o preallocation=falloc raw 64k
both 0 create raw 1000
cmp peer/raw own/raw || fail "raw images differ"

# What is refused, and leaves nothing behind.
refused()
{
    rm -f peer/new own/new
    both 1 create "$@"
    [[ ! -e own/new ]] || fail "leaves an image: create $*"
}
both 1 create
both 1 create -f nonsense new 1M
both 1 create -Z
refused -f qcow2 new
refused -f qcow2 new 1M 2M
refused -f qcow2 new 1x
refused -f qcow2 new 1e3
refused -f qcow2 new -- -1k
refused -f qcow2 new 8E
refused -f qcow2 -o size=1M new 2M
refused -f qcow2 -o nonsense=1 new 1M
refused -f qcow2 -b new -F qcow2 new 1M
refused -f qcow2 -b "" new 1M
refused -f qcow2 -b missing.qcow2 -F qcow2 new
refused -f qcow2 -b missing.qcow2 -F qcow2 new 1M
refused -f raw -b plain.qcow2 -F qcow2 new 1M
refused -f raw -o cluster_size=4k new 1M
refused -f qcow2 missing/new 1M

# qemu-img says "Formatting" before it finds out.
denied()
{
    rm -f own/new
    [[ $(in_folder own "$img" create -f qcow2 "$@") == 1 ]] || fail "makes it: $*"
    [[ -s err && ! -e own/new ]] || fail "fails silently or leaves an image: $*"
    [[ $(in_folder peer qemu-img create -f qcow2 "$@") == 1 ]] || fail "qemu-img makes it: $*"
}
denied -o cluster_size=3 new 1M
denied -o cluster_size=4M new 1M
denied -o compat=2 new 1M
denied -o compat=v2,lazy_refcounts=on new 1M
denied -o compat=v2,refcount_bits=8 new 1M
denied -o compat=v2,compression_type=zstd new 1M
denied -o compat=v2,extended_l2=on new 1M
denied -o extended_l2=on,cluster_size=4k new 1M
denied -o refcount_bits=7 new 1M
denied -o refcount_bits=128 new 1M
denied -o preallocation=nonsense new 1M
denied -o compression_type=nonsense new 1M
denied -o data_file_raw=on new 1M
denied -o encrypt.format=luks new 1M
denied -o encrypt.format=nonsense new 1M
denied -o encrypt.format=luks,encrypt.key-secret=s new 1M
denied -o lazy_refcounts=maybe new 1M
denied -b plain.qcow2 -F qcow2 -o preallocation=full new 1M
denied -b plain.qcow2 -F qcow2 -o data_file=d,data_file_raw=on new 1M
denied new 1E
denied -F qcow2 new 1M
[[ $(in_folder own "$img" create -f qcow2 -b plain.qcow2 new) == 1 ]] || fail "guesses a format"

# How large images would be.
for form in human json; do
    for size in 0 1000 1G 100T; do
        look 0 measure --output=$form --size $size
        look 0 measure --output=$form -O qcow2 --size $size
    done
    for options in cluster_size=4k cluster_size=2M preallocation=metadata preallocation=full \
        extended_l2=on refcount_bits=64 refcount_bits=1 compat=0.10 data_file=x lazy_refcounts=on \
        backing_file=plain.qcow2,backing_fmt=qcow2; do
        look 0 measure --output=$form -O qcow2 -o $options --size 1G
        look 0 measure --output=$form -O qcow2 -o $options over.qcow2
    done
done
(
    cd peer || exit
    qemu-img create -q -f qcow2 used.qcow2 20M
    qemu-io -c "write 3k 3k" -c "write 1M 200k" -c "write -z 3M 1M" used.qcow2 > /dev/null
    qemu-img snapshot -c one used.qcow2
    qemu-io -c "write 10M 1M" used.qcow2 > /dev/null
    qemu-img bitmap --add used.qcow2 a
    qemu-img bitmap --add -g 512 used.qcow2 "a longer name"
    qemu-img create -q -f qcow2 -b used.qcow2 -F qcow2 above.qcow2
    qemu-img create -q -f qcow2 -o preallocation=metadata,cluster_size=4k preallocated.qcow2 20M
    qemu-io -c "write 3k 3k" -c "write 1M 200k" preallocated.qcow2 > /dev/null
    # With holes for good, where QEMU left what may or may not be one.
    for name in used.qcow2 preallocated.qcow2; do
        cp --sparse=always $name settled && mv settled $name
    done
)
for name in used.qcow2 above.qcow2 preallocated.qcow2 pfull.qcow2 raw; do
    look 0 measure -O qcow2 $name
    look 0 measure -O qcow2 -o cluster_size=4k --output=json $name
    look 0 measure -O raw $name
done
look 0 measure -O qcow2 -l one used.qcow2
look 0 measure -O qcow2 -o compat=0.10 used.qcow2
look 0 measure -O qcow2 "${secret[@]}" -o encrypt.format=luks,$key --size 1G
look 1 measure
look 1 measure --size 1G used.qcow2
look 1 measure -l none used.qcow2
look 1 measure -o cluster_size=4k --size 1G
look 1 measure -O nonsense --size 1G
