#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# rebase, commit and compare: what happens to images that stand on others.

# shellcheck source=tests/cli/img_lib.sh
source "$(dirname "$0")/img_lib.sh"

# Four images, one on the other, of different sizes; and two to put them on.
make_chain()
{
    rm -rf peer
    mkdir peer
    (
        cd peer || exit
        qemu-img create -q -f qcow2 "$@" base.qcow2 3M
        qemu-img create -q -f qcow2 "$@" -b base.qcow2 -F qcow2 low.qcow2 2M
        qemu-img create -q -f qcow2 "$@" -b low.qcow2 -F qcow2 top.qcow2 5M
        qemu-img create -q -f qcow2 "$@" other.qcow2 4M
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 twin.qcow2
        qemu-io -c "write -P 1 0 3M" base.qcow2
        qemu-io -c "write -P 2 100k 100k" -c "write -z 512k 200k" -c "write -P 3 1M 5k" low.qcow2
        qemu-io -c "write -P 4 150k 1M" -c "write -z 1500k 100k" -c "write -P 5 4M 512" top.qcow2
        qemu-io -c "write -P 1 0 1M" -c "write -P 6 2M 1M" -c "write -z 1200k 1k" other.qcow2
        qemu-img convert -O raw base.qcow2 base.raw
    ) > out 2> err || fail "cannot make images"
    share true
}

for options in "cluster_size=64k" "cluster_size=512" "extended_l2=on" "compat=0.10" \
    "cluster_size=2M"; do
    # rebase: what the image shows stays.
    make_chain -o "$options"
    for below in "-b other.qcow2 -F qcow2" "-b base.raw -F raw" "-b twin.qcow2 -F qcow2" "-b ''"; do
        # shellcheck disable=SC2086 # several words
        eval both 0 rebase $below top.qcow2
        same top.qcow2
        same_info top.qcow2
    done
    make_chain -o "$options"
    qemu-img convert -O raw peer/top.qcow2 shown.raw
    (cd own && "$img" rebase -b other.qcow2 -F qcow2 top.qcow2) || fail "rebase"
    qemu-img compare -q shown.raw own/top.qcow2 || fail "a rebase changes the content"
    both 0 rebase -u -b base.qcow2 -F qcow2 low.qcow2
    both 0 rebase -u -b missing.qcow2 -F qcow2 low.qcow2
    same_info low.qcow2
    both 0 rebase -u -b "" low.qcow2
    same low.qcow2
    same_info low.qcow2

    # commit: the base shows what the image showed, which is empty then, or left. With version 2,
    # qemu-img cannot make the base larger where that has a backing file itself.
    if [[ $options == compat=0.10 ]]; then
        make_chain -o "$options"
        qemu-img convert -O raw peer/top.qcow2 shown.raw
        [[ $(in_folder own "$img" commit -q top.qcow2) == 0 ]] || fail "commit"
        qemu-img compare -q shown.raw own/low.qcow2 || fail "a base of version 2 differs"
        both 0 commit -d low.qcow2
        continue
    fi
    make_chain -o "$options"
    both 0 commit top.qcow2
    same top.qcow2 low.qcow2 base.qcow2
    [[ $(qemu-io -c map own/top.qcow2) == "5 MiB"*"not allocated"* ]] ||
        fail "the image is not empty"
    make_chain -o "$options"
    cp own/top.qcow2 before
    both 0 commit -d top.qcow2
    same top.qcow2 low.qcow2
    cmp before own/top.qcow2 || fail "-d changes the image"
    make_chain -o "$options"
    cp own/top.qcow2 before
    both 0 commit -q -b base.qcow2 top.qcow2
    same top.qcow2 base.qcow2
    cmp before own/top.qcow2 || fail "-b changes the image"
    make_chain -o "$options"
    both 0 commit -b ./base.qcow2 -r 100M low.qcow2
    same low.qcow2 base.qcow2
done
make_chain
for folder in peer own; do
    (cd $folder && qemu-img rebase -u -b base.raw -F raw low.qcow2)
done
both 0 commit low.qcow2
same low.qcow2
cmp peer/base.raw own/base.raw || fail "another raw base"
(cd peer && qemu-img create -q -f qcow2 -b base.raw -F raw large.qcow2 9M &&
    qemu-io -c "write -P 7 8M 64k" large.qcow2 > out)
