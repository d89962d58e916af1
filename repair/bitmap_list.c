/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/bitmap_list.h"

#include "checker/refcounts.h"
#include "core/base/checked.h"
#include "core/base/endian.h"
#include "core/format/entry.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECE_BYTES = 4096,
    MAX_COUNT = 65535,
    MAX_ENTRY_LENGTH = Q2_BITMAP_FIXED_LENGTH + Q2_MAX_NAME + 8, /* without extra data, bytes */
    MAX_SEARCHED = 4 << 20, /* bytes of a directory that is looked for elsewhere */
};

static const enum q2_problem directory_problems[] = {
    Q2_PROBLEM_EXTENSION_BITMAPS_FIELDS,    Q2_PROBLEM_BITMAP_DIRECTORY_UNALIGNED,
    Q2_PROBLEM_BITMAP_DIRECTORY_PAST_END,   Q2_PROBLEM_BITMAP_DIRECTORY_SIZE,
    Q2_PROBLEM_BITMAP_DIRECTORY_UNREADABLE,
};
enum { DIRECTORY_PROBLEMS = sizeof directory_problems / sizeof directory_problems[0] };

/* ---- the extension ---- */

struct q2_bitmap_place
q2_bitmap_place_claimed(const struct q2_scene *scene)
{
    const struct q2_extensions *extensions = &scene->check->extensions;
    return (struct q2_bitmap_place){extensions->bitmap_directory_offset,
                                    extensions->bitmap_directory_size, extensions->nb_bitmaps};
}

int
q2_bitmap_place_write(struct q2_scene *scene, const struct q2_bitmap_place *place,
                      struct q2_error *err)
{
    uint8_t bytes[Q2_EXTENSION_BITMAPS_LENGTH] = {0};
    q2_store_be32(bytes, place->count);
    q2_store_be64(bytes + 8, place->size);
    q2_store_be64(bytes + 16, place->offset);
    return q2_scene_write(scene, Q2_OWNER_HEADER, scene->check->extensions.bitmaps_at, bytes,
                          sizeof bytes, err);
}

bool
q2_bitmap_directory_is_broken(const struct q2_scene *scene)
{
    for (unsigned i = 0; i < DIRECTORY_PROBLEMS; i++)
        if (q2_scene_count(scene, directory_problems[i]))
            return true;
    return false;
}

void
q2_bitmap_answer(struct q2_scene *scene, enum q2_problem problem)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == problem)
            q2_plan_answer(&scene->plan, problem, finding->host_offset, finding->count);
    }
}

void
q2_bitmap_answer_directory(struct q2_scene *scene)
{
    for (unsigned i = 0; i < DIRECTORY_PROBLEMS; i++)
        q2_bitmap_answer(scene, directory_problems[i]);
}

/* ---- reading ---- */

static int
compare_names(const void *left, const void *right)
{
    const struct q2_bitmap_item *a = *(struct q2_bitmap_item *const *)left;
    const struct q2_bitmap_item *b = *(struct q2_bitmap_item *const *)right;
    if (a->bitmap.name_length != b->bitmap.name_length)
        return a->bitmap.name_length < b->bitmap.name_length ? -1 : 1;
    return memcmp(a->name, b->name, a->bitmap.name_length);
}

static int
find_namesakes(struct q2_bitmap_list *list, struct q2_error *err)
{
    struct q2_budget *budget = &list->scene->budget;
    void *memory;
    int rc = q2_budget_calloc(budget, list->count, sizeof(struct q2_bitmap_item *), "bitmap names",
                              &memory, err);
    if (rc < 0)
        return rc;
    struct q2_bitmap_item **sorted = memory;
    for (uint32_t i = 0; i < list->count; i++)
        sorted[i] = &list->items[i];
    if (list->count)
        qsort(sorted, list->count, sizeof *sorted, compare_names);
    for (uint32_t i = 1; i < list->count; i++)
        if (compare_names(&sorted[i - 1], &sorted[i]) == 0)
            sorted[i - 1]->namesake = sorted[i]->namesake = true;
    q2_budget_free(budget, memory, list->count, sizeof(struct q2_bitmap_item *));
    return 0;
}

static int
read_items(struct q2_bitmap_list *list, struct q2_error *err)
{
    void *memory;
    list->capacity = (uint32_t)q2_min(list->place.count, list->loaded / Q2_BITMAP_FIXED_LENGTH);
    int rc = q2_budget_calloc(&list->scene->budget, list->capacity, sizeof *list->items,
                              "bitmap directory", &memory, err);
    if (rc < 0)
        return rc;
    list->items = memory;
    for (uint64_t at = 0; list->count < list->capacity; at = list->used) {
        struct q2_bitmap_item item = {.at = at};
        if (!q2_range_inside(at, Q2_BITMAP_FIXED_LENGTH, list->loaded))
            break;
        q2_bitmap_decode(list->bytes + at, list->place.offset + at, &item.bitmap);
        item.length = q2_bitmap_length(&item.bitmap);
        if (!q2_range_inside(at, item.length, list->loaded))
            break;
        item.name = list->bytes + at + Q2_BITMAP_FIXED_LENGTH + item.bitmap.extra_length;
        list->items[list->count++] = item;
        list->used = at + item.length;
    }
    return find_namesakes(list, err);
}

