/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_extensions.h"

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/header_area.h"

#include <string.h>

enum { MAX_STRETCH = 4096 }; /* bytes behind a broken extension where the next is looked for */

/* ---- what all have in common ---- */

static void
answer_all(struct q2_scene *scene, enum q2_problem problem)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (finding->problem == problem)
            q2_plan_answer(&scene->plan, problem, finding->host_offset, finding->count);
    }
}

/* Write the area as an action that has begun, or not. */
static int
finish(struct q2_scene *scene, struct q2_header_area *area, bool permitted, enum q2_problem problem,
       struct q2_error *err)
{
    answer_all(scene, problem);
    int rc = permitted ? q2_header_area_write(scene, area, err) : 0;
    q2_plan_end(&scene->plan);
    return rc == Q2_ERR_NOSPACE ? 0 : rc;
}

/* ---- one function for each problem ---- */

static int
fix_feature_table(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    q2_header_area_remove(area, Q2_EXTENSION_FEATURES);
    bool permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN,
                                   area->header.header_length,
                                   "the feature name table holds nothing but names, for messages, "
                                   "and is not well formed");
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_FEATURE_TABLE, err);
}

static int
fix_no_end(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    uint64_t room = area->length;
    if (area->backing)
        room = (uint64_t)(area->backing - area->bytes);
    /* Without room for it, and nothing behind, none is needed. */
    if (area->count == 0 && room < area->header.header_length + Q2_EXTENSION_HEADER_LENGTH)
        return 0;
    bool permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN, area->parts_end,
                      "all %u header extensions can be followed, but there is no end "
                      "marker behind them",
                      area->count);
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_NO_END, err);
}

static bool
same_part(const struct q2_header_part *a, const struct q2_header_part *b)
{
    return a->type == b->type && a->length == b->length && memcmp(a->data, b->data, a->length) == 0;
}

/* Keep the first of each type. */
static int
fix_duplicate(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    bool identical = true;
    uint32_t type = 0;
    for (uint32_t i = area->count; i-- > 1;)
        for (uint32_t j = 0; j < i; j++) {
            if (area->parts[i].type != area->parts[j].type)
                continue;
            type = area->parts[i].type;
            identical &= same_part(&area->parts[i], &area->parts[j]);
            q2_header_area_remove_at(area, i);
            break;
        }
    if (!type)
        return 0;
    bool permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, identical ? Q2_CERTAIN : Q2_GUESS,
                      area->header.header_length,
                      identical ? "header extension 0x%08x is there twice, with the same content"
                                : "header extension 0x%08x is there twice, and the first is kept",
                      type);
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_DUPLICATE, err);
}

/* Backing formats by the names that software gives them. */
static const char *const formats[] = {"raw",  "qcow2", "qcow",      "qed",  "vmdk", "vdi",
                                      "vhdx", "vpc",   "parallels", "luks", "bochs"};
enum { FORMAT_COUNT = sizeof formats / sizeof formats[0] };

static unsigned
distance(const uint8_t *a, const char *b, size_t length)
{
    unsigned bits = 0;
    for (size_t i = 0; i < length; i++)
        bits += (unsigned)__builtin_popcount(a[i] ^ (uint8_t)b[i]);
    return bits;
}

/* The only name that differs in one bit, or NULL. */
static const char *
close_format(const struct q2_header_part *part)
{
    const char *found = NULL;
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        size_t length = strlen(formats[i]);
        if (part->length != length || distance(part->data, formats[i], length) != 1)
            continue;
        if (found)
            return NULL;
        found = formats[i];
    }
    return found;
}

static int
fix_backing_format(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    struct q2_header_part *part = q2_header_area_find(area, Q2_EXTENSION_BACKING_FORMAT);
    if (!part)
        return 0;
    const char *name = close_format(part);
    bool permitted;
    if (name) {
        part->data = (const uint8_t *)name;
        permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN,
                                  area->header.header_length,
                                  "the backing format differs from \"%s\" in one bit, and from no "
                                  "other known name",
                                  name);
    } else {
        q2_header_area_remove(area, Q2_EXTENSION_BACKING_FORMAT);
        permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_LIKELY,
                                  area->header.header_length,
                                  "the backing format is no name, and without it software finds "
                                  "out by itself; set it with qcow2-img rebase -u -F");
    }
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_BACKING_FORMAT, err);
}

/* Printable bytes at `at` of the first cluster. */
static uint32_t
text_length(const struct q2_header_area *area, uint64_t at)
{
    uint32_t length = 0;
    while (at + length < area->length && length <= Q2_MAX_NAME &&
           area->bytes[at + length] >= 0x20 && area->bytes[at + length] != 0x7f)
        length++;
    return length;
}

/* Take the text at `at` for the backing file's name. */
static bool
take_name(struct q2_header_area *area, uint64_t at)
{
    uint32_t length = at >= area->parts_end ? text_length(area, at) : 0;
    if (length == 0 || length > Q2_MAX_NAME)
        return false;
    area->backing = area->bytes + at;
    area->backing_length = length;
    return true;
}

