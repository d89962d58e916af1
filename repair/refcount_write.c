/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Blocks one at a time, 64 refcounts at a time: read, held against what is counted, filled, and
 * written where that changes anything. Where 64 clusters are referred to equally often, which is
 * nearly everywhere, no refcount is looked at by itself. */

#include "repair/refcount_plan.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/refcount.h"

#include <string.h>

enum {
    HEADER_TABLE_AT = 48,     /* refcount_table_offset, and refcount_table_clusters behind it */
    HEADER_TABLE_LENGTH = 12, /* bytes */
    SLACK = 64,               /* references that may be lost to damage, and more hardly ever are */
};

/* ---- 64 clusters ---- */

uint64_t
q2_rebuild_equal(const struct q2_rebuild *rebuild, uint64_t first, uint64_t cluster,
                 uint64_t refcount)
{
    const struct q2_refcount_reader reader = {
        .check = rebuild->scene->check,
        .buffer = rebuild->recorded,
        .first = first,
        .count = UINT64_C(1) << rebuild->geometry->refcount_block_bits,
    };
    return q2_refcounts_equal(&reader, cluster, refcount);
}

/* References to 64 clusters, of which those in `seen` have any. */
struct word {
    uint64_t seen;
    uint64_t uniform; /* number for each of them; 0: they differ */
};

static struct word
word_of(const struct q2_rebuild *rebuild, uint64_t cluster)
{
    uint64_t number = cluster >> Q2_CHUNK_BITS;
    unsigned w = (unsigned)(cluster % Q2_CHUNK_CLUSTERS / 64);
    const struct q2_chunk *chunk = q2_tally_chunk(rebuild->scene->check->tally, number);
    const struct q2_chunk *added = q2_tally_chunk(rebuild->added, number);
    const struct q2_chunk *dropped = q2_tally_chunk(rebuild->dropped, number);
    struct word word = {.seen = chunk ? chunk->seen[w] : 0};
    if ((!added || !added->seen[w]) && (!dropped || !dropped->seen[w])) {
        word.uniform = chunk && !chunk->counts ? chunk->uniform : 0;
        return word;
    }
    word.seen = 0;
    for (unsigned i = 0; i < 64; i++)
        word.seen |= (uint64_t)(q2_rebuild_references(rebuild, cluster + i) > 0) << i;
    return word;
}

uint64_t
q2_rebuild_seen(const struct q2_rebuild *rebuild, uint64_t cluster)
{
    return word_of(rebuild, cluster).seen;
}

/* Of 64 clusters, those in use that the block in `recorded` counts about right: not too low, and
 * not much too high, as lost snapshots would leave it. */
static unsigned
agreeing(const struct q2_rebuild *rebuild, uint64_t first, uint64_t cluster,
         const struct word *word)
{
    unsigned order = rebuild->geometry->refcount_order, count = 0;
    uint64_t most = q2_refcount_max(order), slack = q2_min(SLACK, most / 4), left = word->seen;
    if (word->uniform) {
        uint64_t equal = q2_rebuild_equal(rebuild, first, cluster, q2_min(word->uniform, most));
        count = (unsigned)__builtin_popcountll(equal & left);
        left &= ~equal;
    }
    for (; left; left &= left - 1) {
        uint64_t at = cluster + (unsigned)__builtin_ctzll(left);
        uint64_t references = q2_min(q2_rebuild_references(rebuild, at), most);
        uint64_t refcount = q2_refcount_get(rebuild->recorded, order, at - first);
        count += refcount >= references && refcount - references <= slack;
    }
    return count;
}

