#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# convert, dd and digest: the copy shows what qemu-img's copy shows, whatever the source is made of
# and the target is made as; what qemu-img refuses is refused.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

# make NAME OPTION...: an image with data, zeros, holes and compressed clusters, not aligned.
make()
{
    local name=$1
    shift
    qemu-img create -q -f qcow2 "$@" "peer/$name" 5M
    qemu-io -c "write -P 1 1000 300000" -c "write -z 512k 1M" -c "write -c -P 2 2M 64k" \
        -c "write -P 3 3000000 5000" -c "write -P 0 3500k 200k" -c "write -c -P 4 4M 1M" \
        -c "write -P 5 5242368 512" -c "discard 128k 64k" "peer/$name" > /dev/null 2>&1 ||
        true # writes of several compressed clusters at once are refused here and there
}

make plain.qcow2
make tiny.qcow2 -o cluster_size=512
make big.qcow2 -o cluster_size=2M
make extended.qcow2 -o extended_l2=on
make zstd.qcow2 -o compression_type=zstd
make old.qcow2 -o compat=0.10
make over.qcow2 -b plain.qcow2 -F qcow2
(
    cd peer || exit
    qemu-img convert -O raw plain.qcow2 plain.raw
    qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 thin.qcow2 7M
    qemu-io -c "write -P 9 100k 10k" -c "write -z 3M 100k" -c "write -P 8 6M 1k" thin.qcow2
    qemu-img snapshot -c before thin.qcow2
    qemu-io -c "write -P 10 0 2M" thin.qcow2
    qemu-img bitmap --add -g 4k thin.qcow2 changes
    qemu-img bitmap --add --disable thin.qcow2 still
    qemu-io -c "write -P 11 300k 100k" thin.qcow2
    printf secret > key
) > out 2> err || fail "cannot make images"
share true

# Sources of every kind.
for source in plain tiny big extended zstd old over thin; do
    both 0 convert -f qcow2 -O raw "$source.qcow2" out.raw
    cmp peer/out.raw own/out.raw || fail "$source.qcow2 converts to another raw file"
    both 0 convert -O qcow2 "$source.qcow2" out.qcow2
    same out.qcow2
    same_info out.qcow2
    got=$("$img" digest "peer/$source.qcow2")
    [[ $got == "$(sha256sum < peer/out.raw | cut -c 1-64)  peer/$source.qcow2" ]] ||
        fail "the digest of $source.qcow2 is not that of its raw copy"
done
# Targets of every kind.
for options in "-c" "-c -W -m 3" "-c -o compression_type=zstd" "-c -o cluster_size=512" \
    "-c -o cluster_size=2M" "-o extended_l2=on" "-o compat=0.10" "-o preallocation=metadata" \
    "-S 0" "-S 512" "-S 1M" "-W -m 16" "-m 1" "-o preallocation=full,cluster_size=4k" \
    "-t writeback -T none" "-r 100M" "-C" "-p -q"; do
    for source in plain thin; do
        rm -f {peer,own}/out.qcow2
        # shellcheck disable=SC2086 # several words
        both 0 convert -O qcow2 $options $source.qcow2 out.qcow2
        same out.qcow2
        same_info out.qcow2
    done
done
both 0 convert -O qcow2 -o data_file=data.raw thin.qcow2 beside.qcow2
(cd own && qemu-img compare -q thin.qcow2 beside.qcow2) || fail "another content in a data file"
# What is a hole with qemu-img is one here; -S 0 makes none.
both 0 convert -O raw thin.qcow2 out.raw
[[ $(stat -c %b own/out.raw) -le $(($(stat -c %b peer/out.raw) + 64)) ]] || fail "not as sparse"
both 0 convert -S 0 -O raw thin.qcow2 out.raw
[[ $(stat -c %b own/out.raw) -ge $((7 * 2048)) ]] || fail "-S 0 leaves holes"
for size in 4k 64k 2M; do # clusters that would only hold zeros are not there
    both 0 convert -O qcow2 -o cluster_size=$size plain.raw out.qcow2
    [[ $(stat -c %s own/out.qcow2) -le $(($(stat -c %s peer/out.qcow2) + 65536)) ]] ||
        fail "larger than qemu-img's with clusters of $size"
done

# Several sources, snapshots, the part above a backing file, encryption.
both 0 convert -O qcow2 plain.qcow2 plain.raw over.qcow2 out.qcow2
same out.qcow2
for snapshot in before snapshot.name=before snapshot.id=1; do
    both 0 convert -l "$snapshot" -O qcow2 thin.qcow2 out.qcow2
    same out.qcow2
done
got=$(cd peer && "$img" digest --output=json -l before thin.qcow2 | jq -r '.[0].sha256')
qemu-img convert -l before -O raw peer/thin.qcow2 snapshot.raw
[[ $got == "$(sha256sum < snapshot.raw | cut -c 1-64)" ]] || fail "digest of a snapshot"
for options in "-O qcow2" "-c -O qcow2" "-O qcow2 -o extended_l2=on"; do
    # shellcheck disable=SC2086 # several words
    both 0 convert $options -B plain.qcow2 -F qcow2 thin.qcow2 out.qcow2
    same out.qcow2
    same_info out.qcow2
    [[ $(qemu-io -c map own/out.qcow2 | head -n 1) == *"not allocated"* ||
        $options != "-O qcow2" || $(stat -c %s own/out.qcow2) -lt 4000000 ]] ||
        fail "-B copies what the backing file has"
