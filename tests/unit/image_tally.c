/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The tally against a plain array: random adds of every size and kind, then the numbers and bits of
 * each cluster; and the same from several threads. */

#include "core/image/tally.h"

#include "core/base/checked.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTERS = 3 * Q2_CHUNK_CLUSTERS, THREADS = 4 };

struct model {
    uint64_t references[CLUSTERS];
    bool seen[CLUSTERS], copied[CLUSTERS], plain[CLUSTERS], packed[CLUSTERS], overlap[CLUSTERS];
};

static struct q2_budget budget;
static struct q2_tally *tally;
static struct q2_tally_cursor cursor;
static struct model *model;

static void
setup(void)
{
    q2_budget_init(&budget, 64 << 20);
    cr_assert_eq(q2_tally_new(&budget, &tally, NULL), 0);
    q2_tally_cursor_init(&cursor, tally);
    model = calloc(1, sizeof *model);
}

static void
teardown(void)
{
    q2_tally_release(&cursor);
    q2_tally_free(tally);
    cr_expect_eq(budget.used, 0, "%llu bytes are still accounted for",
                 (unsigned long long)budget.used);
    free(model);
}

TestSuite(tally, .init = setup, .fini = teardown);

static void
add(uint64_t first, uint64_t count, uint64_t references, unsigned flags)
{
    cr_assert_eq(q2_tally_add(&cursor, first, count, references, flags, NULL), 0);
    for (uint64_t i = first; i < first + count; i++) {
        bool shares = (flags & Q2_REFERENCE_PACKED) && model->packed[i];
        model->overlap[i] |= model->seen[i] && !shares;
        model->seen[i] = true;
        if (!q2_add(model->references[i], references, &model->references[i]))
            model->references[i] = UINT64_MAX;
        model->copied[i] |= (flags & Q2_REFERENCE_COPIED) != 0;
        model->plain[i] |= (flags & Q2_REFERENCE_PLAIN) != 0;
        model->packed[i] |= (flags & Q2_REFERENCE_PACKED) != 0;
    }
}

static void
compare(void)
{
    q2_tally_release(&cursor);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        const struct q2_chunk *chunk = q2_tally_chunk(tally, i >> Q2_CHUNK_BITS);
        unsigned at = i % Q2_CHUNK_CLUSTERS;
        if (!chunk) {
            cr_assert(!model->seen[i], "cluster %u has no chunk", i);
            continue;
        }
        cr_assert_eq(q2_chunk_references(chunk, at), model->references[i], "cluster %u", i);
        cr_assert_eq(q2_chunk_test(chunk->seen, at), model->seen[i], "cluster %u", i);
        cr_assert_eq(q2_chunk_test(chunk->copied, at), model->copied[i], "cluster %u", i);
        cr_assert_eq(q2_chunk_test(chunk->plain, at), model->plain[i], "cluster %u", i);
        cr_assert_eq(q2_chunk_test(chunk->packed, at), model->packed[i], "cluster %u", i);
        cr_assert_eq(q2_chunk_test(chunk->overlap, at), model->overlap[i], "cluster %u", i);
    }
}

/* ---- one add after the other ---- */

Test(tally, each_cluster_once_needs_no_counts)
{
    for (unsigned i = 0; i < CLUSTERS; i++)
        add(CLUSTERS - 1 - i, 1, 1, Q2_REFERENCE_COPIED);
    compare();
    cr_expect_null(q2_tally_chunk(tally, 1)->counts);
    cr_expect_null(q2_tally_chunk(tally, 1)->overlap);
    cr_expect_lt(budget.peak, 100 << 10, "three chunks and the tree");
}

Test(tally, all_of_a_chunk_equally_often_needs_no_counts)
{
    add(100, 50, 65537, 0);
    add(10, 20, 65537, Q2_REFERENCE_PLAIN);
    compare();
    cr_expect_null(q2_tally_chunk(tally, 0)->counts);
    cr_expect_eq(q2_tally_chunk(tally, 0)->uniform, 65537);
}

Test(tally, widens_as_far_as_it_must)
{
    static const struct {
        uint64_t add;
        unsigned bytes;
    } steps[] = {{254, 1},        {1, 2},          {65279, 2}, {1, 4}, {UINT32_MAX - 65536, 4},
                 {UINT32_MAX, 8}, {UINT64_MAX, 8}, {1, 8}};
    add(0, 2, 1, 0);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        add(1, 1, steps[i].add, 0);
        cr_expect_eq(q2_tally_chunk(tally, 0)->count_bytes, steps[i].bytes, "step %zu", i);
    }
    cr_expect_eq(model->references[1], UINT64_MAX, "saturated");
    compare();
}

/* The first references of a chunk may be more than the counts of the next would hold. */
Test(tally, keeps_a_large_uniform_number_when_a_small_one_follows)
{
    add(5, 10, 300, 0);
    add(5 + 10, 1, 1, 0);
    compare();
    add(Q2_CHUNK_CLUSTERS, 3, 70000, 0);
    add(Q2_CHUNK_CLUSTERS + 3, 1, 1, 0);
    add(Q2_CHUNK_CLUSTERS, 1, 1, 0);
    compare();
}

Test(tally, ranges_across_chunks)
{
    add(Q2_CHUNK_CLUSTERS - 1, Q2_CHUNK_CLUSTERS + 2, 1, Q2_REFERENCE_COPIED);
    add(0, CLUSTERS, 2, 0);
    add(63, 2, 1, 0);
    add(64, 0, 1, 0);
    compare();
}

