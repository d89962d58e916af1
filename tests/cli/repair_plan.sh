#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# A plan that a dry run made is carried out on the image that it was made for, and on no other; and
# whatever is in the file, nothing but that plan is carried out.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
need jq
image broken.qcow2 << 'END'
version 3
cluster-size 64K
size 1G
write 0 1M 0x11
leak 3
l2[1].offset ^= 0x8000000000
END
before=$(digest broken.qcow2)

mend 2 --dry-run --guess --output=json broken.qcow2
cp out plan.json
[[ $(jq -r .level plan.json) == guess ]]
same broken.qcow2 "$before"
cp broken.qcow2 other.qcow2

# Made again, it is the same.
mend 2 --dry-run --guess --output=json broken.qcow2
jq 'del(.now)' out > again.json
jq 'del(.now)' plan.json | cmp - again.json || fail "two dry runs disagree"

# ---- files that are no plan of this image ----

refused()
{
    mend 1 --apply-plan=wrong.json broken.qcow2
    err_has "wrong.json"
    err_has "$1"
    same broken.qcow2 "$before"
    lists broken.qcow2
}

: > wrong.json
refused "is no JSON"
echo '[]' > wrong.json
refused "is no plan"
head -c 1000 plan.json > wrong.json
refused "is no JSON"
{ cat plan.json && echo '{}'; } > wrong.json
refused "is no JSON"
head -c 100000 /dev/zero | tr '\0' '[' > wrong.json
refused "is no JSON"
truncate -s 1G wrong.json
refused "more than a plan has"
while IFS='#' read -r filter message; do
    jq "$filter" plan.json > wrong.json
    refused "$message"
done << 'END'
del(.level)#'level'
.level = "everything"#'level'
.level = 3#'level'
del(.digest)#'digest'
.digest = "abc"#'digest'
.digest = "\u0000"#'digest'
.now = "today"#'now'
.actions = {}#'actions'
.level = "leaks"#not the plan
.digest |= (.[1:] + "0")#not the plan
.actions = []#not the plan
.actions |= .[1:]#not the plan
.actions |= . + [.[0]]#not the plan
.actions[0].id = "format-disk"#not the plan
.actions[0] = null#not the plan
.actions[0].applied |= not#not the plan
.actions[0].evidence = "because"#not the plan
.actions[0]["host-offset"] += 1#not the plan
END

# ---- another image ----

mend 0 -q --guess other.qcow2
mend 1 --apply-plan=plan.json other.qcow2
err_has "not the plan for this image as it is now"
out_is_empty
cp broken.qcow2 other.qcow2
printf 'A' | dd of=other.qcow2 bs=1 seek=$((0x20010)) conv=notrunc status=none # a refcount
mend 1 --apply-plan=plan.json other.qcow2
err_has "not the plan"

# ---- and this one ----

mend 0 --apply-plan=plan.json --journal=undo broken.qcow2
cmp -s broken.qcow2 other.qcow2 && fail "nothing was written"
after=$(digest broken.qcow2)
mend 0 --undo=undo broken.qcow2
same broken.qcow2 "$before"
mend 0 -q --guess broken.qcow2
same broken.qcow2 "$after"
