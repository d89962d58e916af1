/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Threads that add to the same clusters of one tally lose no reference. */

#include "core/image/tally.h"
#include "tests/threads/threads.h"

enum { CLUSTERS = 3 * Q2_CHUNK_CLUSTERS + 100, ROUNDS = 40 };

static void
add_all(void *data, unsigned thread)
{
    struct q2_tally_cursor cursor;
    q2_tally_cursor_init(&cursor, data);
    for (unsigned round = 0; round < ROUNDS; round++) {
        /* Every thread starts elsewhere, so that they meet everywhere. */
        uint64_t first = (uint64_t)thread * CLUSTERS / THREADS;
        MUST(q2_tally_add(&cursor, first, CLUSTERS - first, 1, Q2_REFERENCE_COPIED, NULL) == 0);
        MUST(first == 0 || q2_tally_add(&cursor, 0, first, 1, Q2_REFERENCE_PLAIN, NULL) == 0);
    }
    q2_tally_release(&cursor);
}

int
main(void)
{
    struct q2_budget budget;
    struct q2_tally *tally;
    q2_budget_init(&budget, 64 << 20);
    MUST(q2_tally_new(&budget, &tally, NULL) == 0);
    threads_run(add_all, tally);
    for (uint64_t cluster = 0; cluster < CLUSTERS; cluster++) {
        struct q2_chunk *chunk = q2_tally_chunk(tally, cluster >> Q2_CHUNK_BITS);
        unsigned index = (unsigned)(cluster & (Q2_CHUNK_CLUSTERS - 1));
        MUST(chunk && q2_chunk_references(chunk, index) == THREADS * ROUNDS);
        MUST(q2_chunk_test(chunk->overlap, index));
    }
    q2_tally_free(tally);
    MUST(budget.used == 0);
    return 0;
}