done
both 0 convert -O qcow2 --object secret,id=s,file=key \
    -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 plain.qcow2 luks.qcow2
for folder in peer own; do
    (cd $folder && "$img" convert --object secret,id=s,file=key --image-opts -O raw \
        driver=qcow2,file.filename=luks.qcow2,encrypt.key-secret=s clear.raw) || fail "luks"
    cmp peer/plain.raw $folder/clear.raw || fail "decrypts to something else"
done

# Onto something: all of it is replaced, as far as the source goes.
(
    cd peer || exit
    qemu-img create -q -f qcow2 used.qcow2 8M
    qemu-io -c "write -P 99 0 8M" used.qcow2
    head -c 5M /dev/urandom > used.raw
    qemu-img create -q -f qcow2 clean.qcow2 8M
) > out 2> err
share true
both 0 convert -n -O qcow2 plain.qcow2 used.qcow2
same used.qcow2
both 0 convert -n -O raw plain.qcow2 used.raw
cmp peer/used.raw own/used.raw || fail "-n leaves something in a raw file"
both 0 convert -n --target-is-zero -O qcow2 plain.qcow2 clean.qcow2
same clean.qcow2
both 0 convert -n --target-image-opts plain.qcow2 driver=qcow2,file.filename=clean.qcow2
same clean.qcow2

# Bitmaps.
both 0 convert --bitmaps -O qcow2 thin.qcow2 out.qcow2
same out.qcow2
same_info out.qcow2
for folder in peer own; do # what the bitmap says, through a merge into nothing
    (cd $folder && "$img" bitmap --add -g 4k out.qcow2 copy && "$img" bitmap --merge changes \
        out.qcow2 copy)
done
same out.qcow2

# What is refused.
both 1 convert -O qcow2 plain.qcow2 /nonexistent/out.qcow2
both 1 convert missing.qcow2 out.raw
both 1 convert plain.qcow2
both 1 convert -O vmdkx plain.qcow2 out.raw
both 1 convert -c -O raw plain.qcow2 out.raw
both 1 convert -O qcow2 -o nonsense=1 plain.qcow2 out.qcow2
both 1 convert -n -O qcow2 plain.qcow2 missing.qcow2
both 1 convert -n -O qcow2 -o cluster_size=4k plain.qcow2 out.qcow2
both 1 convert --target-is-zero -O qcow2 plain.qcow2 out.qcow2
both 1 convert -B plain.qcow2 -O qcow2 thin.qcow2 new.qcow2
both 1 convert -F qcow2 -O qcow2 thin.qcow2 new.qcow2
both 1 convert -B plain.qcow2 -F qcow2 -O raw thin.qcow2 new.raw
both 1 convert -B plain.qcow2 -F qcow2 -O qcow2 thin.qcow2 thin.qcow2 new.qcow2
both 1 convert -l missing thin.qcow2 new.raw
both 1 convert -l snapshot.nonsense=1 thin.qcow2 new.raw
both 1 convert -l before thin.qcow2 thin.qcow2 new.raw
both 1 convert -l before plain.raw new.raw
for options in "-S 100" "-S x" "-S 32M" "-m 0" "-m 17" "-r x" "-t x" "-T x" "-C -S 4k" "-C -c" \
    "--skip-broken-bitmaps" "--bitmaps" "--image-opts -f qcow2" \
    "--target-image-opts"; do
    # shellcheck disable=SC2086 # several words
    both 1 convert $options plain.raw new.raw
done
both 1 convert -c -O qcow2 -o preallocation=metadata plain.qcow2 new.qcow2
both 1 convert --bitmaps -O qcow2 -o compat=0.10 thin.qcow2 new.qcow2
both 1 convert plain.qcow2 plain.qcow2
cmp peer/plain.qcow2 own/plain.qcow2 || fail "a refused conversion onto itself changes the image"

# dd.
for operands in "" "bs=1M" "bs=64k count=20" "bs=1000 skip=3 count=2000" "bs=64k skip=1 count=2" \
    "bs=1M skip=100" "count=0"; do
    for format in raw qcow2; do
        rm -f {peer,own}/out
        # shellcheck disable=SC2086 # several words
        both 0 dd -O $format $operands if=thin.qcow2 of=out
        if [[ $format == qcow2 ]]; then
            same out
        else
            cmp peer/out own/out || fail "dd $operands"
        fi
    done
done
for operands in "if=thin.qcow2" "of=out" "bs=0 if=thin.qcow2 of=out" "bs=x if=thin.qcow2 of=out" \
    "nonsense=1 if=thin.qcow2 of=out" "count=-1 if=thin.qcow2 of=out" "if=missing of=out"; do
    # shellcheck disable=SC2086 # several words
    both 1 dd $operands
done

# digest: names that fail do not hide the others.
run_status=0
"$img" digest missing peer/plain.raw > out 2> err || run_status=$?
[[ $run_status == 1 ]] || fail "status $run_status"
out_has "$(sha256sum < peer/plain.raw | cut -c 1-64)  peer/plain.raw"
err_has missing
