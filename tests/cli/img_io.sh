#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# io: what qemu-io prints for the same lines, but for times, reasons of failures and help texts; the
# same exit status; the same content afterwards.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

# What has to be equal.
shape()
{
    sed -E -e 's/; [0-9:.]+( sec)? \(.*/; TIME/' -e 's/,[0-9]+:[0-9:.]+,.*/,TIME/' \
        -e 's/(failed): .*/\1/' -e 's/ -- .*//' -e 's/qemu-io> ?//g' "$1" |
        grep -v -e '^qemu-io: ' -e '^qcow2-img: ' || true
}

# lines STATUS ARGUMENT...: each program in its folder.
lines()
{
    local want=$1 got=0
    shift
    (cd peer && qemu-io "$@") > out 2> /dev/null < input || got=$?
    [[ $got == "$want" ]] || fail "status $got, not $want: qemu-io $*"
    shape out > expected
    got=0
    (cd own && "$img" io "$@") > out 2> err < input || got=$?
    [[ $got == "$want" ]] || fail "status $got, not $want: qcow2-img io $*"
    ! grep -qE 'Sanitizer|runtime error' err || fail "sanitizer: $*"
    shape out > got
    cmp -s expected got || fail "$* prints: $(diff expected got)"
}

# each STATUS IMAGE LINE...: one run for each line.
each()
{
    local want=$1 image=$2 line
    shift 2
    for line in "$@"; do
        lines "$want" -c "$line" "$image"
    done
}

(
    cd peer || exit
    qemu-img create -q -f qcow2 disk.qcow2 1M
    qemu-img create -q -f qcow2 -o extended_l2=on wide.qcow2 2M
    truncate -s 1M raw
    printf 'abc' > pattern
    : > empty
)
: > input
share true

each 0 disk.qcow2 "write -P 0x11 0 64k" "write -C -P 0x11 0 64k" "write -q 1000 24" \
    "read -P 0x11 0 1000" "read -P 17 -s 512 -l 100 0 64k" "read -v 65530 20" "read 1 3" \
    "read -p -C 0 1k" "read 0 0" "write 0 0" "write 1.5k 1k" "write -c 64k 64k" "write -z 128k 64k" \
    "write -z -u 128k 64k" "write -c -z 128k 64k" "write -f 0 512" "write -s pattern 0 8" \
    "read -v 0 16" "writev -P 1 0 512 1k" "readv -v 0 16 16" "readv -P 1 0 512 1k" \
    "aio_write -P 1 0 512 1k" "aio_read -P 2 0 512 1k" "aio_write -z 0 64k" "aio_flush" "flush" \
    "length" "alloc 0" "alloc 0 1M" "alloc 0 1b" "alloc 4M" "map" "info" "discard 0 64k" \
    "discard -C 0 64k" "discard -q 64k 64k" "sleep 1" "quit" "write -b 0 64k" "read -b 0 64k" \
    "read -b -v 512 512" "truncate 2M" "length" "write -P 7 1M 1M" "truncate 1M" \
    "truncate -m metadata 3M" "map" "write -z -n 0 64k" "read -l 5 -P 0 0 512" "r 0 512" "w 0 512" ""
each 1 disk.qcow2 "read -P 0x12 0 64k" "read -q -P 0x12 -s 512 -l 512 0 64k" "read 0 20M" "read 0" \
    "read x 512" "read -1 512" "read 512 -1" "read -P 300 0 512" "read -P x 0 512" \
    "read -P 1 -s x 0 512" "read -s 3 0 512" "read -P 1 -s 600 0 512" "read -P 1 -s 0 -l 513 0 512" \
    "nonsense 1" "write -c 64k 32k" "write -u 128k 64k" "write -z -P 1 128k 64k" "write -n 0 512" \
    "write -z -n 0 512" "discard 0 40M" "write -s missing 0 512" "write -s empty 0 512" \
    "read 0 512 4" "read 0 4G" "sleep" "sleep x" "length 1" "reopen -r -w" "truncate x" "alloc x" \
    "help nonsense" "open disk.qcow2" "write -b -z 0 512" "write -f -c 0 512" \
    "truncate -m nonsense 1M" "write -c 100 64k" "read 9E 1" "read -b 10 512" "read -b 0 10"
lines 0 -c "close" -c "open disk.qcow2" -c "length" disk.qcow2
lines 1 -c "close" -c "length" disk.qcow2
lines 1 -r -c "write 0 512" -c "read 0 512" disk.qcow2
lines 1 -c "reopen -r" -c "write 0 512" disk.qcow2
lines 0 -c "reopen -r" -c "reopen -w" -c "write 0 512" disk.qcow2
lines 1 -c "read -P 99 0 512" -c "length" disk.qcow2 # a failure does not end it
lines 0 -c "quit" -c "nonsense" disk.qcow2
lines 1 -c "length" missing
each 0 wide.qcow2 "write -P 5 0 4k" "map" "alloc 0 64k" "write -z 2k 2k" "info"
each 0 raw "write -P 3 1000 3000" "map" "info" "read -P 3 1000 3000" "write -z 0 64k" "discard 0 4k"
each 1 raw "write -c 0 64k" "read -b 0 512"
printf '%s\n' "length" "" "  read  0   512  " "read -P 9 0 512" "write -P 8 0 512" > input
lines 1 disk.qcow2
: > input
qemu-img compare -q peer/disk.qcow2 own/disk.qcow2 || fail "another content"
same wide.qcow2
cmp peer/raw own/raw || fail "another raw file"

# Many random requests give the same disk, whatever the image is like.
for options in "cluster_size=64k" "cluster_size=512" "extended_l2=on" "compat=0.10" \
    "compression_type=zstd,cluster_size=2M"; do
    (cd peer && qemu-img create -q -f qcow2 -o "$options" random.qcow2 6M)
    share true
    RANDOM=1
    words=(-c "write -c -P 3 4M 2M") # qemu-io compresses only what was never written
    for _ in {1..60}; do
        offset=$(((RANDOM * 32768 + RANDOM) % (7 << 19)))
        length=$((RANDOM * 8 + 1))
        case $((RANDOM % 5)) in
        0 | 1) words+=(-c "write -P $((RANDOM % 256)) $offset $length") ;;
        2) words+=(-c "write -z -u $offset $length") ;;
        3) words+=(-c "writev -P $((RANDOM % 256)) $offset 1000 $length") ;;
        4) words+=(-c "discard $offset $length") ;;
        esac
    done
    (cd own && "$img" io "${words[@]}" random.qcow2) > out 2> err || fail "random requests fail"
    (cd peer && qemu-io "${words[@]}" random.qcow2) > out 2> err || fail "qemu-io fails"
    same random.qcow2
done
