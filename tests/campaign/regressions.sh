#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Each regression has its story in the table, each story its regression, and none is still open.

set -euo pipefail
cd "$1/fuzz/regressions"

diff <(find . -mindepth 2 -type f | sed 's,^\./,,' | sort) \
    <(sed -n 's/^| \([a-z_]*\/[^ ]*\) |.*/\1/p' README.md | sort) || {
    echo "only <: without a story in fuzz/regressions/README.md; only >: without an input"
    exit 1
}
! grep -n '| open: ' README.md || {
    echo "what these fail for is not mended, or its story is not told"
    exit 1
}
for folder in */; do
    [[ -f ../harness/${folder%/}.c ]] || { echo "there is no harness for $folder"; exit 1; }
done
