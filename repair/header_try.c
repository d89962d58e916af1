/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_try.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/format/entry.h"
#include "core/format/extension.h"
#include "core/format/refcount.h"
#include "core/format/snapshot.h"
#include "repair/header_disk.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_AREA = 1 << Q2_MAX_CLUSTER_BITS,
    SECTOR = 512,    /* bytes */
    LOOK_TABLES = 6, /* L2 tables, and refcount blocks */
    LOOK_COMPRESSED = 3,
    LOOK_CLUSTERS = 32,
    ODD = 4,           /* what is allowed, but not what software does */
    RULE = 16,         /* what a broken rule of the header weighs */
    MAX_ENTRIES = 128, /* of the snapshot table */
};

/* What cannot be read counts as zeros, sector by sector: where that is the header, there is nothing
 * to start from, and anywhere else it hardly matters. */
static void
read_area(struct q2_trial *trial)
{
    struct q2_file *file = trial->scene->file;
    struct q2_error ignored;
    if (q2_file_read_padded(file, 0, trial->area, trial->length, &ignored) == 0)
        return;
    for (uint64_t at = 0; at < trial->length; at += SECTOR) {
        size_t length = (size_t)q2_min(SECTOR, trial->length - at);
        if (q2_file_read_padded(file, at, trial->area + at, length, &ignored) < 0)
            memset(trial->area + at, 0, length);
    }
}

int
q2_trial_init(struct q2_trial *trial, struct q2_scene *scene, struct q2_error *err)
{
    *trial = (struct q2_trial){.scene = scene};
    int rc = q2_file_size(scene->file, &trial->file_size, err);
    if (rc < 0)
        return rc;
    trial->length = q2_min(trial->file_size, MAX_AREA);
    trial->capacity = q2_max(trial->length, Q2_HEADER_KNOWN_LENGTH + Q2_EXTENSION_HEADER_LENGTH);
    void *memory;
    rc = q2_budget_calloc(&scene->budget, trial->capacity, 1, "the header area", &memory, err);
    if (rc < 0)
        return rc;
    trial->area = memory;
    read_area(trial);
    return 0;
}

void
q2_trial_destroy(struct q2_trial *trial)
{
    if (trial->area)
        q2_budget_free(&trial->scene->budget, trial->area, trial->capacity, 1);
    trial->area = NULL;
    for (unsigned i = 0; i < Q2_TRIAL_DECODERS; i++)
        q2_decoder_free(Q2_STEAL(trial->decoders[i]));
}

void
q2_trial_identity(const struct q2_trial *trial, struct q2_candidate *ret_candidate)
{
    *ret_candidate = (struct q2_candidate){.flip_mask = 0};
    memcpy(ret_candidate->bytes, trial->area, sizeof ret_candidate->bytes);
}

/* ---- the glance ---- */

struct glance {
    struct q2_trial *trial;
    struct q2_candidate *candidate;
    struct q2_header header;
    struct q2_geometry geometry;
    struct q2_extensions extensions;
    unsigned usable;
    uint64_t faults;        /* of the rule at hand */
    uint64_t block_first;   /* cluster whose refcount is the first in `block` */
    bool has_block;         /* what was read of it is in the trial */
    unsigned decoded;       /* compressed clusters */
    bool has_vm_state;      /* in one of them */
    uint64_t snapshot_size; /* of the disk in the last of them, bytes; 0: unknown */
    uint64_t most;          /* contradictions that matter */
};

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

/* What a field that tells of the image's life, rather than its form, breaks says nothing. */
static void
count_rule(void *data, const struct q2_violation *violation)
{
    switch (violation->problem) {
    case Q2_PROBLEM_HEADER_DIRTY:
    case Q2_PROBLEM_HEADER_CORRUPT:
    case Q2_PROBLEM_HEADER_COMPATIBLE_UNKNOWN:
    case Q2_PROBLEM_HEADER_AUTOCLEAR_UNKNOWN:
    case Q2_PROBLEM_EXTENSION_DATA_FILE_MISSING:
    case Q2_PROBLEM_EXTENSION_BITMAPS_STALE:
        return;
    case Q2_PROBLEM_HEADER_SIZE_UNALIGNED:
        *(uint64_t *)data += ODD;
        return;
    case Q2_PROBLEM_EXTENSION_UNKNOWN:
    case Q2_PROBLEM_HEADER_UNKNOWN_FIELDS:
        ++*(uint64_t *)data;
        return;
    default:
        *(uint64_t *)data += RULE;
    }
}

static void
judge(struct glance *g, bool good, uint64_t weight)
{
    *(good ? &g->candidate->good : &g->candidate->bad) += weight;
}

