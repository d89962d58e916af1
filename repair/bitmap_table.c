/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A bitmap whose table is recorded where none can be: one bit away may be the table that it lost.
 * It is that table if it is counted and nothing leads to it, if it is as long as it has to be, and
 * if all that it leads to is counted and lost as well: tables of bitmaps that were given up are
 * free. */

#include "repair/bitmap_list.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

enum {
    PIECE_BYTES = 4096,
    MAX_SEARCHED = 1 << 20, /* bytes of a table that is looked for */
};

struct search {
    struct q2_bitmap_list *list;
    struct q2_refcount_reader refcounts;
    unsigned faults;
};

static void
count_fault(void *data, const struct q2_violation *violation)
{
    (void)violation;
    ((struct search *)data)->faults++;
}

/* Whether the cluster at `offset` is counted, and nothing leads to it. */
static bool
is_lost(struct search *search, uint64_t offset)
{
    uint64_t cluster = offset >> search->list->scene->check->geometry.cluster_bits;
    return q2_scene_references(search->list->scene, cluster) == 0 &&
           q2_refcount_of(&search->refcounts, cluster) > 0;
}

/* Whether there is a table at `offset` that leads to lost clusters, to at least one. */
static int
is_table(struct search *search, uint64_t offset, uint64_t length, bool *ret_is,
         struct q2_error *err)
{
    struct q2_scene *scene = search->list->scene;
    const struct q2_geometry *geometry = &scene->check->geometry;
    const struct q2_sink sink = {.report = count_fault, .data = search};
    uint8_t piece[PIECE_BYTES];
    uint64_t used = 0;
    search->faults = 0;
    *ret_is = false;
    for (uint64_t done = 0; done < length; done += geometry->cluster_size)
        if (!is_lost(search, offset + done))
            return 0;
    for (uint64_t done = 0; done < length && !search->faults; done += 8) {
        size_t now = (size_t)q2_min(PIECE_BYTES, length - done);
        if (done % PIECE_BYTES == 0) {
            int rc = q2_file_read_padded(scene->file, offset + done, piece, now, err);
            if (rc < 0)
                return rc == Q2_ERR_IO ? 0 : rc;
        }
        uint64_t raw = q2_load_be64(piece + done % PIECE_BYTES);
        if (!raw || !q2_bitmap_entry_validate(geometry, raw, offset + done, &sink))
            continue;
        search->faults += !is_lost(search, raw & Q2_ENTRY_OFFSET);
        used++;
    }
    *ret_is = used && !search->faults;
    return 0;
}

static int
try_bits(struct search *search, const struct q2_bitmap *bitmap, unsigned *ret_found,
         uint64_t *ret_offset, struct q2_error *err)
{
    const struct q2_geometry *geometry = &search->list->scene->check->geometry;
    uint64_t length = (uint64_t)bitmap->table_size * 8;
    unsigned found = 0;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t offset = bitmap->table_offset ^ UINT64_C(1) << bit;
        bool is;
        if (offset == 0 || offset % geometry->cluster_size ||
            !q2_range_inside(offset, length, geometry->file_size))
            continue;
        int rc = is_table(search, offset, length, &is, err);
        if (rc < 0)
            return rc;
        if (is && found++ == 0)
            *ret_offset = offset;
    }
    *ret_found = found;
    return 0;
}

/* The one thing that may be wrong is where the table is. */
static void
hear(void *data, const struct q2_violation *violation)
{
    unsigned *others = data;
    *others += violation->problem != Q2_PROBLEM_BITMAP_TABLE_UNALIGNED &&
               violation->problem != Q2_PROBLEM_BITMAP_TABLE_PAST_END &&
               q2_bitmap_is_spoilt_by(violation->problem);
}

int
q2_bitmap_table_find(struct q2_bitmap_list *list, const struct q2_bitmap_item *item,
                     bool *ret_found, uint64_t *ret_offset, struct q2_error *err)
{
    struct q2_scene *scene = list->scene;
    struct search search = {.list = list};
    unsigned others = item->namesake, found = 0;
    const struct q2_sink sink = {.report = hear, .data = &others};
    *ret_found = false;
    bool usable =
        q2_bitmap_validate(&scene->check->geometry, &item->bitmap, list->bytes + item->at, &sink);
    if (usable || others || item->bitmap.table_size == 0 ||
        (uint64_t)item->bitmap.table_size * 8 > MAX_SEARCHED ||
        !(scene->check->usable & Q2_USABLE_REFCOUNTS))
        return 0;
    int rc = q2_refcount_reader_init(&search.refcounts, scene->check, err);
    if (rc < 0)
        return rc;
    rc = try_bits(&search, &item->bitmap, &found, ret_offset, err);
    q2_refcount_reader_destroy(&search.refcounts);
    *ret_found = rc == 0 && found == 1;
    return rc;
}
