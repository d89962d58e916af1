/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/refcounts.h"

#include "checker/window.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/base/parallel.h"
#include "core/format/refcount.h"

#include <string.h>

enum {
    READ_BYTES = 64 << 10,  /* of a refcount block that are read at once */
    TABLE_BYTES = 64 << 10, /* of the refcount table that are read at once */
    BLOCKS_PER_TURN_BYTES = 1 << 20,
};

/* ---- the refcount table ---- */

static int
allocate_table(struct q2_check *check, struct q2_error *err)
{
    uint64_t bytes = (uint64_t)check->header.refcount_table_clusters
                     << check->geometry.cluster_bits;
    void *table;
    int rc = q2_budget_calloc(&check->budget, bytes / 8, 8, "refcount table", &table, err);
    if (rc < 0)
        return rc;
    check->refcount_table = table;
    check->refcount_entries = bytes / 8;
    return 0;
}

/* Read entries [first, end). Where they cannot be read, they are unknown, and so is what blocks
 * they refer to. */
static bool
read_part(struct q2_check *check, uint64_t first, uint64_t end)
{
    uint64_t at = check->header.refcount_table_offset + first * 8, length = (end - first) * 8;
    bool read =
        q2_file_read_padded(check->file, at, &check->refcount_table[first], length, NULL) == 0;
    for (uint64_t i = first; i < end; i++)
        check->refcount_table[i] =
            read ? q2_load_be64(&check->refcount_table[i]) : Q2_REFCOUNT_BLOCK_UNKNOWN;
    if (read)
        return true;
    atomic_store(&check->unread, true);
    q2_findings_add(&check->findings,
                    &(struct q2_finding){.problem = Q2_PROBLEM_REFCOUNT_TABLE_UNREADABLE,
                                         .has = Q2_HAS_HOST,
                                         .host_offset = at,
                                         .host_length = length});
    return false;
}

/* Hold an entry against the rules and count the block that it refers to. */
static int
take_entry(struct q2_check *check, uint64_t index, struct q2_tally_cursor *cursor,
           struct q2_error *err)
{
    struct q2_sink sink = q2_findings_sink(&check->findings);
    uint64_t *entry = &check->refcount_table[index];
    uint64_t at = check->header.refcount_table_offset + index * 8;
    if (*entry == 0)
        return 0;
    if (q2_refcount_entry_validate(&check->geometry, *entry, at, &sink)) {
        *entry &= ~Q2_REFCOUNT_TABLE_RESERVED;
        return q2_tally_add(cursor, q2_cluster_of(check, *entry), 1, 1, 0, err);
    }
    /* Past the end of the file all is zero, and software takes it for that. */
    bool aligned = (*entry & ~Q2_REFCOUNT_TABLE_RESERVED & (check->geometry.cluster_size - 1)) == 0;
    *entry = aligned ? 0 : Q2_REFCOUNT_BLOCK_UNKNOWN;
    return 0;
}

uint64_t
q2_refcount_block(const struct q2_check *check, uint64_t index)
{
    return index < check->refcount_entries ? check->refcount_table[index] : 0;
}

int
q2_pass_refcount_table(struct q2_check *check, struct q2_error *err)
{
    int rc = allocate_table(check, err);
    if (rc < 0)
        return rc;
    struct q2_owner owner = {.kind = Q2_OWNER_REFCOUNT_TABLE};
    rc = q2_check_add_region(check, &owner, check->header.refcount_table_offset,
                             check->refcount_entries * 8, err);

    struct q2_tally_cursor cursor;
    q2_tally_cursor_init(&cursor, check->tally);
    for (uint64_t first = 0, end; first < check->refcount_entries && rc == 0; first = end) {
        end = q2_min(first + TABLE_BYTES / 8, check->refcount_entries);
        if (!read_part(check, first, end))
            continue;
        for (uint64_t i = first; i < end && rc == 0; i++)
            rc = take_entry(check, i, &cursor, err);
    }
    q2_tally_release(&cursor);
    return rc;
}

/* ---- reading refcounts ---- */

int
q2_refcount_reader_init(struct q2_refcount_reader *reader, struct q2_check *check,
                        struct q2_error *err)
{
    *reader = (struct q2_refcount_reader){.check = check};
    void *buffer;
    uint64_t size = q2_min(READ_BYTES, check->geometry.cluster_size);
    int rc = q2_budget_calloc(&check->budget, size, 1, "refcount block", &buffer, err);
    if (rc == 0)
        reader->buffer = buffer;
    return rc;
}

void
q2_refcount_reader_destroy(struct q2_refcount_reader *reader)
{
    if (!reader->check)
        return;
    uint64_t size = q2_min(READ_BYTES, reader->check->geometry.cluster_size);
    q2_budget_free(&reader->check->budget, reader->buffer, size, 1);
    *reader = (struct q2_refcount_reader){0};
}

