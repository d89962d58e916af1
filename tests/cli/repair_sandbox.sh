#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# qcow2-repair looks at the image, the journal and the plan only after it has shut itself in, and
# opens nothing from inside.

# shellcheck source=tests/cli/repair_lib.sh
source "$(dirname "$0")/repair_lib.sh"
make_images
need strace
"$repair" --dry-run --output=json leaky.qcow2 > plan.json || true

# watch ARGUMENT...: run it, with what the process inside does in the file `inside`.
watch()
{
    rm -f trace.*
    strace -ff -o trace "$repair" "$@" > out 2> err || true
    inside=$(grep -l 'seccomp(SECCOMP_SET_MODE_FILTER, 0' trace.* | tail -n 1)
    [[ -n $inside ]] || {
        grep -q 'exited with' trace.* || { echo "skipped: strace does not work here" && exit 77; }
        fail "no filter was loaded"
    }
    for file in trace.*; do
        if [[ $file == "$inside" ]]; then
            sed '/seccomp(SECCOMP_SET_MODE_FILTER, 0/,$d' "$file"
        else
            grep -q 'seccomp(SECCOMP_SET_MODE_FILTER' "$file" || cat "$file"
        fi
    done > outside
    sed -n '/seccomp(SECCOMP_SET_MODE_FILTER, 0/,$p' "$inside" > within
    ! grep -E 'pread.*QFI|q2-undo' outside > early || fail "looked at too early: $(< early)"
    ! grep -E '(open|openat|openat2|socket|connect|execve|fork|vfork|unlink|unlinkat)\(' within |
        grep -v ' = -1 EPERM' > escaped || fail "got through: $(< escaped)"
}

watch --dry-run leaky.qcow2
! grep -qE 'pwrite|fsync|ftruncate' within || fail "a dry run writes"
watch --threads=2 leaky.qcow2
grep -q 'pwrite' within || fail "nothing was written from inside"
grep -qE 'f(data)?sync' within || fail "nothing was made durable from inside"
run 0 leaky.qcow2
watch --undo leaky.qcow2.qcow2kit-undo
run 3 leaky.qcow2
watch --apply-plan=plan.json leaky.qcow2
run 0 leaky.qcow2
