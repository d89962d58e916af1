/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent bitmaps, where what leads to them is right by now (fix_bitmap_directory.c), or is
 * beyond help. Those that cannot be relied on go, and the rest move together. A bitmap that is
 * marked in use stays: whoever asks for it is told. */

#include "repair/fix.h"

#include "core/base/endian.h"
#include "repair/bitmap_list.h"
#include "repair/header_area.h"

#include <stdio.h>
#include <string.h>

enum {
    AUTOCLEAR_AT = 88,        /* bytes */
    EVIDENCE_SIZE = 300,      /* bytes */
    BITMAPS_BIT_KEY = 88 * 64 /* as keys of feature bits are in fix_features.c */
};

/* ---- the extension ---- */

/* Take the extension away, and the bit that vouches for it. */
static int
remove_extension(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_header_area area;
    int rc = q2_header_area_read(scene, &area, err);
    if (rc < 0)
        return rc;
    q2_header_area_remove(&area, Q2_EXTENSION_BITMAPS);
    area.header.autoclear_features &= ~(uint64_t)Q2_AUTOCLEAR_BITMAPS;
    rc = q2_header_area_write(scene, &area, err);
    q2_header_area_destroy(&area);
    return rc;
}

/* An extension with a wrong length may have swallowed what follows it. Give it the length that it
 * must have, if extensions follow then up to an end marker. */
static int
cut_extension(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_header_area area;
    struct q2_extension extension;
    int rc = q2_header_area_read(scene, &area, err);
    if (rc < 0)
        return rc;
    const struct q2_header_part *part = q2_header_area_find(&area, Q2_EXTENSION_BITMAPS);
    uint64_t offset = area.header.header_length;
    size_t end = q2_extension_area(&area.header, area.usable, area.length);
    uint64_t at = part ? (uint64_t)(part->data - area.bytes) - 4 : 0;
    if (part) {
        q2_store_be32(area.bytes + at, Q2_EXTENSION_BITMAPS_LENGTH);
        while (q2_extension_next(area.bytes, end, &offset, &extension) > 0) {
        }
        if (extension.type == Q2_EXTENSION_END && extension.length == 0)
            rc = q2_scene_write(scene, Q2_OWNER_HEADER, at, area.bytes + at, 4, err);
    }
    q2_header_area_destroy(&area);
    return rc;
}

static int
remove_all(struct q2_scene *scene, enum q2_problem problem, const char *why, struct q2_error *err)
{
    uint64_t at = scene->check->extensions.bitmaps_at;
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_REMOVE_BITMAPS, Q2_CERTAIN, at, "%s", why);
    if (problem != Q2_PROBLEM_COUNT)
        q2_bitmap_answer(scene, problem);
    else
        q2_bitmap_answer_directory(scene);
    int rc = 0;
    if (apply && problem == Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH)
        rc = cut_extension(scene, err);
    if (apply && rc == 0)
        rc = remove_extension(scene, err);
    q2_plan_end(&scene->plan);
    return rc;
}

/* The names of all bitmaps that the directory has, as far as they fit. */
static int
name_all(struct q2_scene *scene, char *text, size_t size, struct q2_error *err)
{
    struct q2_bitmap_place place = q2_bitmap_place_claimed(scene);
    struct q2_bitmap_list list;
    int rc = q2_bitmap_list_read(scene, &place, &list, err);
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < list.count && used + 80 < size; i++) {
        char name[64];
        q2_printable(name, sizeof name, list.items[i].name, list.items[i].bitmap.name_length);
        int more = snprintf(text + used, size - used, "%s'%s'", i ? ", " : "", name);
        used += more > 0 ? (size_t)more : 0;
        if (i + 1 < list.count && used + 80 >= size)
            snprintf(text + used, size - used, " and others");
    }
    q2_bitmap_list_destroy(&list);
    return rc == Q2_ERR_IO ? 0 : rc;
}

/* Software that knows nothing of bitmaps cleared the bit, as it must when it writes. */
static int
remove_stale(struct q2_scene *scene, struct q2_error *err)
{
    char names[EVIDENCE_SIZE], why[EVIDENCE_SIZE + 120];
    int rc = name_all(scene, names, sizeof names, err);
    if (rc < 0)
        return rc;
    snprintf(why, sizeof why,
             "the autoclear bit is clear, so the image was written to by software that does not "
             "keep bitmaps: %s",
             names[0] ? names : "out of date");
    return remove_all(scene, Q2_PROBLEM_EXTENSION_BITMAPS_STALE, why, err);
}