void
q2_refcount_load(struct q2_refcount_reader *reader, uint64_t cluster)
{
    struct q2_check *check = reader->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint64_t bytes = q2_min(READ_BYTES, geometry->cluster_size);
    unsigned order = geometry->refcount_order;

    /* Parts are powers of two long, so that none crosses the end of a block. */
    reader->count = bytes * 8 >> order;
    reader->first = cluster & ~(reader->count - 1);
    uint64_t block = q2_refcount_block(check, cluster >> geometry->refcount_block_bits);
    uint64_t inside = reader->first & ((UINT64_C(1) << geometry->refcount_block_bits) - 1);
    reader->unknown = block == Q2_REFCOUNT_BLOCK_UNKNOWN ? Q2_ERR_FORMAT : 0;
    reader->zero = block == 0 || reader->unknown;
    if (reader->zero)
        return;
    reader->unknown = q2_read_table(check, block, (inside << order) / 8, reader->buffer, bytes);
    reader->zero = reader->unknown < 0;
}

uint64_t
q2_refcount_of(struct q2_refcount_reader *reader, uint64_t cluster)
{
    if (cluster - reader->first >= reader->count)
        q2_refcount_load(reader, cluster);
    return reader->zero ? 0
                        : q2_refcount_get(reader->buffer, reader->check->geometry.refcount_order,
                                          cluster - reader->first);
}

/* ---- comparing, 64 clusters at a time ---- */

/* Whether 64 refcounts, as words of 8 bytes, are all the same. */
static bool
all_equal(const uint8_t *words, unsigned order, uint64_t expected)
{
    uint64_t differs = 0;
    for (unsigned w = 0; w < 1U << order; w++) {
        uint64_t found;
        memcpy(&found, words + (size_t)w * 8, 8);
        differs |= found ^ expected;
    }
    return differs == 0;
}

uint64_t
q2_refcounts_equal(const struct q2_refcount_reader *reader, uint64_t cluster, uint64_t value)
{
    unsigned order = reader->check->geometry.refcount_order;
    uint64_t index = cluster - reader->first, most = q2_refcount_max(order), equal = 0;
    if (reader->zero)
        return value ? 0 : UINT64_MAX;
    if (value > most)
        return 0;
    /* Whatever their width, equal refcounts are a repeated pattern of 8 bytes. */
    uint64_t expected = htobe64(value * (UINT64_MAX / most));
    if (all_equal(reader->buffer + (index << order) / 8, order, expected))
        return UINT64_MAX;
    for (unsigned i = 0; i < 64; i++)
        equal |= (uint64_t)(q2_refcount_get(reader->buffer, order, index + i) == value) << i;
    return equal;
}

/* The same as q2_refcounts_contradict where references differ from cluster to cluster. */
static uint64_t
contradict_counts(const struct q2_refcount_reader *reader, uint64_t cluster,
                  const struct q2_chunk *chunk)
{
    unsigned order = reader->check->geometry.refcount_order;
    unsigned first = (unsigned)(cluster % Q2_CHUNK_CLUSTERS);
    uint64_t odd = 0;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t refcount = q2_refcount_get(reader->buffer, order, cluster - reader->first + i);
        bool agrees = q2_chunk_references(chunk, first + i) == refcount &&
                      (refcount == 0 || !q2_copied_wrong(chunk, first + i, refcount));
        odd |= (uint64_t)!agrees << i;
    }
    return odd;
}

uint64_t
q2_refcounts_contradict(const struct q2_refcount_reader *reader, uint64_t cluster,
                        const struct q2_chunk *chunk)
{
    unsigned word = (unsigned)(cluster % Q2_CHUNK_CLUSTERS / 64);
    uint64_t seen = chunk ? chunk->seen[word] : 0;
    if (reader->zero)
        return seen;
    if (seen == 0)
        return ~q2_refcounts_equal(reader, cluster, 0);
    if (chunk->counts)
        return contradict_counts(reader, cluster, chunk);

    uint64_t equal = q2_refcounts_equal(reader, cluster, chunk->uniform), unseen = ~seen;
    uint64_t copied_wrong =
        chunk->uniform == 1 ? q2_chunk_word(chunk->plain, word) : chunk->copied[word];
    uint64_t odd = (seen & (~equal | copied_wrong)) | (unseen & equal);
    /* Of the others without references, those are fine whose refcount is zero. */
    if (unseen & ~equal)
        odd |= unseen & ~q2_refcounts_equal(reader, cluster, 0);
    return odd;
}

/* Whether the part of a block in the reader agrees with the tally. */
static bool
part_agrees(const struct q2_refcount_reader *reader)
{
    const struct q2_tally *tally = reader->check->tally;
    const struct q2_chunk *chunk = NULL;
    for (uint64_t i = 0; i < reader->count; i += 64) {
        uint64_t cluster = reader->first + i;
        if (i == 0 || cluster % Q2_CHUNK_CLUSTERS == 0)
            chunk = q2_tally_chunk(tally, cluster >> Q2_CHUNK_BITS);
        if (q2_refcounts_contradict(reader, cluster, chunk))
            return false;
    }
    return true;
}

