#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The JSON report: valid, complete, and a superset of that of qemu-img.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
need jq
make_images

run 0 --output=json clean.qcow2
jq_is .filename clean.qcow2
jq_is .format qcow2
jq_is '."check-errors"' 0
jq_is '."allocated-clusters"' 16
jq_is '."total-clusters"' 16384
jq_is 'has("corruptions") or has("leaks")' false
jq_is .verdict clean
jq_is '."exit-status"' 0
jq_is '.findings | length' 0

run 2 --output=json damaged.qcow2
jq_is .corruptions 1
jq_is .verdict corrupt
jq_is '.findings[0].id' l2-entry-past-end
jq_is '.findings[0]."guest-offset"' 65536
jq_is '.findings[0]."guest-length"' 65536
jq_is '.findings[0]."l2-index"' 1
jq_is '.findings[0].maps[0]' active
jq_is '.impacts[0].impact' unreadable
jq_is '.impacts[0]."active-bytes"' 65536
jq_is '[.problems[].count] | add' 2

run 3 --output=json leaky.qcow2
jq_is .leaks 3
jq_is '[.findings[] | select(.id == "cluster-leaked") | .count] | add' 3

run 63 --output=json other.txt
jq_is .verdict not-supported
jq_is '.error | length > 0' true
run 1 --output=json missing.qcow2
jq_is .verdict incomplete

run 0 --output=json --explain=cluster-leaked
jq_is .severity leak
run 0 --output=json --list-problems
jq_is 'length > 100' true
jq_is '[.[].id] | unique | length' "$(jq length out)"

run 0 --output=json --owner=0x30000 clean.qcow2
jq_is '.owners[0].kind' l1-table
jq_is .refcount 1

# Each member that qemu-img has, we have with the same value; tests/interop knows the exceptions.
if command -v qemu-img > /dev/null; then
    for name in clean leaky; do
        qemu-img check --output=json $name.qcow2 > qemu.json 2> err || true
        "$check" --output=json $name.qcow2 > out 2> err || true
        jq -e --slurpfile ours out 'to_entries | all($ours[0][.key] == .value)' qemu.json > verdict ||
            fail "$name: qemu-img says $(< qemu.json)"
    done
fi
