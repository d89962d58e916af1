#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What `./kit fuzz` and `./kit coverage` refuse before they build anything.

set -euo pipefail
cd "$1"

# refused WORDS ARGUMENT...
refused()
{
    local words=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "$* is not refused"
        exit 1
    fi
    [[ $output == *"$words"* ]] || { printf '%s says: %s\n' "$*" "$output"; exit 1; }
}

refused "no harness is called nothing" fuzz/campaign/run.sh nothing
refused "90x is no time" fuzz/campaign/run.sh --time 90x
refused "no engine is called other" fuzz/campaign/run.sh --engine=other
refused "0 is no number of processes" fuzz/campaign/run.sh --jobs 0
refused "a name is made of" fuzz/campaign/run.sh --name a/b
refused "--time needs a value" fuzz/campaign/run.sh --time
refused "Usage: ./kit fuzz" fuzz/campaign/run.sh --unknown
refused "Usage: ./kit coverage" fuzz/campaign/coverage.sh --unknown
[[ $(fuzz/campaign/run.sh --list) == "$(basename -s .c -a fuzz/harness/*.c)" ]]
fuzz/campaign/run.sh --help | grep -q -- --engine
