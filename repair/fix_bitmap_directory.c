/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What leads to the bitmaps: the extension, the three numbers in it, and the offsets of tables. It
 * comes early, for as long as nothing leads to bitmaps, their clusters look like guest data that
 * was lost. Only what a sound directory or table speaks for is mended here; what is beyond help is
 * left to fix_bitmaps.c. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/bitmap_list.h"
#include "repair/header_area.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_SEARCHES = 64 }; /* for tables, so that broken bitmaps without end take no time */

static void
ignore(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* Whether the area, as `bytes`, has one whole bitmaps extension, which leads to a sound directory,
 * and ends as it should. */
static int
leads_to_bitmaps(struct q2_scene *scene, const struct q2_header_area *area, const uint8_t *bytes,
                 bool *ret_leads, struct q2_error *err)
{
    const struct q2_sink quiet = {.report = ignore};
    struct q2_extensions extensions;
    struct q2_extension extension;
    struct q2_bitmap_place found;
    uint64_t offset = area->header.header_length;
    size_t end = q2_extension_area(&area->header, area->usable, area->length);
    while (q2_extension_next(bytes, end, &offset, &extension) > 0) {
    }
    *ret_leads = false;
    if (extension.type != Q2_EXTENSION_END || extension.length)
        return 0;
    q2_extensions_decode(&area->header, area->usable, bytes, area->length, &quiet, &extensions);
    struct q2_bitmap_place place = {extensions.bitmap_directory_offset,
                                    extensions.bitmap_directory_size, extensions.nb_bitmaps};
    if (!extensions.has_bitmaps)
        return 0;
    int rc = q2_bitmap_place_find(scene, &place, ret_leads, &found, err);
    *ret_leads = *ret_leads && found.offset == place.offset && found.size == place.size &&
                 found.count == place.count;
    return rc;
}

/* Try another type or length, a word of the header area. */
static int
try_word(struct q2_scene *scene, struct q2_header_area *area, uint64_t at, uint32_t value,
         const char *evidence, enum q2_problem problem, bool *ret_fits, struct q2_error *err)
{
    uint8_t word[4];
    memcpy(word, area->bytes + at, sizeof word);
    q2_store_be32(area->bytes + at, value);
    int rc = leads_to_bitmaps(scene, area, area->bytes, ret_fits, err);
    if (rc == 0 && *ret_fits) {
        if (q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN, at, "%s", evidence))
            rc = q2_scene_write(scene, Q2_OWNER_HEADER, at, area->bytes + at, sizeof word, err);
        q2_bitmap_answer(scene, problem);
        q2_plan_end(&scene->plan);
    }
    memcpy(area->bytes + at, word, sizeof word);
    return rc;
}

/* Where an extension's type, or its length, is all that keeps it from leading to bitmaps, that is
 * what is damaged. */
static int
mend_extension(struct q2_scene *scene, enum q2_problem problem, struct q2_error *err)
{
    bool mended = false;
    struct q2_header_area area;
    int rc = q2_header_area_read(scene, &area, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < area.count && rc == 0 && !mended; i++) {
        const struct q2_header_part *part = &area.parts[i];
        uint64_t at = (uint64_t)(part->data - area.bytes) - Q2_EXTENSION_HEADER_LENGTH;
        bool is_type = part->type == Q2_EXTENSION_BITMAPS;
        if (is_type && part->length != Q2_EXTENSION_BITMAPS_LENGTH)
            rc = try_word(scene, &area, at + 4, Q2_EXTENSION_BITMAPS_LENGTH,
                          "with the length that a bitmaps extension has, it leads to a sound "
                          "directory of bitmaps",
                          problem, &mended, err);
        else if (!is_type && part->length == Q2_EXTENSION_BITMAPS_LENGTH &&
                 __builtin_popcount(part->type ^ Q2_EXTENSION_BITMAPS) == 1)
            rc = try_word(scene, &area, at, Q2_EXTENSION_BITMAPS,
                          "one bit away from the type of a bitmaps extension, and it leads to a "
                          "sound directory of bitmaps",
                          problem, &mended, err);
    }
    q2_header_area_destroy(&area);
    return rc;
}

