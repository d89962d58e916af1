/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The guest's view of the disk, kept as a flat file in memory: what every image must read as. */

#include "corpus/recipe/build.h"

#include "core/base/checked.h"

#include <string.h>

enum { CHUNK = 64 << 10, GRAIN = 4096 };

int
recipe_zero_file(struct q2_file *file, uint64_t offset, uint64_t length, struct q2_error *err)
{
    uint64_t size = 0, end;
    if (!q2_add(offset, length, &end))
        return q2_error_set(err, Q2_ERR_RANGE, "%s would be larger than 2^64 bytes", file->name);
    int rc = q2_file_size(file, &size, err);
    if (rc == 0 && offset < size && length)
        rc = q2_file_punch(file, offset, q2_min(length, size - offset), err);
    return rc || end <= size ? rc : q2_file_truncate(file, end, err);
}

int
recipe_fill_file(struct q2_file *file, uint64_t offset, uint64_t length,
                 const struct recipe_pattern *pattern, struct q2_error *err)
{
    uint8_t chunk[CHUNK];
    int rc = 0;
    if (pattern->kind == PATTERN_BYTE && pattern->seed == 0)
        return recipe_zero_file(file, offset, length, err);
    for (uint64_t done = 0; done < length && rc == 0;) {
        size_t part = (size_t)q2_min(length - done, CHUNK);
        recipe_pattern_fill(pattern, done, chunk, part);
        rc = q2_file_write(file, offset + done, chunk, part, err);
        done += part;
    }
    return rc;
}

static bool
all_zero(const uint8_t *bytes, size_t length)
{
    return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

int
recipe_put(struct q2_file *file, uint64_t offset, const uint8_t *bytes, uint64_t length,
           struct q2_error *err)
{
    int rc = 0;
    for (uint64_t at = 0; at < length && rc == 0;) {
        size_t part = (size_t)q2_min(GRAIN - (offset + at) % GRAIN, length - at);
        if (!all_zero(bytes + at, part))
            rc = q2_file_write(file, offset + at, bytes + at, part, err);
        at += part;
    }
    return rc;
}

int
recipe_view_fill(struct recipe_build *build, uint64_t offset, uint64_t length,
                 const struct recipe_pattern *pattern)
{
    return recipe_fill_file(build->view, offset, length, pattern, build->err);
}

int
recipe_view_zero(struct recipe_build *build, uint64_t offset, uint64_t length)
{
    uint64_t size = 0;
    int rc = q2_file_size(build->view, &size, build->err);
    if (rc || offset >= size)
        return rc;
    return q2_file_punch(build->view, offset, q2_min(length, size - offset), build->err);
}

int
recipe_view_backing(struct recipe_build *build, uint64_t offset, uint64_t length)
{
    int rc = recipe_view_zero(build, offset, length);
    if (rc || !build->backing_file)
        return rc;
    const struct recipe_clause *file = &build->backing_file->clauses[0];
    const struct recipe_pattern *pattern = &file->arguments[2].pattern;
    uint64_t size = file->arguments[1].number->number;
    uint64_t end = q2_min(offset + length, size);
    uint8_t chunk[CHUNK];
    for (uint64_t at = offset; at < end && rc == 0;) {
        size_t part = (size_t)q2_min(end - at, CHUNK);
        recipe_pattern_fill(pattern, at, chunk, part);
        rc = q2_file_write(build->view, at, chunk, part, build->err);
        at += part;
    }
    return rc;
}

int
recipe_view_save(struct recipe_build *build)
{
    uint8_t chunk[CHUNK];
    uint64_t size = 0, disk = build->header.size;
    build->guest_saved = true;
    int rc = q2_file_truncate(build->target->guest, disk, build->err);
    rc = rc ? rc : q2_file_size(build->view, &size, build->err);
    for (uint64_t at = 0; rc == 0 && at < q2_min(size, disk);) {
        bool data = false;
        uint64_t end = 0;
        rc = q2_file_extent(build->view, at, &data, &end, build->err);
        end = q2_min(end, q2_min(size, disk));
        for (; rc == 0 && data && at < end;) {
            size_t part = (size_t)q2_min(end - at, CHUNK);
            rc = q2_file_read(build->view, at, chunk, part, build->err);
            rc = rc ? rc : recipe_put(build->target->guest, at, chunk, part, build->err);
            at += part;
        }
        at = end;
    }
    return rc;
}