int
q2_bitmap_list_read(struct q2_scene *scene, const struct q2_bitmap_place *place,
                    struct q2_bitmap_list *ret_list, struct q2_error *err)
{
    uint64_t file_size = scene->check->geometry.file_size;
    struct q2_bitmap_list *list = ret_list;
    *list = (struct q2_bitmap_list){.scene = scene, .place = *place};
    if (place->offset >= file_size)
        return 0;
    uint64_t length = q2_min(place->size, file_size - place->offset);
    void *memory;
    int rc = q2_budget_calloc(&scene->budget, length, 1, "bitmap directory", &memory, err);
    if (rc < 0)
        return rc;
    list->bytes = memory;
    list->loaded = length;
    rc = q2_file_read(scene->file, place->offset, list->bytes, length, err);
    return rc < 0 ? rc : read_items(list, err);
}

void
q2_bitmap_list_destroy(struct q2_bitmap_list *list)
{
    struct q2_budget *budget = &list->scene->budget;
    q2_budget_free(budget, list->items, list->capacity, sizeof *list->items);
    q2_budget_free(budget, list->bytes, list->loaded, 1);
    list->items = NULL;
    list->bytes = NULL;
}

/* ---- judging ---- */

bool
q2_bitmap_is_spoilt_by(enum q2_problem problem)
{
    const struct q2_catalogue_entry *entry = q2_catalogue(problem);
    return problem == Q2_PROBLEM_OVERLAP_BITMAPS ||
           (entry->pass == Q2_PASS_BITMAPS &&
            (entry->severity == Q2_SEVERITY_CORRUPTION || entry->severity == Q2_SEVERITY_ERROR));
}

static uint64_t
references(const struct q2_check *check, uint64_t cluster)
{
    const struct q2_chunk *chunk = q2_tally_chunk(check->tally, cluster >> Q2_CHUNK_BITS);
    return chunk ? q2_chunk_references(chunk, (unsigned)(cluster % Q2_CHUNK_CLUSTERS)) : 0;
}

/* Whether something else has the cluster too, or had before the repair: then it may have been
 * written to by who knew nothing of bitmaps. */
static bool
is_shared(const struct q2_scene *scene, uint64_t offset)
{
    const struct q2_check *check = scene->check, *before = scene->before;
    unsigned bits = check->geometry.cluster_bits;
    if (references(check, offset >> bits) > 1)
        return true;
    return before && before != check && before->usable & Q2_USABLE_GEOMETRY &&
           before->geometry.cluster_bits == bits && references(before, offset >> bits) > 1;
}

static void
report_at(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset)
{
    q2_violate_text(sink, problem, offset, 1, NULL);
}

/* 1: the table, or bits of it, are shared with something else. */
static int
judge_table(struct q2_bitmap_list *list, const struct q2_bitmap *bitmap, const struct q2_sink *sink,
            struct q2_error *err)
{
    const struct q2_geometry *geometry = &list->scene->check->geometry;
    uint64_t length = (uint64_t)bitmap->table_size * 8;
    uint8_t piece[PIECE_BYTES];
    for (uint64_t done = 0; done < length; done += geometry->cluster_size)
        if (is_shared(list->scene, bitmap->table_offset + done))
            return 1;
    for (uint64_t done = 0; done < length; done += 8) {
        uint64_t at = bitmap->table_offset + done;
        size_t now = (size_t)q2_min(PIECE_BYTES, length - done);
        if (done % PIECE_BYTES == 0) {
            int rc = q2_file_read_padded(list->scene->file, at, piece, now, err);
            if (rc < 0 && rc != Q2_ERR_IO)
                return rc;
            if (rc < 0) {
                report_at(sink, Q2_PROBLEM_BITMAP_TABLE_UNREADABLE, at);
                return 0;
            }
        }
        uint64_t raw = q2_load_be64(piece + done % PIECE_BYTES);
        if (raw && q2_bitmap_entry_validate(geometry, raw, at, sink) &&
            is_shared(list->scene, raw & Q2_ENTRY_OFFSET))
            return 1;
    }
    return 0;
}

int
q2_bitmap_judge(struct q2_bitmap_list *list, const struct q2_bitmap_item *item,
                const struct q2_sink *sink, struct q2_error *err)
{
    bool readable = q2_bitmap_validate(&list->scene->check->geometry, &item->bitmap,
                                       list->bytes + item->at, sink);
    if (item->namesake)
        report_at(sink, Q2_PROBLEM_BITMAP_NAME_DUPLICATE, item->bitmap.at);
    int rc = readable ? judge_table(list, &item->bitmap, sink, err) : 0;
    if (rc > 0)
        report_at(sink, Q2_PROBLEM_OVERLAP_BITMAPS, item->bitmap.table_offset);
    return rc < 0 ? rc : 0;
}

/* ---- finding the directory ---- */

