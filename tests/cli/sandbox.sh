#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# The real program enters its sandbox before it reads a byte of the image, with threads and all.
# tests/unit/sandbox.c shows what the sandbox denies.

# shellcheck source=tests/cli/lib.sh
source "$(dirname "$0")/lib.sh"
make_images

run 0 --threads=4 --deep clean.qcow2
err_is_empty

need strace
strace -f -o trace "$check" --threads=4 --deep clean.qcow2 > out 2> err || {
    echo "skipped: strace does not work here"
    exit 77
}
sed -n '/seccomp(SECCOMP_SET_MODE_FILTER, 0/,$p' trace > inside
[[ -s inside ]] || fail "no filter was loaded"
grep -qE 'pread|readv' inside || fail "the image was not read after that"
! sed '/seccomp(SECCOMP_SET_MODE_FILTER, 0/,$d' trace | grep -E 'pread.*QFI' > early ||
    fail "the image was read before: $(< early)"
! grep -E '(open|openat|openat2|socket|connect|execve|fork|vfork)\(' inside |
    grep -v ' = -1 EPERM' > escaped || fail "got through: $(< escaped)"
