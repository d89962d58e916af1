/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Clusters that are counted, though nothing refers to them: leaks, if nothing can ever have meant
 * them. As long as damage is left, any of them may be what a damaged pointer meant. And a table
 * that nothing leads to has lost the pointer to it, so it stays, with all that it leads to. */

#include "repair/refcount_plan.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/format/refcount.h"
#include "core/format/references.h"

#include <string.h>

enum {
    PROBE_BYTES = 4096, /* of a cluster that are looked at first */
    MIN_SHARED = 8,     /* entries that agree in what is in use, where no flag does */
};

/* ---- damage ---- */

/* Whether a problem says that a pointer is damaged or lost. The refcounts are mended here, and
 * orphaned L2 tables are looked at one by one; with an L1 table, more may have been lost than what
 * it leads to. */
static bool
is_damage(enum q2_problem problem)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    if (entry->severity != Q2_SEVERITY_CORRUPTION && entry->severity != Q2_SEVERITY_ERROR)
        return false;
    switch (problem) {
    case Q2_PROBLEM_ORPHAN_L2_TABLE:
    case Q2_PROBLEM_HEADER_REFCOUNT_TABLE_SIZE:
    case Q2_PROBLEM_HEADER_BACKING_RAW_DATA:
    case Q2_PROBLEM_DATA_UNREADABLE:
        return false;
    default:
        break;
    }
    if (entry->pass == Q2_PASS_REFCOUNTS || entry->pass == Q2_PASS_CHAIN)
        return false;
    return entry->impact == Q2_IMPACT_LOST_DATA || entry->impact == Q2_IMPACT_UNREADABLE ||
           entry->impact == Q2_IMPACT_WRONG_DATA || entry->impact == Q2_IMPACT_SNAPSHOTS ||
           entry->impact == Q2_IMPACT_CANNOT_OPEN;
}

bool
q2_loose_pointers(const struct q2_scene *scene)
{
    for (int p = 0; p < Q2_PROBLEM_COUNT; p++)
        if (q2_scene_count(scene, (enum q2_problem)p) && is_damage((enum q2_problem)p))
            return true;
    return false;
}

bool
q2_loose_damage(const struct q2_scene *scene)
{
    return scene->keep_all || !q2_references_complete(scene->check) || q2_loose_pointers(scene);
}

/* ---- what is loose ---- */

static bool
is_loose(const struct q2_loose *loose, uint64_t cluster)
{
    return cluster / 64 < loose->words && q2_bit_test(loose->all, cluster);
}

static void
hold(struct q2_loose *loose, uint64_t cluster)
{
    if (!is_loose(loose, cluster) || q2_bit_test(loose->held, cluster))
        return;
    q2_bit_set(loose->held, cluster);
    loose->held_count++;
    loose->first_held = q2_min(loose->first_held, cluster);
}

/* In the block of entry `index`, which is at host `offset`. */
static void
find_in_block(struct q2_rebuild *rebuild, uint64_t index, uint64_t offset, struct q2_loose *loose)
{
    const struct q2_scene *scene = rebuild->scene;
    unsigned bits = rebuild->geometry->refcount_block_bits;
    uint64_t first = index << bits, end = (index + 1) << bits;
    struct q2_block_look look;
    q2_rebuild_look(rebuild, index, offset, &look);
    end = q2_min(end, loose->words * 64);
    for (uint64_t cluster = first; cluster < end && look.credible && !look.zero; cluster += 64) {
        uint64_t found = ~q2_rebuild_seen(rebuild, cluster);
        found &= found ? ~q2_rebuild_equal(rebuild, first, cluster, 0) : 0;
        for (; found; found &= found - 1) {
            uint64_t at = cluster + (unsigned)__builtin_ctzll(found);
            bool kept = at < scene->keep_clusters && q2_bit_test(scene->keep, at);
            if (kept || at >= rebuild->geometry->file_clusters)
                continue;
            q2_bit_set(loose->all, at);
            loose->count++;
        }
    }
}

/* ---- tables among them ---- */

struct probe {
    const struct q2_rebuild *rebuild;
    struct q2_loose *loose;
    uint8_t *bytes; /* one cluster */
    bool bitmaps;   /* the image has bitmaps, whose tables look like L2 tables without flags */
    bool bare;      /* nothing is recorded, so that what was used for refcounts is among them */
    uint64_t mapped, faults, lost, copied;
    uint64_t known; /* of those mapped, entries that lead to what is lost, or in use */
};

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ++*(uint64_t *)data;
}

