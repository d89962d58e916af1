# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# On a busy machine qemu-img now and then cannot tell how fast the CPU is, and so makes no LUKS
# image. With this sourced, it is asked again then. QEMU_IMG_SECONDS limits the time of each try.

qemu-img()
{
    local try errors status=0 program=(command qemu-img)
    [[ -z ${QEMU_IMG_SECONDS-} ]] || program=(timeout "$QEMU_IMG_SECONDS" qemu-img)
    if [[ $* != *encrypt.* ]]; then
        "${program[@]}" "$@"
        return
    fi
    errors=$(mktemp)
    for try in 1 2 3 4 5 6 7 8; do
        status=0
        "${program[@]}" "$@" 2> "$errors" || status=$?
        grep -q 'accurate CPU usage' "$errors" || break
        sleep "0.$try"
    done
    cat "$errors" >&2
    rm -f "$errors"
    return "$status"
}
