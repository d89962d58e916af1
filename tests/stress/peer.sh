#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Random sequences whose images QEMU looks at in the end.
#
# usage: peer.sh STRESS [OPTIONS]

set -euo pipefail

if ! command -v qemu-img >/dev/null; then
    echo "there is no QEMU here"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$1" --peer "$scratch" "${@:2}"
