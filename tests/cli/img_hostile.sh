#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Every command on every image that a recipe describes, however damaged: it ends in time and within
# its memory, with a status that it documents and a sentence where it fails; what only reads does
# not write; and an image that cannot be opened for writing stays as it is, byte for byte.
#
# That takes many minutes; the default run takes a sample. QCOW2KIT_HOSTILE=N tests every Nth image,
# 1 all of them; recipes, or folders of them, behind the usual arguments are the ones to test.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
img=$3
shift 3
touch out err
sources=$(cd "$here/../.." && pwd)
seconds=20
gigabyte=$((1024 * 1024)) # in the units of ulimit
# Sanitizers of addresses and threads reserve more than all memory there is.
if grep -qE '__[at]san_init' "$img"; then
    gigabyte=unlimited
fi

# make_case RECIPE: image.qcow2 and the files that it needs.
make_case()
{
    local needed name i
    if [[ $1 == */recipe ]]; then
        for needed in "${1%recipe}"*.recipe; do
            [[ -f $needed ]] || continue
            name=$(basename "$needed" .recipe)
            if [[ $name != *%* ]]; then
                "$recipe" "$needed" "$name"
                continue
            fi
            for ((i = 1; i <= 201; i++)); do # one more than a chain may have
                sed "s/%+/$((i + 1))/g; s/%/$i/g" "$needed" > numbered
                "$recipe" numbered "${name/\%/$i}"
            done
        done
    fi
    "$recipe" "$1" image.qcow2
}

# What the files are, holes as holes: some are of many terabytes.
state()
{
    tar --sparse --sort=name --mtime=@0 -cf - . | sha256sum
}

# attempt HIGHEST ARGUMENT...: leaves the status in `got`.
attempt()
{
    local highest=$1 text
    shift
    got=0
    (
        ulimit -v "$gigabyte"
        exec timeout -k 1 "$seconds" "$img" "$@"
    ) > ../out 2> ../err < /dev/null || got=$?
    [[ $got -le $highest || $got == 63 && $1 == check ]] || complain "status $got" "$@"
    text=$(< ../err)
    [[ ! $text =~ Sanitizer|runtime\ error ]] || complain "sanitizer" "$@"
    if [[ $got != 0 && $1 != check && ! $text =~ ^qcow2-img:.*(image\.qcow2|target|the\ new\ image) ]]; then
        # io says so as qemu-io does, and compare of its answer, on the standard output.
        grep -qE '^(.* failed: |Content mismatch at )' ../out ||
            complain "no sentence about the file" "$@"
    fi
}

complain()
{
    cd ..
    fail "$1: $case: ${*:2}"
}

# The commands that only read.
reads() { attempt "$@"; }

# writes ARGUMENT...: in a copy. Where the image cannot be opened for writing, it is as it was.
writes()
{
    attempt 1 "$@"
    # A pass phrase is not needed for everything: then the corrupt bit may be what is written.
    if [[ $got != 0 && $opens != 0 && $(state) != "$before" &&
        ! $(< ../err) =~ corrupt\ and\ no\ longer\ written ]]; then
        complain "writes into an image that it refuses" "$@"
    fi
    restore
}

restore()
{
    rm -rf ./*
    cp --sparse=always ../kept/* .
}

reading_commands()
{
    local output=../target
    reads 1 info image.qcow2
    reads 1 info --output=json --backing-chain image.qcow2
    reads 1 map --max-length=4G image.qcow2
    reads 1 map --output=json --max-length=64M image.qcow2
    reads 3 check image.qcow2
    reads 3 check --output=json image.qcow2
    reads 1 dd -O qcow2 bs=64k count=64 if=image.qcow2 of="$output"
    rm -f "$output"
    reads 1 measure -O qcow2 image.qcow2
    reads 1 snapshot -l image.qcow2
    reads 1 io -r -c map -c "read 0 64k" -c "read 1M 64k" image.qcow2
    # What goes through all of the disk
    ((large)) && return
    reads 1 convert -O raw image.qcow2 "$output"
    rm -f "$output"
    reads 1 convert -c -O qcow2 --salvage image.qcow2 "$output"
    rm -f "$output"
    reads 4 compare -U image.qcow2 image.qcow2
    reads 1 digest image.qcow2
}

writing_commands()
{
    opens=0
    writes io -c length image.qcow2
    opens=$got
    writes io -c "write -P 1 0 64k" -c "write -z 64k 64k" -c "discard 128k 64k" -c flush image.qcow2
    writes io -c "write -c -P 2 0 64k" image.qcow2
    writes resize --shrink image.qcow2 1M
    writes resize image.qcow2 +1M
    writes snapshot -c new image.qcow2
    writes snapshot -d 1 image.qcow2
    writes snapshot -a 1 image.qcow2
    writes amend -o compat=0.10 image.qcow2
    writes amend -o refcount_bits=32 image.qcow2
    writes commit image.qcow2
    writes rebase -u -b "" image.qcow2
    writes rebase -u -b other.qcow2 -F qcow2 image.qcow2
    writes bitmap --add image.qcow2 new
    writes bitmap --remove image.qcow2 new
}

test_case()
{
    case=$1
    rm -rf work kept target
    mkdir work
    cd work
    make_case "$case"
    cp -r --sparse=always . ../kept
    before=$(state)
    # Whether its disk, or its file, is not for going through.
    large=0
    local size
    size=$("$img" info --output=json image.qcow2 2> /dev/null | jq '."virtual-size"') || size=0
    if [[ ${size:-0} -gt 8589934592 || $(stat -c %s image.qcow2) -gt 8589934592 ]]; then
        large=1
    fi
    reading_commands
    [[ $(state) == "$before" ]] || complain "is written to by what reads"
    writing_commands
    cd ..
}

need jq
recipes=()
for one in "$@"; do
    one=$(cd "$OLDPWD" && realpath "$one")
    [[ -d $one ]] && one=$one/recipe
    recipes+=("$one")
done
if [[ $# == 0 ]]; then
    every=${QCOW2KIT_HOSTILE:-70}
    number=0
    for one in "$sources"/corpus/{healthy,damaged}/*.recipe "$sources"/tests/cases/*/recipe; do
        ((number++ % every)) || recipes+=("$one")
    done
fi
for one in "${recipes[@]}"; do
    test_case "$one"
done