Test(tally, packed_clusters_may_share)
{
    add(7, 1, 1, Q2_REFERENCE_PACKED);
    add(7, 1, 1, Q2_REFERENCE_PACKED);
    cr_expect(!model->overlap[7]);
    add(8, 1, 1, Q2_REFERENCE_PACKED);
    add(8, 1, 1, Q2_REFERENCE_COPIED); /* data where compressed data is */
    add(9, 1, 1, 0);
    add(9, 1, 1, Q2_REFERENCE_PACKED); /* and the other way round */
    cr_expect(model->overlap[8] && model->overlap[9]);
    compare();
}

Test(tally, agrees_with_an_array)
{
    static const uint64_t amounts[] = {1, 1, 1, 1, 2, 3, 21, 200, 65535, 65536, UINT32_MAX};
    static const unsigned kinds[] = {0, Q2_REFERENCE_COPIED, Q2_REFERENCE_PLAIN,
                                     Q2_REFERENCE_PACKED};
    srand(1);
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t first = (uint64_t)rand() % CLUSTERS;
        uint64_t count = (uint64_t)rand() % (rand() % 8 ? 4 : 6000);
        count = q2_min(count, CLUSTERS - first);
        /* Now and then all of a chunk alike. */
        add(first, count, amounts[(unsigned)rand() % 11], kinds[(unsigned)rand() % 4]);
        if (round % 500 == 0)
            compare();
    }
    compare();
}

/* ---- walking and marking ---- */

Test(tally, chunks_in_order)
{
    static const uint64_t numbers[] = {0, 2047, 2048, UINT64_C(1) << 22, (UINT64_C(1) << 44) - 1};
    uint64_t number = 0;
    cr_expect_null(q2_tally_next(tally, &number), "nothing yet");
    for (size_t i = 5; i-- > 0;)
        cr_assert_eq(q2_tally_add(&cursor, numbers[i] << Q2_CHUNK_BITS, 1, 1, 0, NULL), 0);
    q2_tally_release(&cursor);
    number = 0;
    for (size_t i = 0; i < 5; i++, number++) {
        const struct q2_chunk *chunk = q2_tally_next(tally, &number);
        cr_assert(chunk);
        cr_assert_eq(number, numbers[i]);
        cr_expect_eq(chunk, q2_tally_chunk(tally, number));
    }
    cr_expect_null(q2_tally_next(tally, &number));
    cr_expect_null(q2_tally_chunk(tally, 1));
    cr_expect_null(q2_tally_chunk(tally, UINT64_C(1) << 44), "no such chunk can be");
    cr_expect_null(q2_tally_chunk(tally, UINT64_MAX));
}

Test(tally, suspects)
{
    add(64, 1, 1, 0);
    q2_tally_release(&cursor);
    struct q2_chunk *chunk = q2_tally_chunk(tally, 0);
    cr_expect_eq(q2_chunk_word(chunk->suspect, 1), 0);
    cr_expect_eq(q2_tally_suspect(tally, chunk, 1, 0, NULL), 0);
    cr_expect_null(chunk->suspect, "nothing to mark");
    cr_expect_eq(q2_tally_suspect(tally, chunk, 1, 5, NULL), 0);
    cr_expect_eq(q2_tally_suspect(tally, chunk, 1, 8, NULL), 0);
    cr_expect_eq(q2_chunk_word(chunk->suspect, 1), 13);
    cr_expect(q2_chunk_test(chunk->suspect, 66));
    cr_expect(!q2_chunk_test(chunk->suspect, 65));
}

/* ---- memory ---- */

Test(tally, a_spent_budget_is_an_error_and_nothing_leaks)
{
    int rc = 0;
    struct q2_error err = {0};
    for (uint64_t limit = 16 << 10; limit < 160 << 10; limit += 1 << 10) {
        struct q2_budget small;
        struct q2_tally *other;
        struct q2_tally_cursor at;
        q2_budget_init(&small, limit);
        rc = q2_tally_new(&small, &other, &err);
        if (rc < 0) {
            cr_expect_eq(small.used, 0);
            continue;
        }
        q2_tally_cursor_init(&at, other);
        rc = q2_tally_add(&at, 0, 2, 1, Q2_REFERENCE_PLAIN, &err);
        rc = rc ? rc : q2_tally_add(&at, 0, 1, 70000, Q2_REFERENCE_PACKED, &err);
        cr_expect(rc == 0 || rc == Q2_ERR_BUDGET);
        q2_tally_release(&at);
        q2_tally_free(other);
        cr_expect_eq(small.used, 0);
        cr_expect_leq(small.peak, limit);
    }
    cr_expect_eq(rc, 0, "the last one was enough");
    q2_tally_free(NULL);
}

/* ---- threads ---- */

static void *
add_many(void *data)
{
    unsigned seed = *(unsigned *)data;
    struct q2_tally_cursor own;
    q2_tally_cursor_init(&own, tally);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t first = (uint64_t)rand_r(&seed) % (CLUSTERS - 3);
        if (q2_tally_add(&own, first, 1 + first % 3, 1, 0, NULL) < 0)
            return data;
        if (i % 16 == 0)
            q2_tally_release(&own);
    }
    q2_tally_release(&own);
    return NULL;
}

Test(tally, threads)
{
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    for (unsigned t = 0; t < THREADS; t++) {
        seeds[t] = t + 1;
        cr_assert_eq(pthread_create(&threads[t], NULL, add_many, &seeds[t]), 0);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        void *failed = NULL;
        pthread_join(threads[t], &failed);
        cr_expect_null(failed);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        unsigned seed = t + 1;
        for (unsigned i = 0; i < 20000; i++) {
            uint64_t first = (uint64_t)rand_r(&seed) % (CLUSTERS - 3);
            for (uint64_t c = first; c < first + 1 + first % 3; c++) {
                model->overlap[c] |= model->seen[c];
                model->seen[c] = true;
                model->references[c]++;
            }
        }
    }
    compare();
}
