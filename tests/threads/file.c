/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Threads that write neighbouring ranges of a memory file, and of an overlay over one, each read
 * back what they wrote. */

#include "core/io/memory.h"
#include "core/io/overlay.h"
#include "tests/threads/threads.h"

#include <string.h>

enum { PIECE = 700, ROUNDS = 60 }; /* pieces straddle any block size */

static void
write_and_read(void *data, unsigned thread)
{
    struct q2_file *file = data;
    uint8_t mine[PIECE], back[PIECE];
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t at = ((uint64_t)round * THREADS + thread) * PIECE;
        memset(mine, (int)(round * THREADS + thread), sizeof mine);
        MUST(q2_file_write(file, at, mine, sizeof mine, NULL) == 0);
        MUST(q2_file_read(file, at, back, sizeof back, NULL) == 0);
        MUST(memcmp(mine, back, sizeof mine) == 0);
    }
}

static void
check_all(struct q2_file *file)
{
    uint8_t byte;
    for (uint64_t piece = 0; piece < (uint64_t)ROUNDS * THREADS; piece++) {
        MUST(q2_file_read(file, piece * PIECE + PIECE - 1, &byte, 1, NULL) == 0);
        MUST(byte == (uint8_t)piece);
    }
}

int
main(void)
{
    struct q2_budget budget;
    struct q2_file *memory, *overlay;
    q2_budget_init(&budget, 64 << 20);
    MUST(q2_file_new_memory("memory", &memory, NULL) == 0);
    MUST(q2_file_new_overlay(memory, &budget, &overlay, NULL) == 0);
    threads_run(write_and_read, overlay);
    check_all(overlay);
    threads_run(write_and_read, memory);
    check_all(memory);
    q2_file_close(overlay);
    q2_file_close(memory);
    return 0;
}
