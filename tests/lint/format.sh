#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# Every C file is as clang-format leaves it (`./kit format`). Skipped (77) where there is none, or
# one of another version, which would disagree about details.

# shellcheck source=tests/lint/rooms.sh
source "$(dirname "$0")/rooms.sh"

version=$(clang-format --version 2> /dev/null) || exit 77
[[ $version == *"version 14."* ]] || exit 77
find "${rooms[@]}" -name '*.[ch]' -print0 |
    xargs -0 --no-run-if-empty clang-format --dry-run -Werror
