#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What qcow2-repair does from outside: dry runs write nothing, repairs keep a journal, undoing is
# byte for byte, a second run finds nothing to do.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
need jq
make_images
sound=$("$img" digest clean.qcow2 | cut -d' ' -f1)
[[ -n $sound ]]

# ---- a sound image ----

before=$(digest clean.qcow2)
for option in --dry-run --leaks --guess --discard --deep; do
    mend 0 "$option" clean.qcow2
    out_has "clean.qcow2: no errors found"
    err_is_empty
done
mend 0 -q clean.qcow2
out_is_empty
err_is_empty
same clean.qcow2 "$before"
lists clean.qcow2

# ---- leaks ----

before=$(digest leaky.qcow2)
mend 3 --dry-run leaky.qcow2
out_has "leaky.qcow2: sound, but wastes space: 3 leaks"
out_has "free-leaks, certain"
out_has "every byte that can be read today reads the same"
out_has "Nothing was written: this was a dry run."
same leaky.qcow2 "$before"
lists leaky.qcow2

mend 0 leaky.qcow2
out_has "Written, and checked again:"
out_has "leaky.qcow2: no errors found"
out_has "qcow2-repair --undo leaky.qcow2.qcow2kit-undo"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
[[ $(stat -c %a leaky.qcow2.qcow2kit-undo) == 600 ]] || fail "others may read the journal"
run 0 leaky.qcow2
after=$(digest leaky.qcow2)

mend 0 leaky.qcow2
out_lacks "To be done"
same leaky.qcow2 "$after"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo

mend 0 --undo leaky.qcow2.qcow2kit-undo
out_has "leaky.qcow2: is again what it was before the repair of 20"
same leaky.qcow2 "$before"
mend 0 --undo leaky.qcow2.qcow2kit-undo
same leaky.qcow2 "$before"

# The name of a journal is never taken twice.
mend 0 -q leaky.qcow2
out_is_empty
same leaky.qcow2 "$after"
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo leaky.qcow2.qcow2kit-undo.1
mend 0 --output=json --undo leaky.qcow2.qcow2kit-undo.1
jq_is .undone true
jq_is .filename leaky.qcow2
same leaky.qcow2 "$before"

# One that was undone says so of no other image, and undoes the same repair once more.
mend 0 -q leaky.qcow2
mend 0 --undo leaky.qcow2.qcow2kit-undo
same leaky.qcow2 "$before"
cp clean.qcow2 other.qcow2
mend 1 --undo leaky.qcow2.qcow2kit-undo other.qcow2
err_has "is another one"
out_is_empty
cmp clean.qcow2 other.qcow2 || fail "another image was written to"
rm leaky.qcow2.*

mend 0 --leaks --journal=elsewhere leaky.qcow2
out_has "qcow2-repair --undo elsewhere leaky.qcow2"
same leaky.qcow2 "$after"
lists leaky.qcow2
mend 1 --undo elsewhere
same leaky.qcow2 "$after"
mend 0 --undo elsewhere leaky.qcow2
same leaky.qcow2 "$before"
mend 1 --journal=elsewhere leaky.qcow2
err_has "elsewhere"
same leaky.qcow2 "$before"

# By another name, the journal is beside the image itself.
mkdir links
ln -s ../leaky.qcow2 links/alias.qcow2
mend 0 -q links/alias.qcow2
lists leaky.qcow2 leaky.qcow2.qcow2kit-undo
mend 0 -q --undo leaky.qcow2.qcow2kit-undo
same leaky.qcow2 "$before"
rm leaky.qcow2.*

# What is freed gives its space back only if that is asked for, and comes back as it was.
occupied=$(stat -c %b leaky.qcow2)
mend 0 -q leaky.qcow2
mend 0 -q --undo leaky.qcow2.qcow2kit-undo
rm leaky.qcow2.*
mend 0 --discard leaky.qcow2
run 0 leaky.qcow2
[[ $(stat -c %b leaky.qcow2) -le $occupied ]] || fail "--discard takes space"
mend 0 -q --undo leaky.qcow2.qcow2kit-undo
same leaky.qcow2 "$before"
rm leaky.qcow2.*

# ---- JSON ----

mend 3 --dry-run --output=json leaky.qcow2
jq_is '.["dry-run"], .needed, .repaired' $'true\ntrue\nfalse'
jq_is '.leaks, ."exit-status", .verdict' $'3\n3\nleaks'
jq_is '.actions[0].id, .actions[0].confidence, .actions[0].applied' $'free-leaks\ncertain\ntrue'
jq_is '.actions[0].answers[0].id, .actions[0].answers[0].count' $'cluster-leaked\n3'
jq_is '.before.leaks, .after.leaks, .after.verdict' $'3\nnull\nclean'
jq_is '.digest | length' 64
mend 0 --output=json leaky.qcow2
jq_is '.repaired, .journal, ."leaks-fixed", .leaks, .verdict' \
    $'true\nleaky.qcow2.qcow2kit-undo\n3\nnull\nclean'
mend 0 -q --undo leaky.qcow2.qcow2kit-undo
rm leaky.qcow2.*

# ---- damage ----

before=$(digest damaged.qcow2)
mend 2 --dry-run --output=json damaged.qcow2
jq_is '.corruptions >= 1' true
same damaged.qcow2 "$before"
image past.qcow2 << 'END'
version 3
cluster-size 64K
size 1G
write 0 1M 0x11
l2[1].offset ^= 0x8000000000
END
"$repair" --output=json past.qcow2 > out 2> err || true
jq_is '[.actions[] | select(.applied and .confidence != "certain")] | length' 0
"$repair" --output=json --guess past.qcow2 > out 2> err || true
run 0 past.qcow2
[[ $("$img" digest past.qcow2 | cut -d' ' -f1) == "$sound" ]] || fail "the disk is not what it was"

# Compressed data is decoded where there is any, asked for or not, and so it is once the image is
# written: what is broken and stays so is no surprise then.
image broken.qcow2 << 'END'
version 3
cluster-size 64K
size 16M
write-compressed 0 192K text
write 1M 64K 0x11
map(1M).copied = 0
fill map(64K).offset 300 random
END
mend 2 --output=json broken.qcow2
err_is_empty
jq_is '.repaired, .["checked-deep"], .verdict' $'true\ntrue\ncorrupt'
jq_is '.after.problems[].id' compressed-broken
run 0 broken.qcow2
run 2 --deep broken.qcow2
mend 2 broken.qcow2
out_has "qcow2-check --deep broken.qcow2"
mend 0 --leaks --output=json broken.qcow2
jq_is '.deep, .["checked-deep"]' $'false\nfalse'
