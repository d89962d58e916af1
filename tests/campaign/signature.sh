#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: The qcow2kit authors
#
# How crashes are told apart: what is in a report of each kind.

set -euo pipefail
cd "$1"

# expect CAUSE NAME [HANG] < REPORT
expect()
{
    local got
    got=$(awk -v hang="${3:-0}" -f fuzz/campaign/signature.awk)
    [[ $got == "$1"$'\n'"$2" ]] || {
        printf 'expected: %s\n%s\ngot: %s\n' "$1" "$2" "$got"
        exit 1
    }
}

expect 'check.c: finding N was l2-unaligned, then l2-past-end' 'finding-n-was-l2-unaligned-then-l2-past-end' << 'END'
check: /src/fuzz/harness/check.c:41: x->problem == y->problem does not hold: finding 3 was l2-unaligned, then l2-past-end
AddressSanitizer:DEADLYSIGNAL
==12==ERROR: AddressSanitizer: ABRT on unknown address 0x000000000021 (pc 0x7f T0)
    #0 0x7f26 in raise (/lib/libc.so.6+0x38)
END
expect 'check.c: N findings, then N' 'n-findings-then-n' << 'END'
check: /src/fuzz/harness/check.c:37: q2_check_finding_count(b) == count does not hold: 12 findings, then 0x3
END

# The functions of the product that are on top; the stack of the allocation is not looked at.
overflow='heap-buffer-overflow core/format/entry.c:q2_entry_decode core/image/map.c:walk checker/walk.c:visit'
expect "$overflow" heap-buffer-overflow-q2-entry-decode << 'END'
==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x602000000018 at pc 0x55 bp 0x7f sp 0x7f
READ of size 8 at 0x602000000018 thread T0
    #0 0x7fd in __interceptor_memcpy ../../../../src/libsanitizer/sanitizer_common/x.inc:827
    #1 0x55a in q2_entry_decode /src/core/format/entry.c:77
    #2 0x55b in walk /src/core/image/map.c:12
    #3 0x55b in walk /src/core/image/map.c:14
    #4 0x55c in visit /src/checker/walk.c:200
    #5 0x55d in run /src/fuzz/harness/check.c:70

0x602000000018 is located 0 bytes after 8-byte region
allocated by thread T0 here:
    #0 0x7fd in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x55a in q2_other /src/core/io/memory.c:7
END
# Other lines of the same functions are the same cause.
expect "$overflow" heap-buffer-overflow-q2-entry-decode << 'END'
==9==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x6030 at pc 0x57 bp 0x7f sp 0x7f
    #0 0x55a in q2_entry_decode /elsewhere/core/format/entry.c:80
    #1 0x55b in walk /elsewhere/core/image/map.c:99
    #2 0x55c in visit /elsewhere/checker/walk.c:1
END

expect 'shift exponent N is too large repair/slots.c:slot' 'shift-exponent-n-is-too-large-slot' << 'END'
/src/repair/slots.c:12:9: runtime error: shift exponent 70 is too large for 64-bit type 'long unsigned int'
    #0 0x55 in slot /src/repair/slots.c:12
    #1 0x56 in main /src/fuzz/engine/replay.c:190
END
expect 'leak repair/plan.c:q2_plan_begin' leak-q2-plan-begin << 'END'
==3==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 64 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x55 in q2_plan_begin /src/repair/plan.c:33

Direct leak of 8 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x55 in other /src/repair/plan.c:90
END
# What hangs is called by the same functions, wherever it is interrupted.
for inner in one two; do
    expect 'hang checker/check.c:q2_check_run fuzz/harness/check.c:check fuzz/harness/check.c:run' \
        'hang-check' 1 << END
==3==ERROR: AddressSanitizer: ABRT on unknown address 0x0001 (pc 0x55 bp 0x7f sp 0x7f T0)
    #0 0x55 in $inner /src/checker/walk.c:3
    #1 0x55 in q2_check_run /src/checker/check.c:33
    #2 0x55 in check /src/fuzz/harness/check.c:30
    #3 0x55 in run /src/fuzz/harness/check.c:70
    #4 0x55 in main /src/fuzz/engine/replay.c:190
END
done
expect died died < /dev/null
