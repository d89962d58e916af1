/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* COPIED flags of the active map: set exactly where the refcount is 1 ("L1 table", "L2 table" in
 * the specification). The refcounts are right by now, or too high on purpose, so they decide. Where
 * there are more references than the refcount says, nothing is set. */

#include "repair/fix.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

#include <inttypes.h>

enum { PIECE_BYTES = 64 << 10, SECTOR_BYTES = 512 };

static const enum q2_problem problems[] = {
    Q2_PROBLEM_L1_COPIED_SET,
    Q2_PROBLEM_L1_COPIED_CLEAR,
    Q2_PROBLEM_L2_COPIED_SET,
    Q2_PROBLEM_L2_COPIED_CLEAR,
};

static bool
is_ours(enum q2_problem problem)
{
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        if (problems[i] == problem)
            return true;
    return false;
}

struct copied {
    struct q2_scene *scene;
    const struct q2_geometry *geometry;
    struct q2_refcount_reader reader;
    uint8_t *l1; /* PIECE_BYTES each */
    uint8_t *l2;
    bool permitted;
};

/* Some bytes of a table. */
struct piece {
    uint8_t *bytes;
    uint64_t offset; /* in the file */
    uint64_t length;
    bool is_l1;
    uint64_t guest; /* offset that the first entry of an L2 table is about */
};

/* The entry as it should be. One that is damaged is left alone. */
static uint64_t
mended(struct copied *copied, uint64_t raw, bool is_l1, uint64_t guest)
{
    uint64_t offset = q2_entry_offset(raw), cluster = offset >> copied->geometry->cluster_bits;
    uint64_t odd = q2_entry_odd_bits(copied->geometry);
    if (!is_l1 && copied->geometry->version >= 3)
        odd &= ~Q2_ENTRY_ZERO;
    if (!offset || raw & odd)
        return raw;
    if (!is_l1 && copied->geometry->data_file)
        return offset == guest ? raw | Q2_ENTRY_COPIED : raw;
    if (offset >= copied->geometry->file_size)
        return raw;
    bool one = q2_refcount_of(&copied->reader, cluster) == 1;
    if (copied->reader.unknown || (one && q2_scene_references(copied->scene, cluster) > 1))
        return raw;
    return one ? raw | Q2_ENTRY_COPIED : raw & ~Q2_ENTRY_COPIED;
}

