/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_area.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <string.h>

static void
ignore(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* ---- taking apart ---- */

static int
grow(struct q2_header_area *area, struct q2_error *err)
{
    if (area->count < area->capacity)
        return 0;
    uint32_t larger = area->capacity ? area->capacity * 2 : 16;
    void *memory = area->parts;
    int rc = q2_budget_grow(area->budget, area->capacity, larger, sizeof *area->parts,
                            "header extensions", &memory, err);
    if (rc < 0)
        return rc;
    area->parts = memory;
    area->capacity = larger;
    return 0;
}

int
q2_header_area_add(struct q2_header_area *area, uint32_t type, const uint8_t *data, uint32_t length,
                   struct q2_error *err)
{
    int rc = grow(area, err);
    if (rc == 0)
        area->parts[area->count++] =
            (struct q2_header_part){.type = type, .length = length, .data = data};
    return rc;
}

static int
take_parts(struct q2_header_area *area, struct q2_error *err)
{
    size_t end = q2_extension_area(&area->header, area->usable, area->length);
    uint64_t offset = area->header.header_length;
    struct q2_extension extension;
    int more;
    if (!(area->usable & Q2_USABLE_EXTENSIONS))
        return 0;
    while ((more = q2_extension_next(area->bytes, end, &offset, &extension)) > 0) {
        int rc = q2_header_area_add(area, extension.type, extension.data, extension.length, err);
        if (rc < 0)
            return rc;
    }
    area->parts_end = extension.offset + Q2_EXTENSION_HEADER_LENGTH;
    area->ended = more == 0 && (extension.type == Q2_EXTENSION_END || area->header.version < 3 ||
                                end != area->header.backing_file_offset);
    return 0;
}

static int
take_apart(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    uint8_t first[Q2_HEADER_KNOWN_LENGTH] = {0};
    uint64_t file_size;
    int rc = q2_file_size(scene->file, &file_size, err);
    if (rc == 0)
        rc = q2_file_read_padded(scene->file, 0, first, sizeof first, err);
    if (rc < 0)
        return rc;
    q2_header_decode(first, (size_t)q2_min(file_size, sizeof first), &area->header);
    const struct q2_sink quiet = {.report = ignore};
    area->usable = q2_header_validate(&area->header, file_size, &quiet);
    if (!(area->usable & Q2_USABLE_GEOMETRY) || file_size < Q2_HEADER_V2_LENGTH)
        return q2_error_set(err, Q2_ERR_FORMAT, "%s: the header says no cluster size",
                            scene->file->name);
    area->length = q2_min(UINT64_C(1) << area->header.cluster_bits, file_size);
    void *memory;
    rc = q2_budget_calloc(area->budget, area->length, 1, "the first cluster", &memory, err);
    if (rc < 0)
        return rc;
    area->bytes = memory;
    rc = q2_file_read(scene->file, 0, area->bytes, area->length, err);
    if (rc == 0 && area->header.backing_file_offset && (area->usable & Q2_USABLE_BACKING_NAME)) {
        area->backing = area->bytes + area->header.backing_file_offset;
        area->backing_length = area->header.backing_file_size;
    }
    return rc < 0 ? rc : take_parts(area, err);
}

int
q2_header_area_read(struct q2_scene *scene, struct q2_header_area *ret_area, struct q2_error *err)
{
    struct q2_header_area area = {.budget = &scene->budget};
    int rc = take_apart(scene, &area, err);
    if (rc < 0)
        q2_header_area_destroy(&area);
    else
        *ret_area = area;
    return rc;
}

void
q2_header_area_destroy(struct q2_header_area *area)
{
    if (!area || !area->budget)
        return;
    q2_budget_free(area->budget, area->bytes, area->length, 1);
    q2_budget_free(area->budget, area->parts, area->capacity, sizeof *area->parts);
    area->bytes = NULL;
    area->parts = NULL;
}

/* ---- changing ---- */

struct q2_header_part *
q2_header_area_find(struct q2_header_area *area, uint32_t type)
{
    for (uint32_t i = 0; i < area->count; i++)
        if (area->parts[i].type == type)
            return &area->parts[i];
    return NULL;
}

void
q2_header_area_remove_at(struct q2_header_area *area, uint32_t index)
{
    area->count--;
    memmove(area->parts + index, area->parts + index + 1,
            (area->count - index) * sizeof *area->parts);
}

uint32_t
q2_header_area_remove(struct q2_header_area *area, uint32_t type)
{
    uint32_t removed = 0;
    for (uint32_t i = area->count; i-- > 0;)
        if (area->parts[i].type == type) {
            q2_header_area_remove_at(area, i);
            removed++;
        }
    return removed;
}

/* ---- putting together ---- */

/* Bytes that the parts take, with their end marker; software does without one in version 2, where
 * nothing follows the header, but it does no harm. */
static uint64_t
parts_length(const struct q2_header_area *area)
{
    uint64_t length = Q2_EXTENSION_HEADER_LENGTH;
    for (uint32_t i = 0; i < area->count; i++)
        length +=
            Q2_EXTENSION_HEADER_LENGTH + (((uint64_t)area->parts[i].length + 7) & ~UINT64_C(7));
    return length;
}

/* Where what the area holds now ends: behind it the cluster is left alone. */
static uint64_t
old_end(const struct q2_header_area *area)
{
    uint64_t end = area->parts_end;
    if (area->backing)
        end = q2_max(end, (uint64_t)(area->backing - area->bytes) + area->backing_length);
    return q2_min(end, area->length);
}

/* Compose into `to`, of area->length bytes, which holds what is there now. */
static int
compose(const struct q2_header_area *area, struct q2_header *header, uint8_t *to,
        struct q2_error *err)
{
    uint64_t at = header->version < 3 ? Q2_HEADER_V2_LENGTH : header->header_length;
    uint64_t parts = parts_length(area);
    if (!q2_range_inside(at, parts + area->backing_length, area->length))
        return q2_error_set(err, Q2_ERR_NOSPACE,
                            "header extensions of %llu bytes and a backing file name of %u do not "
                            "fit into the first %llu bytes",
                            (unsigned long long)parts, area->backing_length,
                            (unsigned long long)area->length);
    if (old_end(area) > at)
        memset(to + at, 0, old_end(area) - at);
    for (uint32_t i = 0; i < area->count; i++) {
        const struct q2_header_part *part = &area->parts[i];
        q2_store_be32(to + at, part->type);
        q2_store_be32(to + at + 4, part->length);
        if (part->length)
            memcpy(to + at + Q2_EXTENSION_HEADER_LENGTH, part->data, part->length);
        at += Q2_EXTENSION_HEADER_LENGTH + (((uint64_t)part->length + 7) & ~UINT64_C(7));
    }
    memset(to + at, 0, Q2_EXTENSION_HEADER_LENGTH);
    at += Q2_EXTENSION_HEADER_LENGTH;
    if (area->backing) {
        /* Where it was, if that is behind all else: less changes. */
        uint64_t was = (uint64_t)(area->backing - area->bytes);
        bool stays = was >= at && q2_range_inside(was, area->backing_length, area->length);
        header->backing_file_offset = stays ? was : at;
        header->backing_file_size = area->backing_length;
        memcpy(to + header->backing_file_offset, area->backing, area->backing_length);
    }
    q2_header_encode(header, to);
    return 0;
}

/* Write what differs. */
static int
write_difference(struct q2_scene *scene, const uint8_t *old, const uint8_t *new, uint64_t length,
                 struct q2_error *err)
{
    uint64_t first = 0, end = length;
    while (first < end && old[first] == new[first])
        first++;
    while (end > first && old[end - 1] == new[end - 1])
        end--;
    if (first == end)
        return 0;
    return q2_scene_write(scene, Q2_OWNER_HEADER, first, new + first, end - first, err);
}

int
q2_header_area_write(struct q2_scene *scene, struct q2_header_area *area, struct q2_error *err)
{
    struct q2_header header = area->header;
    void *memory;
    int rc = q2_budget_calloc(area->budget, area->length, 1, "the first cluster", &memory, err);
    if (rc < 0)
        return rc;
    memcpy(memory, area->bytes, area->length);
    rc = compose(area, &header, memory, err);
    if (rc == 0)
        rc = write_difference(scene, area->bytes, memory, area->length, err);
    q2_budget_free(area->budget, memory, area->length, 1);
    return rc;
}

int
q2_header_write(struct q2_scene *scene, const struct q2_header *header, struct q2_error *err)
{
    uint8_t old[Q2_HEADER_KNOWN_LENGTH], new[Q2_HEADER_KNOWN_LENGTH];
    int rc = q2_file_read_padded(scene->file, 0, old, sizeof old, err);
    if (rc < 0)
        return rc;
    memcpy(new, old, sizeof new);
    size_t length = q2_header_encode(header, new);
    return write_difference(scene, old, new, length, err);
}
