# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Goes to the sources and sets `rooms` to those folders that there are.

set -euo pipefail
cd "${1:?usage: $0 SOURCE_FOLDER}"
rooms=()
for room in core checker repair fuzz corpus tests; do
    [[ ! -d $room ]] || rooms+=("$room")
done
export rooms
