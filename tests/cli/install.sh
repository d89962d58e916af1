#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# An installed tree works: the programs, the man pages, and the library through pkg-config, shared
# and static.
#
#   bash install.sh QCOW2_CHECK Q2_RECIPE BUILD_FOLDER COMPILER [FLAG...]

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
build=$3
compiler=$4
shift 4
need pkg-config
make_images
touch out err

cmake --install "$build" --prefix "$scratch/prefix" > log 2>&1 || fail "$(tail -n 20 log)"
check=$scratch/prefix/bin/qcow2-check
run 2 damaged.qcow2
"$scratch/prefix/bin/qcow2-img" info damaged.qcow2 > out 2> err || fail "qcow2-img does not work"
"$scratch/prefix/bin/qcow2-repair" --dry-run damaged.qcow2 > out 2> err || [[ $? == 2 ]] ||
    fail "qcow2-repair does not work"
for program in qcow2-check qcow2-repair qcow2-img; do
    [[ -s prefix/share/man/man1/$program.1 ]] || fail "no man page of $program"
    [[ -s prefix/share/bash-completion/completions/$program ]] || fail "no completion for bash"
    [[ -s prefix/share/zsh/vendor-completions/_$program ]] || fail "no completion for zsh"
done

PKG_CONFIG_PATH=$(dirname "$(find prefix -name qcow2kit.pc)")
export PKG_CONFIG_PATH
read -ra compile <<< "$(pkg-config --cflags qcow2kit)"
read -ra link <<< "$(pkg-config --libs qcow2kit)"
read -ra link_static <<< "$(pkg-config --libs --static qcow2kit)"
libraries=$(pkg-config --variable=libdir qcow2kit)

try()
{
    local status=0
    LD_LIBRARY_PATH=$libraries "$1" damaged.qcow2 || status=$?
    [[ $status == 2 ]] || fail "$1: status $status"
}

"$compiler" "$@" -Wall -Werror "${compile[@]}" "$here/consumer.c" "${link[@]}" -o shared
try ./shared
"$compiler" "$@" -Wall -Werror "${compile[@]}" "$here/consumer.c" \
    "${link_static[@]/-lqcow2kit/$libraries/libqcow2kit.a}" -o static
try ./static

# Nothing leaks into the names of those who link it. (Instruments for coverage would.)
[[ "$*" != *--coverage* ]] || exit 0
! nm -D --defined-only "$libraries/libqcow2kit.so" | awk '{ print $3 }' |
    grep -vE '^(q2_|_|__)' > foreign || fail "foreign names: $(xargs < foreign)"
