#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Images that we make, next to those that qemu-img makes with the same options: both refuse the
# same, QEMU finds ours clean, says the same of both and reads the same from both. Then the same for
# measure.
#
# shellcheck disable=SC2317 # in_parallel calls the functions
#
# usage: create.sh QCOW2_CHECK QCOW2_IMG

img=$(realpath "$2")
# shellcheck source=tests/interop/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-img jq

printf abc > "$scratch/password"
truncate -s 3M "$scratch/base"
readonly secret="secret,id=s,file=$scratch/password"
readonly luks=encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10
readonly aes=encrypt.format=aes,encrypt.key-secret=s
readonly backing=backing_file=$scratch/base,backing_fmt=raw

# What qemu-img says of an image that does not differ from one image to the next.
say()
{
    qemu-img info --object "$secret" --output=json --image-opts \
        "driver=qcow2,file.filename=$1${2:+,encrypt.key-secret=s}" |
        jq -S 'del(."actual-size", .filename, ."children", ."dirty-flag")
            | if ."format-specific".data.encrypt then
                ."format-specific".data.encrypt |= del(.uuid, .slots, ."payload-offset",
                    ."master-key-iters") else . end'
}

content()
{
    qemu-img convert --object "$secret" -O raw --image-opts \
        "driver=qcow2,file.filename=$1${2:+,encrypt.key-secret=s}" "$1.raw"
}

