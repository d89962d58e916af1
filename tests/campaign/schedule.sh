#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The turns of a campaign: each harness gets the time that was asked for, however many there are and
# however many processes; what is over is shared.

set -euo pipefail
cd "$1"
# shellcheck source=fuzz/campaign/schedule.sh
source fuzz/campaign/schedule.sh

# Lines `HARNESS SECONDS` that the schedule comes to.
sums()
{
    schedule | awk '{ sum[$1] += $3 } END { for (name in sum) print name, sum[name] }' | sort
}

# expect WHAT GOT
expect()
{
    [[ $2 == "$1" ]] || {
        printf 'expected:\n%s\ngot:\n%s\n' "$1" "$2"
        exit 1
    }
}

harnesses=(a b c)
jobs=2 duration=90
expect $'a 90\nb 90\nc 90' "$(sums)"
expect $'a 0 90\nb 0 90\nc 0 90' "$(schedule)"
# Everything has its turn before anything has its second.
duration=1500
expect $'a 1500\nb 1500\nc 1500' "$(sums)"
expect $'a 0 500\nb 0 500\nc 0 500\na 0 500' "$(schedule | head -n 4)"
duration=1000
expect $'a 1000\nb 1000\nc 1000' "$(sums)"
# Two processes for each, and the seventh for another each time.
jobs=7 duration=1800
expect $'a 4200\nb 4200\nc 4200' "$(sums)"
expect $'a 0\na 1\na 2\nb 0\nb 1\nc 0\nc 1' "$(schedule | head -n 7 | cut -d' ' -f1,2 | sort)"
expect "" "$(schedule | awk '{ print $1, $2, int((NR - 1) / 7) }' | sort | uniq -d)"
duration=0
expect "" "$(schedule)"
