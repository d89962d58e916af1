#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Salvage from outside: what is healthy as the peer copies it, what is damaged as far as it goes,
# and killed at any time it goes on.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"

# as_raw IMAGE RAW [SNAPSHOT]: what the peer reads.
as_raw() { qemu-img convert ${3:+-l "snapshot.id=$3"} -O raw "$1" "$2"; }

image healthy.qcow2 << 'END'
cluster-size 64K
size 16M
write 0 2M random
snapshot "one two"
write 1M 1M random 2
write-compressed 4M 512K text
zero 256K 64K
snapshot "b/c"
write 8M 300K random 3
END

# ---- healthy ----

before=$(digest healthy.qcow2)
mend 0 --salvage=out.raw healthy.qcow2
out_has "everything could be read"
lists out.raw out.raw.1.raw out.raw.2.raw out.raw.map.json
mend 0 --salvage=out.qcow2 --format=qcow2 --output=json healthy.qcow2
jq_is '.bytes.certain' $((3 * (16 << 20)))
jq_is '.bytes.lost' 0
same healthy.qcow2 "$before"
qemu-img check -q out.qcow2 > err 2>&1 || fail "the peer finds fault with the copy"
[[ $(qemu-img snapshot -l healthy.qcow2) == "$(qemu-img snapshot -l out.qcow2)" ]] ||
    fail "the snapshots are not the same"
for id in 1 2 ''; do
    as_raw healthy.qcow2 want.raw $id
    as_raw out.qcow2 got.raw $id
    cmp -s want.raw got.raw || fail "snapshot '$id' of the image differs"
    cmp -s want.raw "out.raw${id:+.$id.raw}" || fail "snapshot '$id' of the raw files differs"
done

# Every byte of every map once.
jq -s '[.[] | select(.state) | .length] | add' out.raw.map.json > out
jq_is . $((3 * (16 << 20)))

# ---- nothing is written over unasked ----

mend 1 --salvage=out.raw healthy.qcow2
err_has "exists already"
mend 1 --salvage=healthy.qcow2 --force healthy.qcow2
err_has "belongs to the image"
! grep -q -- --force err || fail "it says that --force would do it"
same healthy.qcow2 "$before"
mkdir new
for name in new/out new/../new/out; do
    mend 1 --salvage=new/out --map="$name" healthy.qcow2
    err_has "cannot be the new image and its map"
    rmdir new || fail "something is left"
    mkdir new
done
mend 0 -q --salvage=out.raw --force healthy.qcow2
rm out.*

# ---- damaged: the peer stops or leaves out, this says what is lost ----

image cut.qcow2 << 'END'
cluster-size 64K
size 4M
write 0 1M random
END
as_raw cut.qcow2 want.raw
truncate -s -256K cut.qcow2
mend 2 --salvage=out.raw cut.qcow2
cmp -s -n $((12 * 65536)) want.raw out.raw || fail "what is left differs"
jq -s '[.[] | select(.state == "lost") | .length] | add' out.raw.map.json > out
jq_is . $((4 * 65536))
rm out.*

# ---- killed ----

image large.qcow2 << 'END'
cluster-size 64K
size 256M
write 0 48M random
snapshot s
write 16M 32M random 2
write 100M 32M random 3
END
as_raw large.qcow2 want.raw
for format in raw qcow2; do
    for delay in 0.05 0.1 0.2 0.4 0.8; do
        for signal in KILL TERM; do
            "$repair" -q --salvage="out.$format" --format="$format" large.qcow2 > out 2> err &
            sleep "$delay"
            kill -"$signal" $! 2> err || true
            wait $! 2> err || true
            if [[ -e out.$format && ! -e out.$format.qcow2kit-salvage ]]; then
                rm -f "out.$format"* # it was done
            fi
        done
    done
    if [[ ! -e out.$format ]]; then
        "$repair" -q --salvage="out.$format" --format="$format" large.qcow2 > out 2> err &
        sleep 0.05
        kill -KILL $! 2> err || true
        wait $! 2> err || true
    fi
    if [[ -e out.$format.qcow2kit-salvage || ! -e out.$format ]]; then
        mend 0 --salvage="out.$format" --format="$format" large.qcow2
    fi
    [[ ! -e out.$format.qcow2kit-salvage ]] || fail "the state file is still there"
    qemu-img convert -O raw "out.$format" got.raw
    cmp -s want.raw got.raw || fail "what an interrupted salvage made differs"
    if [[ $format == qcow2 ]]; then
        qemu-img check -q out.qcow2 > err 2>&1 || fail "the peer finds fault with the copy"
    fi
    rm -f out.*
done
