/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading a piece: what the maps of the sources say about each sector first, then the data in as
 * few requests as there are runs of it. */

#include "core/tool/copy_parts.h"

#include "core/base/checked.h"

#include <inttypes.h>
#include <string.h>

static const struct copy_source *
source_at(const struct copy *copy, uint64_t offset)
{
    unsigned i = copy->source_count - 1;
    while (i > 0 && offset < copy->sources[i].at)
        i--;
    return &copy->sources[i];
}

static enum copy_kind
kind_of(const struct copy_state *state, const struct q2_extent *extent, uint64_t at)
{
    bool own = state->copy->flags & COPY_OWN;
    if (own && (!extent->present || extent->depth > 0))
        return COPY_SKIP;
    if (!extent->zero || !state->copy->sparse)
        return COPY_DATA;
    return own && at >= state->copy->backing_size ? COPY_SKIP : COPY_ZERO;
}

int
copy_status(const struct copy_state *state, uint64_t offset, uint64_t end, enum copy_kind *ret_kind,
            uint64_t *ret_end, struct q2_error *err)
{
    const struct copy *copy = state->copy;
    const struct copy_source *source = source_at(copy, offset);
    uint64_t inside = offset - source->at;
    end = q2_min(end, source->at + source->length);
    if (offset < copy->backing_size)
        end = q2_min(end, copy->backing_size);
    if (inside >= source->length) { /* what is missing from a source's last sector */
        *ret_kind = state->copy->sparse ? COPY_ZERO : COPY_DATA;
        *ret_end = source->at + (source->length + COPY_SECTOR - 1) / COPY_SECTOR * COPY_SECTOR;
        return 0;
    }
    struct q2_extent extent;
    int rc = q2_disk_map(source->disk, source->from + inside, end - offset, &extent, err);
    if (rc < 0) {
        if (!(copy->flags & COPY_SALVAGE))
            return rc;
        *ret_kind = COPY_DATA; /* reading it says what is wrong with it */
        *ret_end = q2_min(end, (offset / state->piece + 1) * state->piece);
        return 0;
    }
    *ret_kind = kind_of(state, &extent, offset);
    *ret_end = offset + extent.length;
    return 0;
}

/* A sector that two kinds share is read. */
static void
mark(struct copy_worker *worker, uint64_t begin, uint64_t end, enum copy_kind kind)
{
    if (begin % COPY_SECTOR && worker->kinds[begin / COPY_SECTOR] != kind)
        worker->kinds[begin / COPY_SECTOR] = COPY_DATA;
    size_t first = (size_t)((begin + COPY_SECTOR - 1) / COPY_SECTOR);
    size_t last = (size_t)((end + COPY_SECTOR - 1) / COPY_SECTOR);
    if (last > first)
        memset(worker->kinds + first, (int)kind, last - first);
}

static int
mark_piece(const struct copy_state *state, struct copy_worker *worker, const struct q2_piece *piece,
           struct q2_error *err)
{
    uint64_t offset = piece->offset, end = offset + piece->length;
    while (offset < end) {
        enum copy_kind kind;
        uint64_t kind_end;
        int rc = copy_status(state, offset, end, &kind, &kind_end, err);
        if (rc < 0)
            return rc;
        kind_end = q2_min(kind_end, end);
        mark(worker, offset - piece->offset, kind_end - piece->offset, kind);
        offset = kind_end;
    }
    return 0;
}

/* Sector by sector, where more at once failed. */
static void
salvage(const struct copy_state *state, const struct copy_source *source, uint64_t offset,
        uint8_t *buffer, size_t length)
{
    for (size_t done = 0; done < length; done += COPY_SECTOR) {
        struct q2_error error = {0};
        size_t part = (size_t)q2_min(length - done, COPY_SECTOR);
        uint64_t inside = offset + done - source->at;
        if (q2_disk_read(source->disk, source->from + inside, buffer + done, part, &error) == 0)
            continue;
        memset(buffer + done, 0, part);
        if (!(state->copy->flags & COPY_QUIET))
            tool_say("warning: error while reading offset %" PRIu64 ": %s", offset + done,
                     error.message);
    }
}

/* Read [offset, offset + length) of the target's content. */
static int
read_run(const struct copy_state *state, uint64_t offset, uint8_t *buffer, size_t length,
         struct q2_error *err)
{
    while (length > 0) {
        const struct copy_source *source = source_at(state->copy, offset);
        uint64_t inside = offset - source->at;
        uint64_t left = inside < source->length ? source->length - inside : 0;
        size_t part = (size_t)q2_min(length, left ? left : COPY_SECTOR - inside % COPY_SECTOR);
        if (left == 0) {
            memset(buffer, 0, part);
        } else {
            struct q2_error error = {0};
            int rc = q2_disk_read(source->disk, source->from + inside, buffer, part, &error);
            if (rc < 0 && !(state->copy->flags & COPY_SALVAGE))
                return q2_error_set(err, (enum q2_error_code)rc,
                                    "error while reading at byte %" PRIu64 ": %s", offset,
                                    error.message);
            if (rc < 0)
                salvage(state, source, offset, buffer, part);
        }
        buffer += part;
        offset += part;
        length -= part;
    }
    return 0;
}

int
copy_read_piece(const struct copy_state *state, struct copy_worker *worker,
                const struct q2_piece *piece, struct q2_error *err)
{
    int rc = mark_piece(state, worker, piece, err);
    if (rc < 0)
        return rc;
    copy_unify_piece(state, worker, piece);
    size_t sectors = copy_sectors(piece);
    for (size_t first = 0, last; rc == 0 && first < sectors; first = last) {
        last = copy_run_end(worker->kinds, first, sectors);
        uint64_t begin = first * COPY_SECTOR;
        uint64_t end = q2_min(last * COPY_SECTOR, piece->length);
        if (worker->kinds[first] == COPY_DATA)
            rc = read_run(state, piece->offset + begin, worker->buffer + begin,
                          (size_t)(end - begin), err);
    }
    return rc;
}