/* Count what the first `length` bytes of a cluster would be as entries of an L1 or L2 table. */
static void
look_at(struct probe *probe, uint64_t length, bool as_l1)
{
    const struct q2_geometry *geometry = probe->rebuild->geometry;
    uint64_t violations = 0, step = as_l1 ? 8 : geometry->l2_entry_size;
    const struct q2_sink sink = {.report = count_fault, .data = &violations, .wordless = true};
    probe->mapped = probe->faults = probe->lost = probe->copied = probe->known = 0;
    for (uint64_t at = 0; at < length; at += step) {
        struct q2_l2_entry entry = {.raw = q2_load_be64(probe->bytes + at)};
        uint64_t first, count;
        if (!as_l1)
            entry = q2_l2_load(geometry, probe->bytes, at / step);
        if (entry.raw == 0 && entry.bitmap == 0)
            continue;
        violations = 0;
        if (as_l1)
            q2_l1_entry_validate(geometry, entry.raw, 0, &sink);
        else
            q2_l2_entry_validate(geometry, &entry, 0, 0, &sink);
        probe->faults += violations > 0;
        if (violations || !q2_entry_clusters(geometry, entry.raw, &first, &count))
            continue;
        probe->mapped++;
        probe->copied += (entry.raw & Q2_ENTRY_COPIED) != 0;
        bool lost = is_loose(probe->loose, first);
        probe->lost += lost;
        probe->known += lost || q2_rebuild_references(probe->rebuild, first) > 0;
    }
}

/* A table with some damage of its own is one all the same. */
static bool
may_be_table(const struct probe *probe)
{
    return probe->faults <= probe->mapped / 8;
}

/* One that shares most of what it leads to with other maps leads to nothing that is free. Tables of
 * bitmaps, or a refcount table of old, have no flags, and share nothing. */
static bool
is_table(const struct probe *probe)
{
    bool ours = probe->copied || probe->known - probe->lost >= MIN_SHARED;
    bool shares = ours && probe->faults == 0 && probe->known == probe->mapped;
    return may_be_table(probe) && probe->lost > 0 && (probe->lost * 2 >= probe->mapped || shares) &&
           (ours || (!probe->bitmaps && !probe->bare));
}

/* Whether the cluster was part of a structure that looks like a table, but whose loss is known: the
 * repair itself has given it up. */
static bool
was_given_up(const struct q2_scene *scene, uint64_t offset)
{
    const struct q2_check *before = scene->before;
    if (!before || !(before->usable & Q2_USABLE_GEOMETRY))
        return false;
    for (uint64_t i = 0; i < before->region_count; i++) {
        const struct q2_region *region = &before->regions[i];
        enum q2_owner_kind kind = region->owner.kind;
        if ((kind == Q2_OWNER_BITMAP_TABLE || kind == Q2_OWNER_REFCOUNT_TABLE) &&
            offset >= region->offset && offset - region->offset < region->length)
            return true;
    }
    return false;
}

static void
hold_table(struct probe *probe, uint64_t cluster, bool as_l1)
{
    const struct q2_geometry *geometry = probe->rebuild->geometry;
    uint64_t step = as_l1 ? 8 : geometry->l2_entry_size;
    hold(probe->loose, cluster);
    for (uint64_t at = 0; at < geometry->cluster_size; at += step) {
        uint64_t raw = q2_load_be64(probe->bytes + at), first, count;
        if (as_l1)
            raw &= ~Q2_ENTRY_COMPRESSED;
        if (!raw || !q2_entry_clusters(geometry, raw, &first, &count))
            continue;
        for (uint64_t i = 0; i < count; i++)
            hold(probe->loose, first + i);
    }
}

/* Whether something had the cluster in the image as it was, and has a copy now, or is gone by
 * intent: what cannot be read is no riddle then. */
static bool
was_in_use(const struct q2_rebuild *rebuild, uint64_t cluster)
{
    const struct q2_check *before = rebuild->scene->before;
    if (!before || !(before->usable & Q2_USABLE_GEOMETRY) || !before->tally ||
        before->geometry.cluster_bits != rebuild->geometry->cluster_bits)
        return false;
    const struct q2_chunk *chunk = q2_tally_chunk(before->tally, cluster >> Q2_CHUNK_BITS);
    return chunk && q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS));
}

static void
examine(struct probe *probe, uint64_t cluster)
{
    const struct q2_rebuild *rebuild = probe->rebuild;
    uint64_t size = rebuild->geometry->cluster_size,
             offset = cluster << rebuild->geometry->cluster_bits;
    uint64_t length = q2_min(size, PROBE_BYTES);
    if (q2_file_read_padded(rebuild->scene->file, offset, probe->bytes, length, NULL) < 0) {
        if (!was_in_use(rebuild, cluster))
            hold(probe->loose, cluster);
        return;
    }
    bool as_l1 = false;
    look_at(probe, length, false);
    if (!may_be_table(probe) && rebuild->geometry->extended_l2) {
        as_l1 = true;
        look_at(probe, length, true);
    }
    if (!may_be_table(probe))
        return;
    if (length < size &&
        q2_file_read_padded(rebuild->scene->file, offset, probe->bytes, size, NULL) < 0) {
        if (!was_in_use(rebuild, cluster))
            hold(probe->loose, cluster);
        return;
    }
    look_at(probe, size, as_l1);
    if (!is_table(probe) && rebuild->geometry->extended_l2 && !as_l1) {
        as_l1 = true;
        look_at(probe, size, true);
    }
    if (is_table(probe) && !was_given_up(rebuild->scene, offset))
        hold_table(probe, cluster, as_l1);
}