/* The bit vouches for an extension that is not there. */
static int
clear_bit(struct q2_scene *scene, struct q2_error *err)
{
    uint64_t bits = scene->check->header.autoclear_features;
    int rc = 0;
    bool apply = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_FEATURES, Q2_CERTAIN, BITMAPS_BIT_KEY,
                               "the image has no bitmaps extension for the bit to vouch for");
    q2_bitmap_answer(scene, Q2_PROBLEM_EXTENSION_BITMAPS_MISSING);
    if (apply)
        rc = q2_scene_write64(scene, Q2_OWNER_HEADER, AUTOCLEAR_AT,
                              bits & ~(uint64_t)Q2_AUTOCLEAR_BITMAPS, err);
    q2_plan_end(&scene->plan);
    return rc;
}

/* ---- bitmaps one by one ---- */

struct verdict {
    struct q2_plan *plan; /* to give the answers to; NULL: only count */
    uint64_t faults;      /* that spoil the bitmap */
    bool padding, shared;
    enum q2_problem first;
};

static void
hear(void *data, const struct q2_violation *violation)
{
    struct verdict *verdict = data;
    bool padding = violation->problem == Q2_PROBLEM_BITMAP_PADDING;
    verdict->padding |= padding;
    verdict->shared |= violation->problem == Q2_PROBLEM_OVERLAP_BITMAPS;
    if (verdict->plan && padding)
        q2_plan_answer(verdict->plan, violation->problem, violation->offset, 1);
    if (!q2_bitmap_is_spoilt_by(violation->problem))
        return;
    if (verdict->faults++ == 0)
        verdict->first = violation->problem;
    if (verdict->plan && violation->problem != Q2_PROBLEM_OVERLAP_BITMAPS)
        q2_plan_answer(verdict->plan, violation->problem, violation->offset, 1);
}

/* Overlaps are answered by the cluster, for each bitmap that has a part in them. */
static void
answer_overlaps(struct q2_scene *scene, uint32_t index)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem != Q2_PROBLEM_OVERLAP_BITMAPS || !(finding->has & Q2_HAS_OWNERS))
            continue;
        for (unsigned j = 0; j < 2; j++) {
            const struct q2_owner *owner = &finding->owners[j];
            bool table = owner->kind == Q2_OWNER_BITMAP_TABLE;
            if ((table || owner->kind == Q2_OWNER_BITMAP_DATA) && owner->index == index) {
                bool target = finding->has & Q2_HAS_TARGET;
                q2_plan_answer(&scene->plan, finding->problem,
                               target ? finding->target_offset : finding->host_offset,
                               finding->count);
                break;
            }
        }
    }
}

static bool
begin_action(struct q2_plan *plan, const struct q2_bitmap_item *item, const struct verdict *verdict)
{
    char name[64];
    q2_printable(name, sizeof name, item->name, item->bitmap.name_length);
    if (!verdict->faults)
        return q2_plan_begin(plan, Q2_ACTION_MEND_BITMAP, Q2_CERTAIN, item->bitmap.at,
                             "what pads the entry of bitmap '%s' means nothing", name);
    if (verdict->first == Q2_PROBLEM_OVERLAP_BITMAPS)
        return q2_plan_begin(plan, Q2_ACTION_REMOVE_BITMAP, Q2_CERTAIN, item->bitmap.at,
                             "bitmap '%s' cannot be relied on: it shares clusters with something "
                             "else, or did before this repair",
                             name);
    return q2_plan_begin(plan, Q2_ACTION_REMOVE_BITMAP, Q2_CERTAIN, item->bitmap.at,
                         "bitmap '%s' cannot be relied on: %s", name,
                         q2_problem_id(verdict->first));
}

/* Whether a guest range lies on a part of the bitmap, and what it lost is beyond the level. Without
 * the bitmap nothing would be left of this but a leak. */
static bool
tells_of_damage(const struct q2_scene *scene, uint32_t index)
{
    bool offered = false;
    for (uint64_t i = 0; i < scene->plan.count; i++) {
        const struct q2_action *action = &scene->plan.actions[i];
        for (uint64_t j = 0; !action->applied && j < action->answer_count; j++)
            offered |= action->answers[j].problem == Q2_PROBLEM_OVERLAP_METADATA_DATA;
    }
    for (size_t i = 0; offered && i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem != Q2_PROBLEM_OVERLAP_METADATA_DATA || !(finding->has & Q2_HAS_OWNERS))
            continue;
        for (unsigned j = 0; j < 2; j++) {
            const struct q2_owner *owner = &finding->owners[j];
            if (owner->kind == Q2_OWNER_BITMAP_DIRECTORY ||
                ((owner->kind == Q2_OWNER_BITMAP_TABLE || owner->kind == Q2_OWNER_BITMAP_DATA) &&
                 owner->index == index))
                return true;
        }
    }
    return false;
}