static bool
read_part(const struct glance *g, uint64_t offset, uint8_t *buffer, size_t length)
{
    return q2_range_inside(offset, 1, g->trial->file_size) &&
           q2_file_read_padded(g->trial->scene->file, offset, buffer, length, NULL) == 0;
}

/* The refcount of a cluster against what it should be, where the part of the block that was read
 * has it. 0 for `expected`: anything but 0. */
static void
judge_refcount(struct glance *g, uint64_t offset, uint64_t expected, uint64_t weight)
{
    uint64_t cluster = offset >> g->geometry.cluster_bits;
    uint64_t count = (uint64_t)Q2_TRIAL_PART * 8 >> g->geometry.refcount_order;
    if (!g->has_block || cluster < g->block_first || cluster - g->block_first >= count)
        return;
    uint64_t index = cluster - g->block_first;
    if (index >> g->geometry.refcount_block_bits)
        return;
    uint64_t got = q2_refcount_get(g->trial->block, g->geometry.refcount_order, index);
    judge(g, expected ? got == expected : got != 0, weight);
}

/* The clusters of the refcount table behind the first: a table that claims too many of them claims
 * what belongs to others. */
static void
glance_at_table_end(struct glance *g)
{
    uint8_t part[512];
    const struct q2_sink sink = {.report = count_fault, .data = &g->faults, .wordless = true};
    uint64_t count = q2_min(g->header.refcount_table_clusters, LOOK_CLUSTERS);
    for (uint64_t i = 1; i < count; i++) {
        uint64_t at = g->header.refcount_table_offset + (i << g->header.cluster_bits);
        bool good = true;
        if (!read_part(g, at, part, sizeof part))
            continue;
        for (size_t entry = 0; entry < sizeof part; entry += 8) {
            uint64_t raw = q2_load_be64(part + entry);
            g->faults = 0;
            good &=
                !raw || (q2_refcount_entry_validate(&g->geometry, raw, 0, &sink) && g->faults == 0);
        }
        judge(g, good, 1);
    }
}

static void
glance_at_refcounts(struct glance *g)
{
    uint8_t *table = g->trial->part;
    uint64_t bytes = (uint64_t)g->header.refcount_table_clusters << g->header.cluster_bits;
    size_t length = (size_t)q2_min(bytes, Q2_TRIAL_PART);
    const struct q2_sink sink = {.report = count_fault, .data = &g->faults, .wordless = true};
    if (!read_part(g, g->header.refcount_table_offset, table, length))
        return;
    for (size_t i = 0; i < length; i += 8) {
        uint64_t raw = q2_load_be64(table + i);
        if (raw)
            judge(g, q2_refcount_entry_validate(&g->geometry, raw, 0, &sink), 1);
    }
    uint64_t first = q2_load_be64(table) & ~Q2_REFCOUNT_TABLE_RESERVED;
    memset(g->trial->block, 0, Q2_TRIAL_PART);
    g->has_block = first && (first & (g->geometry.cluster_size - 1)) == 0 &&
                   read_part(g, first, g->trial->block,
                             (size_t)q2_min(Q2_TRIAL_PART, g->geometry.cluster_size));
    /* The table covers the start of the file, where there is always something. */
    judge(g, g->has_block, 4);
    judge_refcount(g, 0, 1, 4);
    judge_refcount(g, g->header.refcount_table_offset, 1, 4);
    judge_refcount(g, first, 1, 4);
    glance_at_table_end(g);
}

/* Whether a compressed cluster is one by this header. */
static void
glance_at_compressed(struct glance *g, uint64_t raw)
{
    struct q2_compressed_range range = q2_compressed_decode(&g->geometry, raw);
    size_t size = (size_t)g->geometry.cluster_size, used;
    enum q2_compression type = g->header.compression_type;
    Q2_AUTOFREE uint8_t *packed = malloc((size_t)range.length);
    Q2_AUTOFREE uint8_t *plain = malloc(size);
    if (g->decoded >= LOOK_COMPRESSED || !packed || !plain ||
        !read_part(g, range.offset, packed, (size_t)range.length))
        return;
    g->decoded++;
    if (type > Q2_COMPRESSION_ZSTD)
        return;
    struct q2_decoder **decoder = &g->trial->decoders[type];
    if (!*decoder && q2_decoder_new(type, decoder, NULL) < 0)
        return;
    judge(g, q2_decoder_run(*decoder, packed, (size_t)range.length, plain, size, &used, NULL) == 0,
          8);
}

