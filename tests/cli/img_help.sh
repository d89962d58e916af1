#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The help of each command, its parser and the man page know the same options.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
img=$3
touch out err
page=$here/../../core/tool/qcow2-img.1

# The macros of mdoc write "-q" as "Fl q", and several behind one Fl as "Fl add , Fl remove".
options_of_page()
{
    grep -oE '\bFl (-)?[A-Za-z][A-Za-z-]*' | sed 's/Fl /-/' | sort -u
}

options_of_help()
{
    sed '/^$/q' | grep -oE '(^|[^A-Za-z0-9-])--?[A-Za-z][a-z-]*' | grep -oE -- '--?[A-Za-z].*' | sort -u
}

declare -A refused=([check]=-r)
sed -n '/^\.Ss Options of many/,/^\.Ss Commands/p' "$page" | options_of_page > common

for command in $("$img" --help | sed -n 's/^  \([a-z]*\)  *.*/\1/p'); do
    sed -n "/^\.It Cm $command\b/,/^\.\(It\|El\)/{/^\.It Cm $command\b/p;/^\.\(It\|El\)/!p}" "$page" \
        > section
    [[ -s section ]] || fail "the man page has no command $command"
    # check has -r only to refuse it.
    options_of_page < section | grep -vxe "${refused[$command]:-none}" > described || true
    "$img" "$command" --help > out
    # Without the sentence behind the usage
    sed '/^[A-Z][^:]*$/d' out | options_of_help > listed
    while read -r option; do
        "$img" "$command" "$option" > out 2> err < /dev/null || true
        ! grep -q 'has no option' err || fail "$command does not know $option of its help"
    done < listed
    undescribed=$(sort -u described common | comm -23 listed -)
    [[ -z $undescribed ]] || fail "the man page lacks of $command: $undescribed"
    unlisted=$(comm -23 described listed)
    [[ -z $unlisted ]] || fail "the help of $command lacks: $unlisted"
done
