#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Several images, folders, and processes side by side.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
need jq
make_images

# The worst status wins: 1, 2, 3, then 63, then 0.
run 0 clean.qcow2 clean.qcow2
out_has "2 images: 2 without errors"
run 3 clean.qcow2 leaky.qcow2
run 2 leaky.qcow2 damaged.qcow2 clean.qcow2
out_has "3 images: 1 without errors, 1 damaged, 1 with leaks only"
run 1 damaged.qcow2 missing.qcow2
err_has "missing.qcow2"
run 63 clean.qcow2 other.txt
run 2 other.txt damaged.qcow2

# One object a line, in the order of the names, however many processes there are.
for jobs in 1 4; do
    run 1 --output=json --jobs=$jobs damaged.qcow2 clean.qcow2 missing.qcow2 leaky.qcow2 other.txt
    [[ $(wc -l < out) == 5 ]] || fail "not 5 lines"
    [[ $(jq -r .filename out | xargs) == \
        "damaged.qcow2 clean.qcow2 missing.qcow2 leaky.qcow2 other.txt" ]] || fail "the order"
    [[ $(jq -r '."exit-status"' out | xargs) == "2 0 1 3 63" ]] || fail "the statuses"
    err_has "5 images: 1 without errors"
done

# A folder stands for the images below it; what is none is left out, and links are not followed.
mkdir -p folder/below/deep empty
cp clean.qcow2 folder/b.img
cp damaged.qcow2 folder/below/deep/a.qcow2
cp other.txt folder/other.txt
ln -s ../clean.qcow2 folder/link.qcow2
: > folder/nothing
run 2 --output=json folder
[[ $(jq -r .filename out | xargs) == "folder/b.img folder/below/deep/a.qcow2" ]] || fail "the walk"
run 2 --output=json --jobs=3 folder/ clean.qcow2
[[ $(wc -l < out) == 3 ]] || fail "not 3 lines"
run 1 empty
err_has "no qcow2 image"

# More images than reports may wait for each other.
mkdir many
for i in $(seq 150); do
    ln clean.qcow2 "many/$i.qcow2"
done
run 0 --jobs=4 many
out_has "150 images: 150 without errors"
run 0 --quiet --jobs=4 many
out_is_empty
err_is_empty

# A check that is ended from outside is one image's misfortune. Only processes of images use preadv
# here, so that the signal meets those.
if command -v strace > /dev/null && strace -o /dev/null true 2> /dev/null; then
    status=0
    strace -f -o /dev/null -e trace=preadv -e inject=preadv:signal=KILL:when=1 \
        "$check" --output=json clean.qcow2 damaged.qcow2 > out 2> err || status=$?
    [[ $status == 1 ]] || fail "status $status after a signal"
    err_has "clean.qcow2: the check was ended by signal 9"
    err_has "2 images: 2 not checked completely"
    [[ $(jq -r .verdict out | xargs) == "incomplete incomplete" ]] || fail "the objects"
fi