static bool
has_bitmaps(const struct q2_check *check)
{
    return check && (check->extensions.has_bitmaps ||
                     check->header.autoclear_features & Q2_AUTOCLEAR_BITMAPS);
}

/* Whether what the check takes for an orphaned L2 table has the form of a bitmap table as well, in
 * an image that had bitmaps before the repair: as long as it had, the check knew it for a leak. */
static bool
was_bitmap_table(struct probe *probe, const struct q2_finding *finding)
{
    const struct q2_rebuild *rebuild = probe->rebuild;
    uint64_t size = rebuild->geometry->cluster_size;
    if (!probe->bitmaps || finding->problem != Q2_PROBLEM_ORPHAN_L2_TABLE ||
        q2_file_read_padded(rebuild->scene->file, finding->target_offset, probe->bytes, size,
                            NULL) < 0)
        return false;
    look_at(probe, size, false);
    return probe->copied == 0;
}

/* Look into all that are not holes. */
static void
find_tables(struct q2_rebuild *rebuild, struct q2_loose *loose, bool bare)
{
    const struct q2_check *check = rebuild->scene->check;
    unsigned bits = rebuild->geometry->cluster_bits;
    struct probe probe = {.rebuild = rebuild,
                          .loose = loose,
                          .bytes = rebuild->wanted,
                          .bare = bare};
    probe.bitmaps = has_bitmaps(check) || has_bitmaps(rebuild->scene->before);
    uint64_t extent_end = 0;
    bool data = true;
    for (uint64_t w = 0; w < loose->words; w++)
        for (uint64_t left = loose->all[w]; left; left &= left - 1) {
            uint64_t cluster = w * 64 + (unsigned)__builtin_ctzll(left);
            if ((cluster + 1) << bits > extent_end &&
                q2_file_extent(rebuild->scene->file, cluster << bits, &data, &extent_end, NULL) < 0)
                data = true;
            /* A cluster that is partly a hole has data. */
            if (data || extent_end < (cluster + 1) << bits)
                examine(&probe, cluster);
        }
    for (size_t i = 0; i < q2_check_finding_count(check); i++) {
        const struct q2_finding *finding = q2_check_finding(check, i);
        if ((finding->problem == Q2_PROBLEM_ORPHAN_L1_TABLE ||
             finding->problem == Q2_PROBLEM_ORPHAN_L2_TABLE) &&
            !was_given_up(rebuild->scene, finding->target_offset) &&
            !was_bitmap_table(&probe, finding))
            hold(loose, finding->target_offset >> bits);
    }
}

static int
new_loose(struct q2_rebuild *rebuild, struct q2_loose *ret_loose, struct q2_error *err)
{
    struct q2_loose loose = {.words = rebuild->geometry->file_clusters / 64 + 1,
                             .first_held = UINT64_MAX};
    void *memory;
    int rc = q2_budget_calloc(&rebuild->scene->budget, loose.words * 2, 8, "leaked clusters",
                              &memory, err);
    if (rc < 0)
        return rc;
    loose.all = memory;
    loose.held = loose.all + loose.words;
    *ret_loose = loose;
    return 0;
}

int
q2_loose_find(struct q2_rebuild *rebuild, struct q2_loose *ret_loose, struct q2_error *err)
{
    struct q2_loose loose;
    int rc = new_loose(rebuild, &loose, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < rebuild->entries; i++)
        if (rebuild->table[i] && i << rebuild->geometry->refcount_block_bits < loose.words * 64)
            find_in_block(rebuild, i, rebuild->table[i], &loose);
    loose.incomplete = !q2_references_complete(rebuild->scene->check);
    loose.damage = loose.incomplete || rebuild->doubtful || q2_loose_damage(rebuild->scene);
    if (loose.damage) {
        for (uint64_t w = loose.words; w-- > 0;)
            if (loose.all[w])
                loose.first_held = w * 64 + (unsigned)__builtin_ctzll(loose.all[w]);
        memcpy(loose.held, loose.all, loose.words * 8);
        loose.held_count = loose.count;
    } else if (loose.count) {
        find_tables(rebuild, &loose, false);
    }
    *ret_loose = loose;
    return 0;
}

/* ---- where nothing is recorded ---- */

