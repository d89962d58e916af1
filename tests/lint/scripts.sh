#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Runs shellcheck over all scripts and mandoc over all man pages. Skipped (77) where both are missing.

set -euo pipefail
cd "${1:?usage: scripts.sh SOURCE_FOLDER}"

ran=0
if command -v shellcheck > /dev/null; then
    ran=1
    {
        printf 'kit\0.ci/run\0'
        find core checker repair fuzz corpus tests -name '*.sh' -print0
    } | xargs -0 shellcheck --external-sources --source-path=SCRIPTDIR
fi
if command -v mandoc > /dev/null; then
    ran=1
    # Cross references are looked up in a database that need not exist.
    if find core checker repair -name '*.1' -print0 |
        xargs -0 mandoc -T lint -W style 2> /dev/null | grep -v 'unknown manual'; then
        exit 1
    fi
fi
((ran)) || exit 77