static int
mend_directory(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_bitmap_place claimed = q2_bitmap_place_claimed(scene), place;
    bool found;
    int rc = q2_bitmap_place_find(scene, &claimed, &found, &place, err);
    if (rc < 0 || !found)
        return rc;
    if (q2_plan_begin(&scene->plan, Q2_ACTION_MEND_BITMAP, Q2_CERTAIN,
                      scene->check->extensions.bitmaps_at,
                      "sound bitmaps fill %" PRIu64 " bytes at 0x%" PRIx64 ", and their number "
                      "is %" PRIu32,
                      place.size, place.offset, place.count))
        rc = q2_bitmap_place_write(scene, &place, err);
    q2_bitmap_answer_directory(scene);
    q2_plan_end(&scene->plan);
    return rc;
}

static bool
has_no_table(const struct q2_scene *scene, const struct q2_bitmap *bitmap)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    return bitmap->table_offset % geometry->cluster_size ||
           !q2_range_inside(bitmap->table_offset, (uint64_t)bitmap->table_size * 8,
                            geometry->file_size);
}

/* Bitmaps whose tables are one bit away from where they should be. */
static int
mend_tables(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_bitmap_place place = q2_bitmap_place_claimed(scene);
    struct q2_bitmap_list list;
    unsigned searched = 0;
    int rc = q2_bitmap_list_read(scene, &place, &list, err);
    for (uint32_t i = 0; i < list.count && rc == 0 && searched < MAX_SEARCHES; i++) {
        const struct q2_bitmap_item *item = &list.items[i];
        uint64_t offset;
        bool found;
        if (!has_no_table(scene, &item->bitmap))
            continue;
        searched++;
        rc = q2_bitmap_table_find(&list, item, &found, &offset, err);
        if (rc < 0 || !found)
            continue;
        char name[64];
        q2_printable(name, sizeof name, item->name, item->bitmap.name_length);
        if (q2_plan_begin(&scene->plan, Q2_ACTION_MEND_BITMAP, Q2_CERTAIN, item->bitmap.at,
                          "the only table of bits one bit away from where bitmap '%s' should have "
                          "one is at 0x%" PRIx64,
                          name, offset))
            rc = q2_scene_write64(scene, Q2_OWNER_BITMAP_DIRECTORY, item->bitmap.at, offset, err);
        q2_plan_answer(&scene->plan,
                       item->bitmap.table_offset % scene->check->geometry.cluster_size
                           ? Q2_PROBLEM_BITMAP_TABLE_UNALIGNED
                           : Q2_PROBLEM_BITMAP_TABLE_PAST_END,
                       item->bitmap.at, 1);
        q2_plan_end(&scene->plan);
    }
    q2_bitmap_list_destroy(&list);
    return rc == Q2_ERR_IO ? 0 : rc;
}

int
q2_fix_bitmap_directory(struct q2_scene *scene, struct q2_error *err)
{
    if (!(scene->check->usable & Q2_USABLE_EXTENSIONS))
        return 0;
    if (q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH))
        return mend_extension(scene, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH, err);
    if (q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_MISSING))
        return mend_extension(scene, Q2_PROBLEM_EXTENSION_BITMAPS_MISSING, err);
    /* Bitmaps that are out of date go in any case. */
    if (!scene->check->extensions.has_bitmaps ||
        q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_STALE))
        return 0;
    if (q2_bitmap_directory_is_broken(scene))
        return mend_directory(scene, err);
    if (q2_scene_count(scene, Q2_PROBLEM_BITMAP_TABLE_UNALIGNED) ||
        q2_scene_count(scene, Q2_PROBLEM_BITMAP_TABLE_PAST_END))
        return mend_tables(scene, err);
    return 0;
}
