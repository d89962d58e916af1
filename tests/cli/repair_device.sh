#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# An image on a block device, which cannot grow: it is repaired inside what it has, and the journal
# is never beside it. Needs to be allowed to make loop devices.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
need losetup
need jq
make_images
image broken.qcow2 << 'END'
version 3
cluster-size 64K
size 1G
write 0 1M 0x11
leak 3
refcount[5] = 0
l2[1].offset ^= 0x8000000000
END
sound=$("$img" digest clean.qcow2 | cut -d' ' -f1)
before=$(digest broken.qcow2)
device=$(losetup --find --show broken.qcow2 2> err) || {
    echo "skipped: no loop device can be made"
    exit 77
}
trap 'losetup --detach "$device"; rm -rf "$scratch"' EXIT

mend 1 "$device"
err_has "--journal=FILE"
[[ ! -e $device.qcow2kit-undo ]] || fail "there is a journal in /dev"
mend 2 --dry-run "$device"
out_has "mend-l2-entry, certain"
mend 0 --journal=undo --output=json "$device"
jq_is '."fixed-size", .repaired, .journal' $'true\ntrue\nundo'
run 0 "$device"
[[ $("$img" digest "$device" | cut -d' ' -f1) == "$sound" ]] ||
    fail "the disk is not what it was"
mend 0 --journal=more "$device"
[[ ! -e more ]] || fail "a journal of nothing"
mend 0 --undo=undo "$device"
sync
same broken.qcow2 "$before"