/* What is stored in the range of a block that says nothing, and not referred to. */
static void
find_stored(struct q2_rebuild *rebuild, uint64_t index, struct q2_loose *loose)
{
    unsigned bits = rebuild->geometry->refcount_block_bits;
    uint64_t end = q2_min((index + 1) << bits, rebuild->geometry->file_clusters);
    for (uint64_t cluster = index << bits; cluster < end; cluster++) {
        uint64_t seen = cluster % 64 ? 0 : q2_rebuild_seen(rebuild, cluster);
        if (seen == UINT64_MAX)
            cluster += 63;
        else if (!q2_rebuild_references(rebuild, cluster) && q2_rebuild_stored(rebuild, cluster))
            q2_bit_set(loose->all, cluster);
    }
}

int
q2_loose_find_stored(struct q2_rebuild *rebuild, struct q2_error *err)
{
    struct q2_loose loose;
    bool any = false;
    int rc = rebuild->keep_stored || rebuild->scene->blind ? 0 : new_loose(rebuild, &loose, err);
    if (rc < 0 || rebuild->keep_stored || rebuild->scene->blind)
        return rc;
    for (uint64_t i = 0; i < rebuild->entries; i++) {
        struct q2_block_look look = {0};
        if (!rebuild->table[i] || i << rebuild->geometry->refcount_block_bits >= loose.words * 64)
            continue;
        if (rebuild->old[i])
            q2_rebuild_look(rebuild, i, rebuild->old[i], &look);
        if (look.credible && !look.zero) {
            find_in_block(rebuild, i, rebuild->old[i], &loose);
            continue;
        }
        find_stored(rebuild, i, &loose);
        any = true;
    }
    if (any)
        find_tables(rebuild, &loose, true);
    rebuild->found_words = loose.words;
    rebuild->found = loose.all;
    return 0;
}

void
q2_loose_destroy(struct q2_rebuild *rebuild, struct q2_loose *loose)
{
    q2_budget_free(&rebuild->scene->budget, loose->all, loose->words * 2, 8);
    *loose = (struct q2_loose){0};
}

/* ---- freeing ---- */

/* A refcount that is merely too high goes down only where no COPIED flag contradicts it then: at
 * the level that only frees leaks, flags stay as they are. */
static bool
may_lower(const struct q2_rebuild *rebuild, uint64_t cluster, uint64_t references,
          uint64_t refcount)
{
    const struct q2_chunk *chunk =
        q2_tally_chunk(rebuild->scene->check->tally, cluster >> Q2_CHUNK_BITS);
    return references && references < refcount && chunk &&
           rebuild->scene->plan.level == Q2_LEVEL_LEAKS && !rebuild->moved &&
           !q2_copied_wrong(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS), references);
}

static int
free_in_block(struct q2_rebuild *rebuild, uint64_t index, const struct q2_loose *loose, bool held,
              struct q2_error *err)
{
    unsigned bits = rebuild->geometry->refcount_block_bits,
             order = rebuild->geometry->refcount_order;
    uint64_t first = index << bits, end = q2_min((index + 1) << bits, loose->words * 64);
    uint64_t from = UINT64_MAX, to = 0;
    enum q2_repair_level level = rebuild->scene->plan.level;
    struct q2_block_look look;
    q2_rebuild_look(rebuild, index, rebuild->table[index], &look);
    for (uint64_t cluster = first; cluster < end && look.credible && !look.zero; cluster++) {
        if (cluster % 64 == 0 && !loose->all[cluster / 64] && level != Q2_LEVEL_LEAKS) {
            cluster += 63;
            continue;
        }
        bool free = is_loose(loose, cluster) && q2_bit_test(loose->held, cluster) == held;
        uint64_t references = free ? 0 : q2_rebuild_references(rebuild, cluster);
        uint64_t refcount = q2_refcount_get(rebuild->recorded, order, cluster - first);
        if (!free && (held || loose->damage || !may_lower(rebuild, cluster, references, refcount)))
            continue;
        q2_refcount_set(rebuild->recorded, order, cluster - first, references);
        from = q2_min(from, ((cluster - first) << order) / 8);
        to = ((cluster - first) << order) / 8 + q2_max((UINT64_C(1) << order) / 8, 1);
    }
    return from >= to ? 0
                      : q2_scene_write(rebuild->scene, Q2_OWNER_REFCOUNT_BLOCK,
                                       rebuild->table[index] + from, rebuild->recorded + from,
                                       to - from, err);
}

int
q2_loose_free(struct q2_rebuild *rebuild, const struct q2_loose *loose, bool held,
              struct q2_error *err)
{
    int rc = 0;
    for (uint64_t i = 0; i < rebuild->entries && rc == 0; i++)
        if (rebuild->table[i] && i << rebuild->geometry->refcount_block_bits < loose->words * 64)
            rc = free_in_block(rebuild, i, loose, held, err);
    return rc;
}
