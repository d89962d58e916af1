#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# What both programs say of every recipe, healthy or damaged: the exit status and every counter are
# equal, or the file `differences` says why not. A row of it that no difference needs any more is an
# error too. Both run without further options, for QEMU has none that look at data or other files.
#
# shellcheck disable=SC2317 # in_parallel calls the functions
#
# usage: peer.sh QCOW2_CHECK Q2_RECIPE SOURCE_FOLDER [PATTERN]; PATTERN selects recipes by name

# shellcheck source=tests/interop/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-img jq
need_version 7.2
recipe_tool=$(cd "$OLDPWD" && realpath "$2")
source_folder=$(cd "$OLDPWD" && realpath "$3")
pattern=${4:-*}
patience=$qemu_seconds

# NAME RECIPE
recipes()
{
    local recipe name
    for recipe in "$source_folder"/tests/cases/*/recipe; do
        name=${recipe%/recipe}
        echo "${name##*/} $recipe"
    done
    for recipe in "$source_folder"/corpus/{healthy,damaged}/*.recipe; do
        [[ ! -e $recipe ]] || echo "$(basename "$(dirname "$recipe")")/$(basename "$recipe" .recipe) $recipe"
    done
}

# one NAME RECIPE
one()
{
    local name=$1 recipe=$2 file arguments=()
    # shellcheck disable=SC2053
    [[ $name == $pattern ]] || return 0
    for file in "${recipe%/*}"/*.recipe; do
        [[ $recipe == */cases/*/recipe && -e $file ]] || continue
        "$recipe_tool" "$file" "$(basename "$file" .recipe)" || return 1
    done
    "$recipe_tool" "$recipe" image.qcow2 || return 1
    # The old encryption takes any key.
    if grep -q '^encryption aes' "$recipe"; then
        # shellcheck disable=SC2054
        arguments=(--object "secret,id=key,data=any key" --image-opts
            driver=qcow2,encrypt.format=aes,encrypt.key-secret=key,file.filename=image.qcow2)
    fi
    # From these QEMU does not come back.
    case $name in
    backing-loop* | l1-of-32m-random | l1-of-32m-past-end | snapshots-65536-one-l1) qemu_seconds=1 ;;
    *) qemu_seconds=$patience ;;
    esac
    examine "$name" image.qcow2 "${arguments[@]}"
    find . -type f ! -name reports -delete
}

# matches_row CASE FIELD OURS QEMU REASON: whether that is the difference at hand.
matches_row()
{
    # shellcheck disable=SC2053,SC2154 # patterns; variables of explain
    [[ $name == $1 && $field == $2 ]] && [[ $3 == any || $3 == "$ours" ]] &&
        [[ $4 == any || $4 == "$qemu" ]]
}

recipes > list
in_parallel one < list
differences_in > found
if [[ $pattern == "*" ]]; then
    explain "$here/differences" matches_row all
else
    cat found
fi
printf '%s images compared, %s differences\n' "$(count_reports)" "$(wc -l < found)"
finish