/* Decide about one bitmap. */
static int
treat(struct q2_bitmap_list *list, uint32_t index, bool *changed, struct q2_error *err)
{
    struct q2_bitmap_item *item = &list->items[index];
    struct q2_plan *plan = &list->scene->plan;
    struct verdict verdict = {0};
    const struct q2_sink sink = {.report = hear, .data = &verdict};
    int rc = q2_bitmap_judge(list, item, &sink, err);
    if (rc < 0 || (!verdict.faults && !verdict.padding) || tells_of_damage(list->scene, index))
        return rc;
    bool apply = begin_action(plan, item, &verdict), spoilt = verdict.faults > 0;
    verdict.plan = plan;
    rc = q2_bitmap_judge(list, item, &sink, err);
    if (verdict.shared)
        answer_overlaps(list->scene, index);
    if (apply) {
        const struct q2_bitmap *bitmap = &item->bitmap;
        uint64_t end =
            (uint64_t)Q2_BITMAP_FIXED_LENGTH + bitmap->extra_length + bitmap->name_length;
        q2_plan_written(plan, Q2_OWNER_BITMAP_DIRECTORY, bitmap->at, item->length);
        item->removed = spoilt;
        if (!spoilt)
            memset(list->bytes + item->at + end, 0, (size_t)(item->length - end));
        *changed = true;
    }
    q2_plan_end(plan);
    return rc;
}

/* Move what stays together, and leave no entry behind that could be taken for one. Each action has
 * noted its own part of the directory. */
static int
write_list(struct q2_bitmap_list *list, struct q2_error *err)
{
    struct q2_scene *scene = list->scene;
    struct q2_bitmap_place place = {.offset = list->place.offset};
    for (uint32_t i = 0; i < list->count; i++) {
        const struct q2_bitmap_item *item = &list->items[i];
        if (item->removed)
            continue;
        memmove(list->bytes + place.size, list->bytes + item->at, (size_t)item->length);
        place.size += item->length;
        place.count++;
    }
    memset(list->bytes + place.size, 0, (size_t)(list->used - place.size));
    int rc = q2_scene_write(scene, Q2_OWNER_BITMAP_DIRECTORY, place.offset, list->bytes,
                            (size_t)list->used, err);
    return rc < 0 || place.count == list->count ? rc : q2_bitmap_place_write(scene, &place, err);
}

static int
finish(struct q2_bitmap_list *list, struct q2_error *err)
{
    struct q2_plan *plan = &list->scene->plan;
    for (uint32_t i = 0; i < list->count; i++)
        if (!list->items[i].removed)
            return write_list(list, err);
    int rc = 0;
    if (q2_plan_begin(plan, Q2_ACTION_REMOVE_BITMAPS, Q2_CERTAIN,
                      list->scene->check->extensions.bitmaps_at,
                      "no bitmap is left, and there is no empty bitmap directory"))
        rc = remove_extension(list->scene, err);
    q2_plan_end(plan);
    return rc;
}

static int
remove_spoilt(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_bitmap_place place = q2_bitmap_place_claimed(scene);
    struct q2_bitmap_list list;
    bool changed = false;
    int rc = q2_bitmap_list_read(scene, &place, &list, err);
    for (uint32_t i = 0; i < list.count && rc == 0; i++)
        rc = treat(&list, i, &changed, err);
    if (rc == 0 && changed)
        rc = finish(&list, err);
    q2_bitmap_list_destroy(&list);
    return rc == Q2_ERR_IO ? 0 : rc;
}

/* ---- the whole ---- */

int
q2_fix_bitmaps(struct q2_scene *scene, struct q2_error *err)
{
    if (!(scene->check->usable & Q2_USABLE_EXTENSIONS))
        return 0;
    if (q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH))
        return remove_all(scene, Q2_PROBLEM_EXTENSION_BITMAPS_LENGTH,
                          "the bitmaps extension has a wrong length, and with the right one it "
                          "leads to no sound directory",
                          err);
    if (q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_MISSING))
        return clear_bit(scene, err);
    if (!scene->check->extensions.has_bitmaps)
        return 0;
    if (q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BITMAPS_STALE))
        return remove_stale(scene, err);
    if (q2_bitmap_directory_is_broken(scene))
        return remove_all(scene, Q2_PROBLEM_COUNT,
                          "the bitmap directory is broken, and no other reading of what the "
                          "extension says leads to a sound one",
                          err);
    return remove_spoilt(scene, err);
}