static void
count_fault(void *data, const struct q2_violation *violation)
{
    unsigned *faults = data;
    *faults += violation->problem != Q2_PROBLEM_BITMAP_IN_USE;
}

/* Whether a table is counted: that of a bitmap which was removed is not. */
static bool
is_counted(struct q2_refcount_reader *refcounts, const struct q2_geometry *geometry,
           const struct q2_bitmap *bitmap)
{
    return bitmap->table_size == 0 ||
           q2_refcount_of(refcounts, bitmap->table_offset >> geometry->cluster_bits) > 0;
}

/* Whether all items are beyond reproach, as far as the directory and the refcounts go. */
static int
is_sound(const struct q2_bitmap_list *list, bool *ret_sound, struct q2_error *err)
{
    struct q2_check *check = list->scene->check;
    struct q2_refcount_reader refcounts;
    unsigned faults = 0;
    const struct q2_sink sink = {.report = count_fault, .data = &faults, .wordless = true};
    *ret_sound = false;
    if (!(check->usable & Q2_USABLE_REFCOUNTS))
        return 0;
    int rc = q2_refcount_reader_init(&refcounts, check, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < list->count && !faults; i++) {
        const struct q2_bitmap_item *item = &list->items[i];
        faults += item->namesake;
        q2_bitmap_validate(&check->geometry, &item->bitmap, list->bytes + item->at, &sink);
        if (!faults)
            faults += !is_counted(&refcounts, &check->geometry, &item->bitmap);
    }
    q2_refcount_reader_destroy(&refcounts);
    *ret_sound = list->count && !faults;
    return 0;
}

/* Look at a place whose size, or whose count, may not be known: the largest there can be then. */
static int
look(struct q2_scene *scene, const struct q2_bitmap_place *place, bool exact_size, bool exact_count,
     bool *ret_sound, struct q2_bitmap_place *ret_place, struct q2_error *err)
{
    const struct q2_geometry *geometry = &scene->check->geometry;
    struct q2_bitmap_list list;
    *ret_sound = false;
    if (place->offset == 0 || place->offset % geometry->cluster_size ||
        place->offset >= geometry->file_size || place->count == 0 || place->count > MAX_COUNT ||
        place->size < Q2_BITMAP_FIXED_LENGTH || place->size > Q2_MAX_BITMAP_DIRECTORY_BYTES ||
        (exact_size && !q2_range_inside(place->offset, place->size, geometry->file_size)))
        return 0;
    int rc = q2_bitmap_list_read(scene, place, &list, err);
    if (rc == 0 && (!exact_size || list.used == place->size) &&
        (!exact_count || list.count == place->count))
        rc = is_sound(&list, ret_sound, err);
    if (rc == 0 && *ret_sound)
        *ret_place = (struct q2_bitmap_place){place->offset, list.used, list.count};
    q2_bitmap_list_destroy(&list);
    return rc == Q2_ERR_IO ? 0 : rc;
}

/* A directory elsewhere, one bit away, in a cluster that nothing refers to. */
static int
look_elsewhere(struct q2_scene *scene, const struct q2_bitmap_place *claimed, unsigned *ret_found,
               struct q2_bitmap_place *ret_place, struct q2_error *err)
{
    unsigned found = 0;
    for (unsigned bit = 0; bit < 63 && claimed->size <= MAX_SEARCHED; bit++) {
        struct q2_bitmap_place place = *claimed, seen;
        bool sound;
        place.offset ^= UINT64_C(1) << bit;
        if (place.offset >= scene->check->geometry.file_size ||
            q2_scene_references(scene, place.offset >> scene->check->geometry.cluster_bits))
            continue;
        int rc = look(scene, &place, true, true, &sound, &seen, err);
        if (rc < 0)
            return rc;
        if (sound && found++ == 0)
            *ret_place = seen;
    }
    *ret_found = found;
    return 0;
}

/* Of a size and a count that contradict each other, the one that knows of more bitmaps is right:
 * an entry that is sound does not come about by chance. */
int
q2_bitmap_place_find(struct q2_scene *scene, const struct q2_bitmap_place *claimed, bool *ret_found,
                     struct q2_bitmap_place *ret_place, struct q2_error *err)
{
    struct q2_bitmap_place by_size = *claimed, by_count = *claimed, first = {0}, second = {0};
    unsigned found = 0;
    bool sound, also;
    by_size.count = MAX_COUNT;
    by_count.size =
        q2_min(Q2_MAX_BITMAP_DIRECTORY_BYTES, (uint64_t)claimed->count * MAX_ENTRY_LENGTH);
    int rc = look(scene, &by_size, true, false, &sound, &first, err);
    if (rc == 0)
        rc = look(scene, &by_count, false, true, &also, &second, err);
    if (rc == 0 && !sound && !also) {
        rc = look_elsewhere(scene, claimed, &found, &first, err);
        sound = found == 1;
    }
    if (rc < 0)
        return rc;
    *ret_found = sound || also;
    if (*ret_found)
        *ret_place = first.count >= second.count ? first : second;
    return 0;
}
