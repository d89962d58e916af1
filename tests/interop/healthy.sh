#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# QEMU's opinion of the healthy recipes: qemu-img check finds nothing, and the active disk and each
# snapshot read as the recipe says. A comment "# qemu-io: COMMAND" in a recipe is a command that
# must succeed; it stands in for the comparison of a disk too large for one.
#
# Skipped (77) without qemu-img.

set -euo pipefail
recipe_tool=$(realpath "${1:?usage: healthy.sh Q2-RECIPE FOLDER}")
folder=$(realpath "${2:?}")

command -v qemu-img > /dev/null && command -v qemu-io > /dev/null || exit 77
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
cd "$scratch" # where data files are looked up
broken=0

complain()
{
    printf '%s: %s\n' "$name" "$1"
    sed 's/^/    /' "$scratch/log"
    broken=1
}

# Run a command and keep what it says for complain.
quiet()
{
    "$@" > "$scratch/log" 2>&1
}

# How QEMU opens the image: the old encryption takes any key.
image_options()
{
    local options=driver=qcow2,file.filename=$image
    if grep -q '^encryption aes' "$recipe"; then
        options+=,encrypt.format=aes,encrypt.key-secret=key
    fi
    printf '%s' "$options"
}

compare_active()
{
    if ! quiet "$recipe_tool" --guest guest "$recipe" "$image" ||
        ! quiet qemu-img compare -f raw -F qcow2 guest "$image"; then
        complain "the disk does not read as it should"
    fi
}

# QEMU reads a snapshot of a larger disk only up to the size that the disk has now.
compare_snapshot()
{
    if ! quiet "$recipe_tool" --guest guest --snapshot "$1" "$recipe" "$image" ||
        ! quiet qemu-img convert -l "$1" -O raw "$image" read ||
        ! quiet truncate -s "<$(stat -c %s read)" guest ||
        ! quiet qemu-img compare -f raw -F raw guest read; then
        complain "snapshot '$1' does not read as it should"
    fi
}

compare_snapshots()
{
    local snapshot
    while IFS= read -r snapshot; do
        compare_snapshot "$snapshot"
    done < <(sed -nE 's/^snapshot ("([^"]*)"|([^ ]*)).*/\2\3/p' "$recipe")
}

run_commands()
{
    local command
    while IFS= read -r command; do
        if ! quiet qemu-io -f qcow2 -c "$command" "$image" ||
            grep -q 'Pattern verification failed' "$scratch/log"; then
            complain "qemu-io: $command"
        fi
    done < <(sed -n 's/^# qemu-io: //p' "$recipe")
}

test_recipe()
{
    local recipe=$1 name image=image.qcow2
    name=$(basename "$recipe" .recipe)
    if ! quiet "$recipe_tool" "$recipe" "$image"; then
        complain "cannot be built"
        return
    fi
    # Without the right pass phrase QEMU opens no LUKS image but to tell what it is.
    if grep -q '^encryption luks' "$recipe"; then
        quiet qemu-img info "$image" || complain "qemu-img info fails"
        return
    fi
    quiet qemu-img check --object secret,id=key,data=0123456789abcdef \
        --image-opts "$(image_options)" || complain "qemu-img check finds problems"
    # What QEMU would decrypt is not what the recipe wrote.
    grep -q '^encryption' "$recipe" && return
    run_commands
    if ! grep -q '^# qemu-io: ' "$recipe"; then
        compare_active
        compare_snapshots
    fi
}

tested=0
for recipe in "$folder"/*.recipe; do
    test_recipe "$recipe"
    tested=$((tested + 1))
done
printf '%d recipes tested\n' "$tested"
((tested)) || broken=1
exit "$broken"