static int
fix_format_unused(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    bool permitted;
    if (area->backing || area->header.backing_file_offset)
        return 0;
    if (take_name(area, area->parts_end)) {
        bool exact = area->backing_length == area->header.backing_file_size;
        permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS,
                                  exact ? Q2_CERTAIN : Q2_LIKELY, 8,
                                  "there is a backing format, and where software puts the name of "
                                  "a backing file there is a text of %u bytes, of which the header "
                                  "counts %u",
                                  area->backing_length, area->header.backing_file_size);
        q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, 0, 0, area->header.size);
    } else if (area->header.backing_file_size == 0) {
        q2_header_area_remove(area, Q2_EXTENSION_BACKING_FORMAT);
        permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN,
                                  area->header.header_length,
                                  "there is a backing format, but neither a backing file nor a "
                                  "trace of a name for one");
    } else {
        return 0;
    }
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_BACKING_FORMAT_UNUSED, err);
}

/* A name of no bytes says nothing. */
static int
fix_data_file_name(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    struct q2_header_part *part = q2_header_area_find(area, Q2_EXTENSION_DATA_FILE);
    if (!part || part->length)
        return 0;
    q2_header_area_remove(area, Q2_EXTENSION_DATA_FILE);
    bool permitted = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN,
                                   area->header.header_length,
                                   "the name of the data file is empty, so that it has to be given "
                                   "in any case");
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_DATA_FILE_NAME, err);
}

static int
fix_data_file_unused(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    q2_header_area_remove(area, Q2_EXTENSION_DATA_FILE);
    bool sound = scene->check->counts.corruptions == 0 && scene->check->counts.leaks == 0;
    bool mapped = scene->check->counts.allocated_clusters > 0;
    bool permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS,
                      sound && mapped ? Q2_LIKELY : Q2_GUESS, area->header.header_length,
                      "there is the name of a data file, but the guest's %llu clusters are in the "
                      "image itself",
                      (unsigned long long)scene->check->counts.allocated_clusters);
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED, err);
}

/* ---- an extension that is too long ---- */

/* Whether the area from `at` on is extensions of known types, or none, with a proper end. */
static bool
ends_well(const struct q2_header_area *area, uint64_t at, uint64_t end)
{
    struct q2_extension extension;
    int more;
    while ((more = q2_extension_next(area->bytes, (size_t)end, &at, &extension)) > 0)
        switch (extension.type) {
        case Q2_EXTENSION_BITMAPS:
        case Q2_EXTENSION_CRYPTO:
        case Q2_EXTENSION_DATA_FILE:
        case Q2_EXTENSION_FEATURES:
        case Q2_EXTENSION_BACKING_FORMAT:
            break;
        default:
            return false;
        }
    return more == 0 && extension.type == Q2_EXTENSION_END;
}

/* The extension behind the last part that can be followed: give it the smallest length with which
 * the rest makes sense. */
static int
take_stretch(struct q2_header_area *area, struct q2_error *err)
{
    uint64_t at = area->parts_end - Q2_EXTENSION_HEADER_LENGTH, end = area->length;
    uint64_t data = at + Q2_EXTENSION_HEADER_LENGTH;
    if (area->backing)
        end = (uint64_t)(area->backing - area->bytes);
    if (!q2_range_inside(at, Q2_EXTENSION_HEADER_LENGTH, end))
        return 0;
    uint32_t type = q2_load_be32(area->bytes + at);
    for (uint64_t length = 8; length < MAX_STRETCH && data + length < end && type; length += 8) {
        struct q2_extension extension;
        uint64_t offset = data + length;
        if (!ends_well(area, offset, end))
            continue;
        uint64_t used = length;
        bool is_text = type == Q2_EXTENSION_BACKING_FORMAT || type == Q2_EXTENSION_DATA_FILE;
        while (is_text && used > 0 && area->bytes[data + used - 1] == 0)
            used--;
        int rc = q2_header_area_add(area, type, area->bytes + data, (uint32_t)used, err);
        while (rc == 0 && q2_extension_next(area->bytes, (size_t)end, &offset, &extension) > 0)
            rc = q2_header_area_add(area, extension.type, extension.data, extension.length, err);
        area->parts_end = q2_max(area->parts_end, offset + Q2_EXTENSION_HEADER_LENGTH);
        return rc;
    }
    return 0;
}

/* Whether a part that was given another length is what it should be beyond doubt. */
static bool
is_exact(const struct q2_header_part *part)
{
    switch (part->type) {
    case Q2_EXTENSION_CRYPTO:
        return part->length == Q2_EXTENSION_CRYPTO_LENGTH;
    case Q2_EXTENSION_BITMAPS:
        return part->length == Q2_EXTENSION_BITMAPS_LENGTH;
    case Q2_EXTENSION_BACKING_FORMAT:
        for (size_t i = 0; i < FORMAT_COUNT; i++)
            if (part->length == strlen(formats[i]) &&
                memcmp(part->data, formats[i], part->length) == 0)
                return true;
        return false;
    default:
        return false;
    }
}

