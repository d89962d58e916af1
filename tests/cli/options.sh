#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The command line itself: help, version, errors, sizes, the catalogue.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
make_images

run 0 --help
out_has "Usage: qcow2-check"
err_is_empty
awk 'length > 80 { exit 1 } END { exit NR > 24 }' out || fail "--help does not fit a screen"
run 0 -h
run 0 --version
[[ $(< out) =~ ^qcow2-check\ \(qcow2kit\)\ [0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "--version"
run 0 -V

# Every error is one status and a line that names its cause.
while IFS='|' read -r words message; do
    # shellcheck disable=SC2086
    run 1 $words
    out_is_empty
    err_has "qcow2-check: "
    err_has "$message"
done << 'END'
|no image is named
--no-such-option|--no-such-option
--output=xml clean.qcow2|neither human nor json
--limit=0 clean.qcow2|--limit
--limit=many clean.qcow2|--limit
--limit|--limit
--jobs=0 clean.qcow2|--jobs
--threads=9999 clean.qcow2|--threads
--max-memory=-1 clean.qcow2|--max-memory
--max-memory=1Q clean.qcow2|--max-memory
--max-memory=99999999999999999999 clean.qcow2|--max-memory
--owner=0xg clean.qcow2|--owner
--owner=64K clean.qcow2 clean.qcow2|--owner takes one image
--owner=64K --list-problems|do not go together
--explain=no-such-problem|no problem 'no-such-problem'
--explain=l2-entry|l2-entry-past-end
--explain=cluster-leaked clean.qcow2|take no image
-f raw clean.qcow2|'raw' is not supported
-r all clean.qcow2|never writes
END

# What qemu-img takes.
run 0 -f qcow2 -U -q clean.qcow2
out_is_empty
err_is_empty
run 0 --max-memory=1GiB --threads=2 -- clean.qcow2
run 0 --owner=0x30000 clean.qcow2
run 0 --owner=192K clean.qcow2

run 0 --explain=l2-entry-past-end
out_has "An L2 entry points past the end of the file."
out_has "Repair"
run 0 --list-problems
out_has "cluster-leaked"
[[ $(wc -l < out) -gt 100 ]] || fail "the list is short"
