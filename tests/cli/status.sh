#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Exit statuses, what goes where, and that nothing is lost unnoticed.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
make_images

run 0 clean.qcow2
out_has "clean.qcow2: no errors found"
[[ $(wc -l < out) -lt 6 ]] || fail "a clean image needs many lines"
out_has "qcow2-check --deep clean.qcow2 reads guest data too"
out_lacks "--chain"
printf 'size 1M\nbacking "gone.raw" format raw\n' | image overlay.qcow2
run 0 overlay.qcow2
out_has "qcow2-check --chain overlay.qcow2 looks at them too"
run 2 --chain overlay.qcow2
out_has "backing-missing"
run 2 damaged.qcow2
out_has "l2-entry-past-end"
out_has "guest 64K-128K (active)"
out_has "What this means:"
out_has "qcow2-repair --dry-run damaged.qcow2"
run 3 leaky.qcow2
out_has "3 leaks"
out_has "Guest data is not affected"
out_has "qcow2-repair --leaks leaky.qcow2"
run 63 other.txt
err_has "qcow2-check: other.txt: "
out_is_empty
run 1 missing.qcow2
err_has "qcow2-check: missing.qcow2: "
run 1 /dev/null
err_has "character device"
run 1 "$scratch/clean.qcow2/below"

# Quiet: the status says it all.
for pair in 0:clean 2:damaged 3:leaky; do
    run "${pair%%:*}" --quiet "${pair#*:}.qcow2"
    out_is_empty
    err_is_empty
    run "${pair%%:*}" --quiet --output=json "${pair#*:}.qcow2"
    out_is_empty
done
run 1 --quiet missing.qcow2
err_has "missing.qcow2"

# The image stays as it is.
before=$(sha256sum damaged.qcow2)
run 2 --deep damaged.qcow2
[[ $before == "$(sha256sum damaged.qcow2)" ]] || fail "the image was changed"

# A report that cannot be written is an error of its own, whatever the image is like.
for form in human json; do
    status=0
    "$check" --output=$form clean.qcow2 > /dev/full 2> err || status=$?
    [[ $status == 1 ]] || fail "status $status on a full disk"
    err_has "could not be written"
    status=0
    "$check" --output=$form clean.qcow2 2> err >&- || status=$?
    [[ $status == 1 ]] || fail "status $status without a stdout"
done
# A reader that has gone is such an error too.
mkfifo gone
exec 3<> gone
exec 4> gone
exec 3>&-
status=0
"$check" --list-problems >&4 2> err || status=$?
exec 4>&-
[[ $status == 1 ]] || fail "status $status without a reader"
err_has "Broken pipe"

status=0
"$check" damaged.qcow2 > out 2>&- || status=$?
[[ $status == 2 ]] || fail "status $status without a stderr"
status=0
"$check" damaged.qcow2 > out 2> err <&- || status=$?
[[ $status == 2 ]] || fail "status $status without a stdin"

# Names that are not tame.
cp damaged.qcow2 $'a\e[31mb \'c\'.qcow2'
run 2 $'a\e[31mb \'c\'.qcow2'
! grep -q $'\e' out || fail "a control character got through"
out_has '\x1b[31mb'
run 1 $'missing\e[2J'
! grep -q $'\e' err || fail "a control character got through"
cp damaged.qcow2 -- -dash.qcow2
run 2 -- -dash.qcow2
out_has "qcow2-repair --dry-run ./-dash.qcow2"