static bool
is_zero(const uint8_t *bytes, uint64_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

void
q2_rebuild_look(struct q2_rebuild *rebuild, uint64_t index, uint64_t offset,
                struct q2_block_look *ret_look)
{
    const struct q2_geometry *geometry = rebuild->geometry;
    struct q2_block_look look = {0};
    uint64_t first = index << geometry->refcount_block_bits, agree = 0;
    uint64_t end = first + (UINT64_C(1) << geometry->refcount_block_bits);
    look.readable = q2_file_read_padded(rebuild->scene->file, offset, rebuild->recorded,
                                        geometry->cluster_size, NULL) == 0;
    if (!look.readable)
        memset(rebuild->recorded, 0, geometry->cluster_size);
    look.zero = is_zero(rebuild->recorded, geometry->cluster_size);
    for (uint64_t cluster = first; cluster < end && !look.zero; cluster += 64) {
        struct word word = word_of(rebuild, cluster);
        look.referenced += (unsigned)__builtin_popcountll(word.seen);
        agree += word.seen ? agreeing(rebuild, first, cluster, &word) : 0;
    }
    /* Of single bits, half agree by chance. */
    look.credible =
        look.readable && (geometry->refcount_order == 0 ? agree * 4 >= look.referenced * 3
                                                        : agree * 2 >= look.referenced);
    *ret_look = look;
}

/* ---- what a block is to hold ---- */

static uint64_t
wanted_refcount(const struct q2_rebuild *rebuild, uint64_t cluster, uint64_t recorded)
{
    uint64_t most = q2_refcount_max(rebuild->geometry->refcount_order);
    uint64_t references = q2_min(q2_rebuild_references(rebuild, cluster), most);
    if (references && !rebuild->scene->keep_high && !q2_scene_kept(rebuild->scene, cluster))
        return references;
    if (q2_rebuild_dropped(rebuild, cluster) && !q2_scene_kept(rebuild->scene, cluster))
        return references;
    /* Nothing was in use behind the end of the file. */
    return cluster < rebuild->geometry->file_clusters ? q2_max(references, recorded) : references;
}

bool
q2_rebuild_stored(struct q2_rebuild *rebuild, uint64_t cluster)
{
    const struct q2_geometry *geometry = rebuild->geometry;
    if (cluster >= geometry->file_clusters || q2_rebuild_dropped(rebuild, cluster))
        return false;
    uint64_t offset = cluster << geometry->cluster_bits;
    uint64_t end = q2_min(offset + geometry->cluster_size, geometry->file_size);
    if (offset < rebuild->extent_first || offset >= rebuild->extent_end) {
        rebuild->extent_first = offset;
        if (q2_file_extent(rebuild->scene->file, offset, &rebuild->extent_data,
                           &rebuild->extent_end, NULL) < 0 ||
            rebuild->extent_end <= offset) {
            rebuild->extent_data = true;
            rebuild->extent_end = end;
        }
    }
    return rebuild->extent_data || rebuild->extent_end < end;
}

/* What nothing refers to keeps what is recorded: whether it is a leak is another question. Where
 * nothing is recorded, and damage is left that may explain it, all counts that is stored: otherwise
 * nobody could see any more that something is lost. In any case, what lost tables tell of counts.
 */
static void
fill_word(struct q2_rebuild *rebuild, uint64_t first, uint64_t cluster, bool recorded)
{
    unsigned order = rebuild->geometry->refcount_order;
    uint64_t most = q2_refcount_max(order);
    uint8_t *to = rebuild->wanted + ((cluster - first) << order) / 8;
    struct word word = word_of(rebuild, cluster);
    bool kept = rebuild->scene->keep_high || rebuild->scene->keep_all || rebuild->scene->keep;
    bool lost = !recorded && rebuild->keep_stored;
    uint64_t w = cluster / 64, found = 0;
    if (!recorded && rebuild->found && w < rebuild->found_words)
        found = rebuild->found[rebuild->found_words + w];
    if (!recorded && !lost && !found && word.seen == 0) {
        memset(to, 0, (size_t)8 << order);
        return;
    }
    if (word.seen == UINT64_MAX && word.uniform && !(recorded && kept)) {
        uint64_t pattern = htobe64(q2_min(word.uniform, most) * (UINT64_MAX / most));
        for (unsigned k = 0; k < 1U << order; k++)
            memcpy(to + (size_t)k * 8, &pattern, 8);
        return;
    }
    for (unsigned i = 0; i < 64; i++) {
        uint64_t at = cluster + i - first;
        uint64_t old = recorded
                           ? q2_refcount_get(rebuild->recorded, order, at)
                           : (found >> i & 1) || (lost && q2_rebuild_stored(rebuild, cluster + i));
        q2_refcount_set(rebuild->wanted, order, at, wanted_refcount(rebuild, cluster + i, old));
    }
}

static void
fill_block(struct q2_rebuild *rebuild, uint64_t index)
{
    unsigned bits = rebuild->geometry->refcount_block_bits;
    uint64_t first = index << bits, end = first + (UINT64_C(1) << bits);
    struct q2_block_look look = {0};
    if (rebuild->old[index])
        q2_rebuild_look(rebuild, index, rebuild->old[index], &look);
    for (uint64_t cluster = first; cluster < end; cluster += 64)
        fill_word(rebuild, first, cluster, look.credible && !look.zero);
}

static int
write_block(struct q2_rebuild *rebuild, uint64_t index, struct q2_error *err)
{
    uint64_t size = rebuild->geometry->cluster_size, at = rebuild->table[index], file_size;
    int rc = q2_file_size(rebuild->scene->file, &file_size, err);
    if (rc < 0)
        return rc;
    fill_block(rebuild, index);
    if (rebuild->old[index] == at && memcmp(rebuild->recorded, rebuild->wanted, size) == 0)
        return 0;
    /* Where the last cluster is cut short, the file need not grow for zeros. */
    if (at < file_size && size > file_size - at &&
        is_zero(rebuild->wanted + (file_size - at), size - (file_size - at)))
        size = file_size - at;
    return q2_scene_write(rebuild->scene, Q2_OWNER_REFCOUNT_BLOCK, at, rebuild->wanted, size, err);
}

/* ---- the table ---- */

/* One cluster of the table. In place, only words that change are written. */
static int
write_table_part(struct q2_rebuild *rebuild, uint64_t part, bool in_place, struct q2_error *err)
{
    uint64_t size = rebuild->geometry->cluster_size, per = size / 8, first = 0, end = per;
    uint64_t at = rebuild->table_offset + part * size;
    for (uint64_t i = 0; i < per; i++) {
        uint64_t index = part * per + i;
        q2_store_be64(rebuild->wanted + i * 8,
                      index < rebuild->entries ? rebuild->table[index] : 0);
    }
    if (in_place) {
        int rc = q2_file_read_padded(rebuild->scene->file, at, rebuild->recorded, size, err);
        if (rc < 0)
            return rc;
        while (first < per &&
               !memcmp(rebuild->recorded + first * 8, rebuild->wanted + first * 8, 8))
            first++;
        while (end > first &&
               !memcmp(rebuild->recorded + end * 8 - 8, rebuild->wanted + end * 8 - 8, 8))
            end--;
    }
    return first == end ? 0
                        : q2_scene_write(rebuild->scene, Q2_OWNER_REFCOUNT_TABLE, at + first * 8,
                                         rebuild->wanted + first * 8, (end - first) * 8, err);
}

static int
write_table(struct q2_rebuild *rebuild, struct q2_error *err)
{
    const struct q2_header *header = &rebuild->scene->check->header;
    unsigned bits = rebuild->geometry->cluster_bits;
    uint64_t clusters = rebuild->usable * 8 >> bits;
    bool in_place = rebuild->table_offset == header->refcount_table_offset;
    uint8_t bytes[HEADER_TABLE_LENGTH];
    for (uint64_t part = 0; part < clusters; part++) {
        int rc = write_table_part(rebuild, part, in_place, err);
        if (rc < 0)
            return rc;
    }
    if (in_place && clusters == header->refcount_table_clusters)
        return 0;
    q2_store_be64(bytes, rebuild->table_offset);
    q2_store_be32(bytes + 8, (uint32_t)clusters);
    return q2_scene_write(rebuild->scene, Q2_OWNER_HEADER, HEADER_TABLE_AT, bytes, sizeof bytes,
                          err);
}

int
q2_rebuild_write(struct q2_rebuild *rebuild, struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; i < rebuild->entries && rc == 0; i++)
        if (rebuild->table[i])
            rc = write_block(rebuild, i, err);
    return rc == 0 && rebuild->moved ? write_table(rebuild, err) : rc;
}
