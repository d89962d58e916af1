#!/bin/sh
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Fails unless every problem in the catalogue has a case that expects it.

set -eu
source=$1
known=$(sed -n 's/^Q2_PROBLEM([A-Z0-9_]*, "\([a-z0-9-]*\)".*/\1/p' \
    "$source/core/format/problems.def")
[ -n "$known" ] || { echo "no problems found in problems.def" >&2; exit 1; }

missing=0
for id in $known; do
    if ! grep -lqs "\"id\": *\"$id\"" "$source"/tests/cases/*/expect.json; then
        echo "no case provokes $id"
        missing=$((missing + 1))
    fi
done
echo "$(echo "$known" | wc -l) problems, $missing without a case"
[ "$missing" -eq 0 ]