# both SIZE OPTIONS: make it twice, look at it twice.
both()
{
    local size=$1 options=$2 name="-o $2 $1" ours=0 theirs=0 encrypted=
    [[ $options != *encrypt* ]] || encrypted=1
    rm -f ours.qcow2 theirs.qcow2 data data.theirs
    qemu-img create -q -f qcow2 --object "$secret" -o "$options" theirs.qcow2 "$size" \
        > /dev/null 2> errors.theirs || theirs=1
    [[ ! -e data ]] || mv data data.theirs
    "$img" create -q -f qcow2 --object "$secret" -o "$options" ours.qcow2 "$size" \
        > /dev/null 2> errors || ours=1
    # QEMU's read as noise: version 2 cannot say that clusters are zero.
    [[ $options != *preallocation=m*compat=v2*encrypt* ]] || theirs=1
    if [[ $ours != "$theirs" ]]; then
        complain "$name: ours $ours, QEMU's $theirs: $(cat errors errors.theirs)"
        return 0
    fi
    if [[ $ours != 0 ]]; then
        [[ -s errors ]] || complain "$name: refused without a word"
        [[ ! -e ours.qcow2 ]] || complain "$name: half an image is left"
        [[ ! -e data ]] || complain "$name: half a data file is left"
        return 0
    fi
    # QEMU fills its data file up to a whole cluster.
    [[ ! -e data ]] || cmp -s -n "$(stat -c %s data)" data data.theirs ||
        complain "$name: the data file differs"
    "$check" ours.qcow2 > report 2>&1 || complain "$name: qcow2-check: $(< report)"
    qemu-img check --object "$secret" --image-opts \
        "driver=qcow2,file.filename=ours.qcow2${encrypted:+,encrypt.key-secret=s}" \
        > report 2>&1 || complain "$name: qemu-img check: $(< report)"
    diff <(say theirs.qcow2 "$encrypted") <(say ours.qcow2 "$encrypted") > report ||
        complain "$name: info differs: $(< report)"
    "$img" info ours.qcow2 > /dev/null 2> report || complain "$name: our info: $(< report)"
    # What is huge takes its time to read.
    [[ $(stat -c %s ours.qcow2) -ge 33554432 || ${#size} -gt 8 || $size == *[PEG] ]] ||
        compare_content
}

compare_content()
{
    content ours.qcow2 "$encrypted"
    if [[ -z $encrypted ]]; then
        content theirs.qcow2
        cmp ours.qcow2.raw theirs.qcow2.raw > report 2>&1 || complain "$name: $(< report)"
    else
        [[ -z $(tr -d '\0' < ours.qcow2.raw | head -c 1) ]] || complain "$name: not all zeros"
    fi
}

matrix()
{
    local cluster bits pre extra size
    for cluster in 512 4k 64k 2M; do
        for bits in 1 2 16 64; do
            for pre in off metadata falloc full; do
                for size in 0 3147264; do
                    [[ $bits == 16 || $pre == metadata ]] || continue
                    echo "$size cluster_size=$cluster,refcount_bits=$bits,preallocation=$pre"
                done
            done
        done
        [[ $cluster != 4k ]] || cluster=16k
        for extra in extended_l2=on compression_type=zstd,lazy_refcounts=on data_file=data \
            data_file=data,data_file_raw=on "$backing" compat=v2 compat=v2,$aes "$luks" \
            extended_l2=on,"$luks" extended_l2=on,"$backing" data_file=data,"$luks" \
            data_file=data,extended_l2=on data_file=data,"$backing"; do
            # Trying pass phrases takes seconds.
            [[ $extra != *luks* || $cluster == 64k ]] || continue
            for pre in off metadata; do
                echo "3147264 cluster_size=$cluster,preallocation=$pre,$extra"
            done
        done
    done
    for extra in plain plain64 essiv; do
        for pre in xts cbc; do
            echo "1M $luks,encrypt.ivgen-alg=$extra,encrypt.cipher-mode=$pre,encrypt.cipher-alg=aes-128"
        done
    done
    for extra in sha1 sha512; do
        echo "1M $luks,encrypt.hash-alg=$extra"
    done
    # The edges of what the format can map.
    for size in 2P 2251799813686272; do
        echo "$size cluster_size=64k"
    done
    for size in 2305843009213693952 2305843009213694464 7E; do
        echo "$size cluster_size=2M"
    done
    for size in 128G 137438953984; do
        echo "$size cluster_size=512"
    done
}

refusals()
{
    local o
    for o in cluster_size=256 cluster_size=4M cluster_size=3000 cluster_size=0 refcount_bits=0 \
        refcount_bits=3 refcount_bits=128 compat=v2,refcount_bits=8 compat=v2,lazy_refcounts=on \
        compat=v2,compression_type=zstd compat=v2,extended_l2=on compat=v2,data_file=data \
        compat=v4 extended_l2=on,cluster_size=8k data_file_raw=on preallocation=some \
        data_file=data,data_file_raw=on,"$backing" preallocation=metadata,"$backing" \
        preallocation=full,"$backing" backing_fmt=raw encrypt.format=aes encrypt.format=luks \
        encrypt.format=rot13 "$luks,encrypt.cipher-alg=des" "$luks,encrypt.hash-alg=crc32" \
        "$luks,encrypt.cipher-mode=ofb" "$luks,encrypt.ivgen-alg=none" \
        compression_type=lzma; do
        echo "1M $o"
    done
}

# Every third of them by default, all with ALL=1 in the environment.
mapfile -t cases < <(matrix | awk -v all="${ALL:-}" 'all || NR % 3 == 1'; refusals)
printf '%s\n' "${cases[@]}" | in_parallel both

# ---- measure ----

measured()
{
    local size=$1 options=$2 ours theirs
    theirs=$(qemu-img measure --object "$secret" --output=json --size "$size" -O qcow2 \
        ${options:+-o "$options"} 2> errors.theirs | jq -c '[.required, ."fully-allocated"]') || theirs=refused
    ours=$("$img" measure --object "$secret" --output=json --size "$size" -O qcow2 \
        ${options:+-o "$options"} 2> errors | jq -c '[.required, ."fully-allocated"]') || ours=refused
    [[ $ours == "$theirs" ]] || complain "measure $size $options: ours $ours, QEMU's $theirs: $(cat errors.theirs)"
}

sizes()
{
    local cluster bits size
    for size in 0 1000 3M 1G 1T; do
        for cluster in 512 4k 64k 2M; do
            for bits in 1 16 64; do
                echo "$size cluster_size=$cluster,refcount_bits=$bits"
            done
        done
        for cluster in 16k 64k 2M; do
            echo "$size cluster_size=$cluster,extended_l2=on"
            echo "$size cluster_size=$cluster,preallocation=full"
            echo "$size cluster_size=$cluster,preallocation=metadata"
        done
    done
    # For these QEMU measures how fast it hashes, which takes seconds.
    echo "3M cluster_size=16k,$luks"
    echo "1T cluster_size=2M,$luks,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc"
}

rm -rf -- [0-9]*
mapfile -t cases < <(sizes)
printf '%s\n' "${cases[@]}" | in_parallel measured
finish
