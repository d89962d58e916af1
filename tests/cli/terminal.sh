#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Colours and progress: on a terminal, when asked for, never in a pipe.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
need script
make_images

# Run on a terminal of its own and keep what it shows.
on_terminal()
{
    script --quiet --return --command "$1" /dev/null < /dev/null > out 2> err || true
}

has_colour() { grep -q $'\e\[1;31m' out; }

export TERM=xterm
on_terminal "'$check' damaged.qcow2"
has_colour || fail "no colour on a terminal"
on_terminal "NO_COLOR=1 '$check' damaged.qcow2"
! has_colour || fail "colour in spite of NO_COLOR"
on_terminal "NO_COLOR= '$check' damaged.qcow2"
has_colour || fail "an empty NO_COLOR counts"
on_terminal "TERM=dumb '$check' damaged.qcow2"
! has_colour || fail "colour on a dumb terminal"
on_terminal "'$check' damaged.qcow2 | cat"
! has_colour || fail "colour in a pipe"

run 2 damaged.qcow2
! grep -q $'\e' out err || fail "escape sequences in a file"
err_is_empty
run 0 --progress clean.qcow2
[[ -s err ]] || fail "no progress though asked for"
! grep -q $'\e' err || fail "progress moves the cursor of a file"