/* Mend the flags of a piece, and write what changes, a sector's worth at a time. */
static int
mend_piece(struct copied *copied, const struct piece *piece, struct q2_error *err)
{
    const struct q2_geometry *geometry = copied->geometry;
    uint64_t step = piece->is_l1 ? 8 : geometry->l2_entry_size;
    enum q2_owner_kind kind = piece->is_l1 ? Q2_OWNER_L1_TABLE : Q2_OWNER_L2_TABLE;
    for (uint64_t sector = 0; sector < piece->length; sector += SECTOR_BYTES) {
        uint64_t from = UINT64_MAX, to = 0, end = q2_min(sector + SECTOR_BYTES, piece->length);
        for (uint64_t at = sector; at < end; at += step) {
            uint64_t guest = piece->guest + (at / step << geometry->cluster_bits);
            uint64_t raw = q2_load_be64(piece->bytes + at);
            uint64_t now = raw ? mended(copied, raw, piece->is_l1, guest) : 0;
            if (now == raw)
                continue;
            q2_store_be64(piece->bytes + at, now);
            from = q2_min(from, at);
            to = at + 8;
        }
        int rc = from < to ? q2_scene_write(copied->scene, kind, piece->offset + from,
                                            piece->bytes + from, to - from, err)
                           : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The L2 table at `offset`, which maps the guest from `guest` on. What cannot be read stays as it
 * is. */
static int
mend_table(struct copied *copied, uint64_t offset, uint64_t guest, struct q2_error *err)
{
    const struct q2_geometry *geometry = copied->geometry;
    struct piece piece = {.bytes = copied->l2,
                          .offset = offset,
                          .length = q2_min(geometry->cluster_size, PIECE_BYTES),
                          .guest = guest};
    int rc = 0;
    for (; piece.offset < offset + geometry->cluster_size && rc == 0;
         piece.offset += piece.length) {
        bool data = true;
        uint64_t end = 0;
        if (q2_file_extent(copied->scene->file, piece.offset, &data, &end, NULL) < 0 || data ||
            end < piece.offset + piece.length)
            if (q2_file_read_padded(copied->scene->file, piece.offset, piece.bytes, piece.length,
                                    NULL) == 0)
                rc = mend_piece(copied, &piece, err);
        piece.guest += piece.length / geometry->l2_entry_size << geometry->cluster_bits;
    }
    return rc;
}

static int
mend_map(struct copied *copied, struct q2_error *err)
{
    const struct q2_map *map = &copied->scene->check->maps[0];
    uint64_t bytes = (uint64_t)map->l1_size * 8;
    for (uint64_t at = 0, length; at < bytes; at += length) {
        length = q2_min(bytes - at, PIECE_BYTES);
        if (q2_file_read_padded(copied->scene->file, map->l1_offset + at, copied->l1, length,
                                NULL) < 0)
            continue;
        for (uint64_t i = 0; i < length; i += 8) {
            uint64_t offset = q2_entry_offset(q2_load_be64(copied->l1 + i));
            if (!offset || offset & (copied->geometry->cluster_size - 1) ||
                offset >= copied->geometry->file_size)
                continue;
            uint64_t slot = (at + i) / 8;
            int rc = mend_table(copied, offset, slot * q2_l2_reach(copied->geometry), err);
            if (rc < 0)
                return rc;
        }
        const struct piece piece = {.bytes = copied->l1,
                                    .offset = map->l1_offset + at,
                                    .length = length,
                                    .is_l1 = true};
        int rc = mend_piece(copied, &piece, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Whether all entries that a finding is about are as they should be by now. */
static bool
is_mended(struct copied *copied, const struct q2_finding *finding)
{
    bool is_l1 = finding->problem == Q2_PROBLEM_L1_COPIED_SET ||
                 finding->problem == Q2_PROBLEM_L1_COPIED_CLEAR;
    bool was_set = finding->problem == Q2_PROBLEM_L1_COPIED_SET ||
                   finding->problem == Q2_PROBLEM_L2_COPIED_SET;
    uint64_t step = is_l1 ? 8 : copied->geometry->l2_entry_size;
    for (uint64_t at = 0; at < finding->host_length; at += step) {
        uint8_t bytes[8];
        if (q2_file_read_padded(copied->scene->file, finding->host_offset + at, bytes, 8, NULL) < 0)
            return false;
        if (((q2_load_be64(bytes) & Q2_ENTRY_COPIED) != 0) == was_set)
            return false;
    }
    return true;
}

static void
answer(struct copied *copied)
{
    struct q2_scene *scene = copied->scene;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (is_ours(finding->problem) && (!copied->permitted || is_mended(copied, finding)))
            q2_plan_answer(&scene->plan, finding->problem, finding->host_offset, finding->count);
    }
}

static int
run(struct copied *copied, uint64_t faults, struct q2_error *err)
{
    struct q2_scene *scene = copied->scene;
    copied->permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_COPIED, Q2_CERTAIN, 0,
                      "%" PRIu64 " entries of the active map have a COPIED flag that contradicts "
                      "the refcount of what they lead to",
                      faults);
    int rc = copied->permitted ? mend_map(copied, err) : 0;
    if (rc == 0)
        answer(copied);
    struct q2_action *last = scene->plan.count ? &scene->plan.actions[scene->plan.count - 1] : NULL;
    if (last && last->applied && !last->written_count) /* damaged entries, all of them */
        last->applied = false;
    q2_plan_end(&scene->plan);
    return rc;
}

int
q2_fix_copied(struct q2_scene *scene, struct q2_error *err)
{
    uint64_t faults = 0;
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        faults += q2_scene_count(scene, problems[i]);
    /* A flag follows from the refcount, but not from one that is wrong and could not be mended. */
    if (faults == 0 || scene->check->map_count == 0 || scene->counts_doubtful ||
        q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_ZERO) ||
        q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_TOO_LOW))
        return 0;
    struct copied copied = {.scene = scene, .geometry = &scene->check->geometry};
    void *buffers;
    int rc = q2_refcount_reader_init(&copied.reader, scene->check, err);
    if (rc < 0)
        return rc;
    rc = q2_budget_calloc(&scene->budget, 2, PIECE_BYTES, "mending COPIED flags", &buffers, err);
    if (rc == 0) {
        copied.l1 = buffers;
        copied.l2 = copied.l1 + PIECE_BYTES;
        rc = run(&copied, faults, err);
        q2_budget_free(&scene->budget, buffers, 2, PIECE_BYTES);
    }
    q2_refcount_reader_destroy(&copied.reader);
    return rc;
}