/* Entries of an L2 table, and whether those with the COPIED flag are counted once. */
static void
glance_at_l2(struct glance *g, uint64_t offset)
{
    uint8_t *table = g->trial->part;
    size_t length = (size_t)q2_min(Q2_TRIAL_PART, g->geometry.cluster_size);
    const struct q2_sink sink = {.report = count_fault, .data = &g->faults, .wordless = true};
    uint64_t good = 0, bad = 0;
    if (!read_part(g, offset, table, length))
        return;
    for (uint64_t i = 0; i < length / g->geometry.l2_entry_size; i++) {
        struct q2_l2_entry entry = q2_l2_load(&g->geometry, table, i);
        if (entry.raw == 0 && entry.bitmap == 0)
            continue;
        g->faults = 0;
        bool readable = q2_l2_entry_validate(&g->geometry, &entry, 0, 0, &sink);
        *(readable && g->faults == 0 ? &good : &bad) += 1;
        uint64_t host = q2_entry_offset(entry.raw);
        if (readable && host && !(entry.raw & Q2_ENTRY_COMPRESSED) && !g->geometry.data_file)
            judge_refcount(g, host, entry.raw & Q2_ENTRY_COPIED ? 1 : 0, 1);
        else if (readable && (entry.raw & Q2_ENTRY_COMPRESSED))
            glance_at_compressed(g, entry.raw);
    }
    judge(g, true, q2_min(good, 64));
    judge(g, false, q2_min(bad, 64));
}

static void
glance_at_l1(struct glance *g)
{
    uint8_t *table = g->trial->l1;
    size_t length = (size_t)q2_min((uint64_t)g->header.l1_size * 8, Q2_TRIAL_PART);
    const struct q2_sink sink = {.report = count_fault, .data = &g->faults, .wordless = true};
    uint64_t needed = q2_l1_entries_for(&g->geometry, g->header.size);
    unsigned looked = 0;
    if (length == 0 || !read_part(g, g->header.l1_table_offset, table, length))
        return;
    judge_refcount(g, g->header.l1_table_offset, 1, 4);
    /* Software makes them as large as they must be, unless VM state or a larger disk was there. */
    judge(g, g->header.l1_size <= needed, g->has_vm_state ? 1 : ODD);
    for (size_t i = 0; i < length / 8; i++) {
        uint64_t raw = q2_load_be64(table + i * 8);
        if (raw == 0)
            continue;
        g->faults = 0;
        bool readable = q2_l1_entry_validate(&g->geometry, raw, 0, &sink);
        judge(g, readable && g->faults == 0, 2);
        judge(g, i < needed, 1);
        if (readable && looked++ < LOOK_TABLES) {
            judge_refcount(g, q2_entry_offset(raw), raw & Q2_ENTRY_COPIED ? 1 : 0, 1);
            glance_at_l2(g, q2_entry_offset(raw));
        }
    }
}

/* Whether there are as many snapshots as the header says, and no more. */
static void
glance_at_snapshots(struct glance *g)
{
    uint8_t *entry = g->trial->part;
    uint64_t at = g->header.snapshots_offset, count = 0;
    uint64_t expected = g->header.nb_snapshots;
    if (at == 0)
        return;
    while (count <= q2_min(expected, MAX_ENTRIES) && read_part(g, at, entry, Q2_TRIAL_PART) &&
           q2_snapshot_plausible(&g->geometry, entry, Q2_TRIAL_PART, at)) {
        struct q2_snapshot snapshot;
        q2_snapshot_decode(&g->geometry, entry, at, &snapshot);
        g->has_vm_state |= snapshot.vm_state_size > 0;
        g->snapshot_size =
            snapshot.has_disk_size && count < expected ? snapshot.disk_size : g->snapshot_size;
        at += q2_snapshot_length(entry);
        count++;
    }
    if (expected)
        judge_refcount(g, g->header.snapshots_offset, 1, 4);
    judge(g, true, q2_min(count, expected));
    judge(g, false, count > expected ? 1 : q2_min(expected - count, MAX_ENTRIES) * 2);
}

/* Whether others who know the size of the disk agree. Disks do not often change their size. */
static void
glance_at_size(struct glance *g)
{
    struct q2_disk_evidence evidence;
    q2_disk_evidence(g->trial->scene->file, &g->header, &evidence);
    if (g->snapshot_size)
        judge(g, g->header.size == g->snapshot_size, ODD);
    if (evidence.exact)
        judge(g, g->header.size == evidence.exact, ODD);
    if (evidence.least)
        judge(g, g->header.size >= evidence.least, ODD);
}