static int
fix_past_area(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    uint64_t at = area->parts_end - Q2_EXTENSION_HEADER_LENGTH;
    uint32_t before = area->count;
    /* All that is wrong is the length of an end marker. */
    if (q2_range_inside(at, 4, area->length) &&
        q2_load_be32(area->bytes + at) == Q2_EXTENSION_END) {
        bool sure = q2_plan_begin(&scene->plan, Q2_ACTION_MEND_EXTENSIONS, Q2_CERTAIN, at,
                                  "the end marker of the header extensions claims a length");
        return finish(scene, area, sure, Q2_PROBLEM_EXTENSION_PAST_AREA, err);
    }
    int rc = take_stretch(area, err);
    if (rc < 0)
        return rc;
    enum q2_confidence confidence = area->count > before ? Q2_LIKELY : Q2_GUESS;
    if (area->count > before && is_exact(&area->parts[before]))
        confidence = Q2_CERTAIN;
    bool permitted = q2_plan_begin(
        &scene->plan, Q2_ACTION_MEND_EXTENSIONS, confidence, at,
        area->count > before
            ? "what is behind the header extension at %llu makes sense with another length of it"
            : "the header extension at %llu, and what is behind it, cannot be followed",
        (unsigned long long)at);
    return finish(scene, area, permitted, Q2_PROBLEM_EXTENSION_PAST_AREA, err);
}

/* ---- the backing file's name ---- */

/* There is no text that could be one. */
static int
clear_backing_name(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    bool format = q2_header_area_find(area, Q2_EXTENSION_BACKING_FORMAT);
    if (area->backing)
        return 0;
    bool permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_HEADER, format ? Q2_GUESS : Q2_LIKELY, 8,
                      "the fields say %u bytes at offset %llu, but there is no text in the header "
                      "area that could be the name of a backing file%s",
                      area->header.backing_file_size,
                      (unsigned long long)area->header.backing_file_offset,
                      format ? ", only the name of its format" : "");
    q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, 0, 0, area->header.size);
    area->header.backing_file_offset = area->header.backing_file_size = 0;
    return finish(scene, area, permitted, Q2_PROBLEM_HEADER_BACKING_NAME, err);
}

static int
fix_backing_name(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    /* Where the fields say, or behind the extensions. */
    if (area->backing ||
        (!take_name(area, area->header.backing_file_offset) && !take_name(area, area->parts_end)))
        return clear_backing_name(scene, area, err);
    /* Where software puts it, and one of the two fields agrees. */
    bool sure = area->backing == area->bytes + area->parts_end &&
                (area->backing_length == area->header.backing_file_size ||
                 area->header.backing_file_offset == area->parts_end);
    bool permitted =
        q2_plan_begin(&scene->plan, Q2_ACTION_MEND_HEADER, sure ? Q2_CERTAIN : Q2_LIKELY, 8,
                      "the fields say %u bytes at offset %llu; there is a text of %u "
                      "bytes at %llu",
                      area->header.backing_file_size,
                      (unsigned long long)area->header.backing_file_offset, area->backing_length,
                      (unsigned long long)(area->backing - area->bytes));
    q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, 0, 0, area->header.size);
    return finish(scene, area, permitted, Q2_PROBLEM_HEADER_BACKING_NAME, err);
}

static const struct {
    enum q2_problem problem;
    int (*fix)(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err);
} fixes[] = {
    {Q2_PROBLEM_HEADER_BACKING_NAME, fix_backing_name},
    {Q2_PROBLEM_EXTENSION_PAST_AREA, fix_past_area},
    {Q2_PROBLEM_EXTENSION_DUPLICATE, fix_duplicate},
    {Q2_PROBLEM_EXTENSION_FEATURE_TABLE, fix_feature_table},
    {Q2_PROBLEM_EXTENSION_BACKING_FORMAT, fix_backing_format},
    {Q2_PROBLEM_EXTENSION_BACKING_FORMAT_UNUSED, fix_format_unused},
    {Q2_PROBLEM_EXTENSION_DATA_FILE_NAME, fix_data_file_name},
    {Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED, fix_data_file_unused},
    {Q2_PROBLEM_EXTENSION_NO_END, fix_no_end},
};

/* Each in turn on the newest state: one may uncover another. */
int
q2_header_fix_extensions(struct q2_scene *scene, struct q2_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < sizeof fixes / sizeof fixes[0] && rc == 0; i++) {
        struct q2_header_area area = {.budget = NULL};
        if (!q2_scene_count(scene, fixes[i].problem))
            continue;
        rc = q2_header_area_read(scene, &area, err);
        if (rc == 0)
            rc = fixes[i].fix(scene, &area, err);
        q2_header_area_destroy(&area);
        if (rc == 0)
            rc = q2_scene_recheck(scene, err);
    }
    return rc;
}
