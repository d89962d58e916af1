# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# On a busy machine qemu-img now and then cannot tell how fast the CPU is, and so makes no LUKS
# image. With this sourced, it is asked again then, and only what the last try prints is passed on.
# QEMU_IMG_SECONDS limits the time of each try.

qemu-img()
{
    local try printed status=0 program=(command qemu-img)
    [[ -z ${QEMU_IMG_SECONDS-} ]] || program=(timeout "$QEMU_IMG_SECONDS" qemu-img)
    if [[ $* != *encrypt.* ]]; then
        "${program[@]}" "$@"
        return
    fi
    printed=$(mktemp -d)
    for try in 1 2 3 4 5 6 7 8; do
        status=0
        "${program[@]}" "$@" > "$printed/out" 2> "$printed/errors" || status=$?
        grep -q 'accurate CPU usage' "$printed/errors" || break
        sleep "0.$try"
    done
    cat "$printed/out"
    cat "$printed/errors" >&2
    rm -rf "$printed"
    return "$status"
}