/* ---- all blocks, in parallel ---- */

struct compare {
    struct q2_check *check;
    struct q2_refcount_reader *readers;
    struct q2_disagreement *out;
    uint64_t per_turn; /* refcount table entries */
    pthread_mutex_t lock;
};

static void
disagree(struct compare *compare, uint64_t index)
{
    pthread_mutex_lock(&compare->lock);
    q2_bit_set(compare->out->blocks, index);
    compare->out->any = true;
    pthread_mutex_unlock(&compare->lock);
}

/* Whether anything is referred to in the clusters [first, end). */
static bool
any_reference(const struct q2_check *check, uint64_t first, uint64_t end)
{
    uint64_t number = first >> Q2_CHUNK_BITS;
    const struct q2_chunk *chunk;
    for (; (chunk = q2_tally_next(check->tally, &number)) != NULL; number++) {
        uint64_t base = number << Q2_CHUNK_BITS;
        if (base >= end)
            return false;
        for (unsigned w = 0; w < Q2_CHUNK_WORDS; w++) {
            uint64_t cluster = base + (uint64_t)w * 64;
            if (cluster >= first && cluster < end && chunk->seen[w])
                return true;
        }
    }
    return false;
}

static bool
block_agrees(struct compare *compare, unsigned worker, uint64_t index)
{
    struct q2_check *check = compare->check;
    struct q2_refcount_reader *reader = &compare->readers[worker];
    unsigned bits = check->geometry.refcount_block_bits;
    uint64_t first = index << bits, end = first + (UINT64_C(1) << bits);
    uint64_t block = q2_refcount_block(check, index);
    if (block == 0)
        return !any_reference(check, first, end);
    if (block == Q2_REFCOUNT_BLOCK_UNKNOWN)
        return true;
    for (uint64_t cluster = first; cluster < end; cluster += reader->count) {
        q2_refcount_load(reader, cluster);
        if (reader->unknown < 0 || !part_agrees(reader))
            return false;
    }
    return true;
}

static int
turn(void *data, unsigned worker, uint64_t number, struct q2_error *err)
{
    struct compare *compare = data;
    uint64_t entries = compare->check->refcount_entries;
    uint64_t first = number * compare->per_turn;
    (void)err;
    for (uint64_t i = first; i < q2_min(first + compare->per_turn, entries); i++)
        if (!block_agrees(compare, worker, i))
            disagree(compare, i);
    return 0;
}

static void
progress(void *data, uint64_t done)
{
    struct compare *compare = data;
    q2_check_progress(compare->check, done);
}

static int
run(struct compare *compare, struct q2_error *err)
{
    struct q2_check *check = compare->check;
    struct q2_loop loop = {.threads = check->threads,
                           .turns = (check->refcount_entries + compare->per_turn - 1) /
                                    compare->per_turn,
                           .turn = turn,
                           .progress = progress,
                           .data = compare};
    for (unsigned i = 0; i < check->threads; i++) {
        int rc = q2_refcount_reader_init(&compare->readers[i], check, err);
        if (rc < 0)
            return rc;
    }
    q2_check_phase(check, "refcounts", loop.turns,
                   compare->per_turn << check->geometry.cluster_bits);
    int rc = q2_loop_run(&loop, err);
    uint64_t covered = check->refcount_entries << check->geometry.refcount_block_bits;
    if (rc == 0 && any_reference(check, covered, UINT64_MAX))
        disagree(compare, check->refcount_entries);
    return rc;
}

int
q2_refcounts_compare(struct q2_check *check, struct q2_disagreement *ret_disagreement,
                     struct q2_error *err)
{
    struct compare compare = {
        .check = check,
        .out = ret_disagreement,
        .per_turn = q2_max(1, BLOCKS_PER_TURN_BYTES >> check->geometry.cluster_bits),
        .lock = PTHREAD_MUTEX_INITIALIZER,
    };
    void *blocks, *readers;
    ret_disagreement->any = false;
    ret_disagreement->words = check->refcount_entries / 64 + 1;
    int rc = q2_budget_calloc(&check->budget, ret_disagreement->words, 8, "list of odd blocks",
                              &blocks, err);
    if (rc < 0)
        return rc;
    ret_disagreement->blocks = blocks;
    rc = q2_budget_calloc(&check->budget, check->threads, sizeof *compare.readers,
                          "comparing refcounts", &readers, err);
    if (rc == 0) {
        compare.readers = readers;
        rc = run(&compare, err);
        for (unsigned i = 0; i < check->threads; i++)
            q2_refcount_reader_destroy(&compare.readers[i]);
        q2_budget_free(&check->budget, readers, check->threads, sizeof *compare.readers);
    }
    if (rc < 0) {
        q2_budget_free(&check->budget, blocks, ret_disagreement->words, 8);
        ret_disagreement->blocks = NULL;
    }
    return rc;
}