share true
both 0 commit large.qcow2
cmp peer/base.raw own/base.raw || fail "a raw base that grows"

both 1 rebase top.qcow2
both 1 rebase -b other.qcow2 top.qcow2
both 1 rebase -b missing.qcow2 -F qcow2 top.qcow2
both 1 rebase -b other.qcow2 -F nonsense top.qcow2
both 1 rebase -b other.qcow2 -F qcow2 missing.qcow2
both 1 rebase -b other.qcow2 -F qcow2
both 1 commit base.qcow2
both 1 commit -b missing.qcow2 top.qcow2
both 1 commit -b top.qcow2 top.qcow2
both 1 commit missing.qcow2
both 1 commit -r x top.qcow2
same top.qcow2 low.qcow2 base.qcow2

# compare: the first difference, and what counts as one.
make_chain
(
    cd peer || exit
    qemu-img create -q -f qcow2 zero.qcow2 3M
    qemu-img create -q -f qcow2 written.qcow2 3M
    qemu-io -c "write -z 0 3M" zero.qcow2
    qemu-io -c "write -P 0 1M 64k" written.qcow2
    truncate -s 3M hole.raw
    qemu-img convert -O qcow2 base.raw copy.qcow2
    qemu-img convert -c -O qcow2 base.raw packed.qcow2
    cp copy.qcow2 flipped.qcow2
    qemu-io -c "write -P 9 2000001 1" flipped.qcow2
    qemu-img create -q -f qcow2 -b copy.qcow2 -F qcow2 longer.qcow2 4M
) > out 2> err || fail "cannot make images"
for options in "" "-s" "-q" "-q -s"; do
    # shellcheck disable=SC2086 # several words
    {
        look 0 compare $options base.qcow2 base.qcow2
        look 0 compare $options base.qcow2 copy.qcow2
        look 1 compare $options base.qcow2 low.qcow2
        look 1 compare $options copy.qcow2 flipped.qcow2
        look 1 compare $options longer.qcow2 top.qcow2
        look 1 compare $options -f raw base.qcow2 base.raw
        look 2 compare $options base.qcow2 missing.qcow2
        look 2 compare $options missing.qcow2 base.qcow2
    }
done
for options in "" "-q"; do
    # shellcheck disable=SC2086 # several words
    {
        look 0 compare $options zero.qcow2 written.qcow2
        look 0 compare $options zero.qcow2 hole.raw
        look 0 compare $options -F raw copy.qcow2 base.raw
        look 0 compare $options copy.qcow2 packed.qcow2
        look 0 compare $options copy.qcow2 longer.qcow2
    }
done
for second in written.qcow2 hole.raw longer.qcow2; do
    look 1 compare -s zero.qcow2 $second
    look 1 compare -s $second zero.qcow2
done
look 1 compare base.qcow2
look 1 compare --nonsense base.qcow2 base.qcow2

share true
# bench: requests are made, and written where that is asked for.
for options in "-c 100" "-c 200 -w --pattern=3 -s 4k -S 8k -o 1k -d 4 --flush-interval=10" \
    "-c 100 -w -s 64k --flush-interval=64 --no-drain" "-c 10 -s 0" "-c 7 -n -i threads -t none"; do
    # shellcheck disable=SC2086 # several words
    in_folder own "$img" bench $options copy.qcow2 > status
    [[ $(cat status) == 0 ]] || fail "bench $options"
    grep -v "^Run completed in [0-9.]* seconds" out > own.out || true
    # shellcheck disable=SC2086 # several words
    in_folder peer qemu-img bench $options copy.qcow2 > status
    grep -v "^Run completed in" out > peer.out || true
    cmp own.out peer.out || fail "bench $options: $(diff peer.out own.out)"
done
for options in "-c 10 --flush-interval=10" "-w --flush-interval=1" "-d 0" "-c x" "--pattern=300 -w" \
    "-o 20M"; do
    # shellcheck disable=SC2086 # several words
    [[ $(in_folder own "$img" bench $options copy.qcow2) == 1 ]] || fail "bench $options"
    [[ -s err ]] || fail "bench $options says nothing"
done