/* What no rule forbids, but no software does. */
static void
glance_at_layout(struct glance *g)
{
    uint32_t length = g->header.header_length;
    bool data_file = g->header.incompatible_features & Q2_INCOMPATIBLE_DATA_FILE;
    struct q2_extension extension;
    uint64_t offset = length, longer = Q2_HEADER_KNOWN_LENGTH;
    int more;
    if (g->header.version >= 3) {
        judge(g, length == Q2_HEADER_V3_LENGTH || length == Q2_HEADER_KNOWN_LENGTH, ODD);
        /* A short header with an end marker where the long one has its last field, and the
         * extensions behind that. */
        if (length == Q2_HEADER_V3_LENGTH && g->trial->area[length] == 0 &&
            q2_extension_next(g->trial->area, (size_t)g->trial->length, &longer, &extension) > 0)
            judge(g, false, ODD);
        judge(g, !data_file || g->extensions.data_file.bytes, ODD);
    }
    while ((more = q2_extension_next(g->trial->area, (size_t)g->trial->length, &offset,
                                     &extension)) > 0)
        continue;
    if (!g->header.backing_file_offset || !(g->usable & Q2_USABLE_BACKING_NAME))
        return;
    /* The name follows the extensions, and is a whole one. */
    uint64_t end = g->header.backing_file_offset + g->header.backing_file_size;
    bool cut = end < g->trial->length && g->trial->area[end] > 0x20 && g->trial->area[end] < 0x7f;
    judge(g, !cut, RULE);
    judge(g,
          more == 0 &&
              g->header.backing_file_offset == extension.offset + Q2_EXTENSION_HEADER_LENGTH,
          ODD);
}

/* Whether this is a header of version 3 in all but its version. What follows the header in version
 * 2 are extensions, and text; nothing there looks like these two fields. */
bool
q2_header_in_disguise(const uint8_t *area, uint64_t length)
{
    if (length < Q2_HEADER_V3_LENGTH || q2_load_be32(area + 4) != 2)
        return false;
    uint32_t order = q2_load_be32(area + 96), header_length = q2_load_be32(area + 100);
    return (order > 0 && order <= Q2_MAX_REFCOUNT_ORDER) ||
           (header_length == Q2_HEADER_V3_LENGTH || header_length == Q2_HEADER_KNOWN_LENGTH);
}

static void
look(struct glance *g)
{
    uint64_t broken = 0;
    const struct q2_sink rules = {.report = count_rule, .data = &broken, .wordless = true};
    struct q2_trial *trial = g->trial;
    q2_header_decode(trial->area, (size_t)trial->length, &g->header);
    if (g->header.magic != Q2_MAGIC)
        broken += RULE;
    g->usable = q2_header_validate(&g->header, trial->file_size, &rules);
    if (broken <= g->most)
        q2_extensions_decode(&g->header, g->usable, trial->area, (size_t)trial->length, &rules,
                             &g->extensions);
    if (q2_header_in_disguise(trial->area, trial->length))
        broken += RULE;
    g->candidate->bad = broken;
    g->candidate->header_bad = broken >= RULE;
    if (!(g->usable & Q2_USABLE_GEOMETRY)) {
        g->candidate->bad += UINT64_C(1) << 32;
        return;
    }
    if (broken > g->most)
        return;
    q2_geometry_init(&g->geometry, &g->header, trial->file_size);
    if (g->usable & Q2_USABLE_EXTENSIONS)
        glance_at_layout(g);
    if (g->usable & Q2_USABLE_REFCOUNTS)
        glance_at_refcounts(g);
    if (g->usable & Q2_USABLE_SNAPSHOTS && g->candidate->bad <= g->most)
        glance_at_snapshots(g);
    if (!(g->usable & Q2_USABLE_L1) || g->candidate->bad > g->most)
        return;
    glance_at_l1(g);
    glance_at_size(g);
}

void
q2_trial_glance(struct q2_trial *trial, struct q2_candidate *candidate, uint64_t most)
{
    uint8_t saved[Q2_HEADER_KNOWN_LENGTH], marker[Q2_EXTENSION_HEADER_LENGTH];
    struct glance g = {.trial = trial, .candidate = candidate, .most = most};
    bool flip = candidate->flip_mask && candidate->flip_at < trial->length;
    candidate->bad = candidate->good = 0;
    memcpy(saved, trial->area, sizeof saved);
    memcpy(marker, trial->area + sizeof saved, sizeof marker);
    if (candidate->fresh)
        memset(trial->area + sizeof saved, 0, sizeof marker);
    memcpy(trial->area, candidate->bytes, sizeof saved);
    if (flip)
        trial->area[candidate->flip_at] ^= candidate->flip_mask;
    look(&g);
    if (flip)
        trial->area[candidate->flip_at] ^= candidate->flip_mask;
    memcpy(trial->area, saved, sizeof saved);
    memcpy(trial->area + sizeof saved, marker, sizeof marker);
}
