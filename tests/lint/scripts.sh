#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Runs shellcheck over all scripts and mandoc over all man pages. Skipped (77) where both are missing.

# shellcheck source=tests/lint/rooms.sh
source "$(dirname "$0")/rooms.sh"

ran=0
if command -v shellcheck > /dev/null; then
    ran=1
    options=(--external-sources --source-path=SCRIPTDIR)
    shellcheck "${options[@]}" kit .ci/run .clusterfuzzlite/build.sh tests/patient/qemu-img
    # Scripts share variables with those that they source and are sourced by, which it does not see.
    find "${rooms[@]}" -name '*.sh' -print0 |
        xargs -0 shellcheck "${options[@]}" --severity=warning --exclude=SC2154
fi
if command -v mandoc > /dev/null; then
    ran=1
    # Cross references are looked up in a database that need not exist.
    if find "${rooms[@]}" -name '*.1' -print0 |
        xargs -0 mandoc -T lint -W style 2> /dev/null | grep -v 'unknown manual'; then
        exit 1
    fi
fi
((ran)) || exit 77
