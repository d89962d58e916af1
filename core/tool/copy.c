/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The disk is cut into pieces of a few megabytes, large enough that requests are large, small
 * enough that a piece is still in the processor's cache when it is written. Long stretches without
 * data are passed over while cutting; the threads look at the rest sector by sector. */

#include "core/tool/copy.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/tool/copy_parts.h"

#include <inttypes.h>
#include <stdlib.h>

enum { PIECE = 1 << 20, GRAIN_MAX = 64 << 10 };

/* As much as is zeroed with one request: progress is shown in between. */
#define ZERO_PIECE (UINT64_C(1) << 30)

/* How far the stretch of one kind that begins at state->next can be dealt with without reading; it
 * ends where pieces do. 0: not at all. */
static int
look_ahead(const struct copy_state *state, enum copy_kind *ret_kind, uint64_t *ret_length,
           struct q2_error *err)
{
    enum copy_kind kind;
    uint64_t end;
    int rc = copy_status(state, state->next, state->total, &kind, &end, err);
    if (rc < 0)
        return rc;
    uint64_t whole = end >= state->total ? state->total : end / state->piece * state->piece;
    *ret_length = kind != COPY_DATA && whole > state->next ? whole - state->next : 0;
    *ret_kind = kind;
    return 0;
}

static int
next_piece(void *data, struct q2_piece *ret_piece, struct q2_error *err)
{
    struct copy_state *state = data;
    const struct copy *copy = state->copy;
    while (state->next < state->total) {
        enum copy_kind kind;
        uint64_t length;
        tool_progress_update(copy->progress, state->next, state->total);
        int rc = look_ahead(state, &kind, &length, err);
        if (rc < 0)
            return rc;
        bool zero = kind == COPY_ZERO && !(copy->flags & COPY_TARGET_IS_ZERO);
        uint64_t offset = state->next;
        if (length > 0 && !zero) {
            state->next += length;
            continue;
        }
        if (length == 0) {
            zero = false;
            length = q2_min((offset / state->piece + 1) * state->piece, state->total) - offset;
        }
        length = zero ? q2_min(length, ZERO_PIECE) : length;
        *ret_piece = (struct q2_piece){.offset = offset, .length = length, .plain = zero};
        state->next += length;
        return 1;
    }
    return 0;
}

static int
compress_piece(const struct copy_state *state, struct copy_worker *worker,
               const struct q2_piece *piece, struct q2_error *err)
{
    struct q2_image *image = q2_disk_image(state->copy->target);
    for (uint64_t at = 0, i = 0; at < piece->length; at += state->cluster, i++) {
        struct copy_stream *stream = &worker->streams[i];
        *stream = (struct copy_stream){0};
        if (worker->kinds[at / COPY_SECTOR] != COPY_DATA)
            continue;
        size_t length = (size_t)q2_min(state->cluster, piece->length - at);
        int rc = q2_image_compress(image, worker->buffer + at, length, &stream->bytes,
                                   &stream->length, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int
prepare_piece(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    const struct copy_state *state = data;
    struct copy_worker *worker = &state->workers[number];
    if (piece->plain)
        return 0;
    int rc = copy_read_piece(state, worker, piece, err);
    if (rc < 0)
        return rc;
    copy_sift_piece(state, worker, piece);
    return state->copy->flags & COPY_COMPRESS ? compress_piece(state, worker, piece, err) : 0;
}

static int
zero_run(struct copy_state *state, uint64_t offset, uint64_t length, struct q2_error *err)
{
    if (state->copy->flags & COPY_TARGET_IS_ZERO)
        return 0;
    return q2_disk_zero(state->copy->target, offset, length, Q2_ZERO_UNMAP, err);
}

static int
write_run(struct copy_state *state, const struct copy_worker *worker, uint64_t offset,
          uint64_t begin, uint64_t end, struct q2_error *err)
{
    rate_wait(&state->rate, end - begin);
    return q2_disk_write(state->copy->target, offset + begin, worker->buffer + begin,
                         (size_t)(end - begin), err);
}

static int
write_plain(struct copy_state *state, const struct copy_worker *worker,
            const struct q2_piece *piece, struct q2_error *err)
{
    size_t sectors = copy_sectors(piece);
    int rc = 0;
    for (size_t first = 0, last; rc == 0 && first < sectors; first = last) {
        last = copy_run_end(worker->kinds, first, sectors);
        uint64_t begin = first * COPY_SECTOR;
        uint64_t end = q2_min(last * COPY_SECTOR, piece->length);
        if (worker->kinds[first] == COPY_DATA)
            rc = write_run(state, worker, piece->offset, begin, end, err);
        else if (worker->kinds[first] == COPY_ZERO)
            rc = zero_run(state, piece->offset + begin, end - begin, err);
    }
    return rc;
}

static int
write_compressed(struct copy_state *state, const struct copy_worker *worker,
                 const struct q2_piece *piece, struct q2_error *err)
{
    struct q2_image *image = q2_disk_image(state->copy->target);
    int rc = 0;
    for (uint64_t at = 0, i = 0; rc == 0 && at < piece->length; at += state->cluster, i++) {
        const struct copy_stream *stream = &worker->streams[i];
        uint64_t end = q2_min(at + state->cluster, piece->length);
        if (worker->kinds[at / COPY_SECTOR] == COPY_ZERO) {
            rc = zero_run(state, piece->offset + at, end - at, err);
        } else if (stream->bytes) {
            rate_wait(&state->rate, end - at);
            rc = q2_image_write_stream(image, piece->offset + at, stream->bytes, stream->length,
                                       err);
        } else if (worker->kinds[at / COPY_SECTOR] == COPY_DATA) {
            rc = write_run(state, worker, piece->offset, at, end, err);
        }
    }
    return rc;
}

static void
drop_streams(const struct copy_state *state, struct copy_worker *worker)
{
    for (uint64_t i = 0; worker->streams && i < state->piece / state->cluster; i++) {
        free(worker->streams[i].bytes);
        worker->streams[i] = (struct copy_stream){0};
    }
}

static int
finish_piece(void *data, unsigned number, const struct q2_piece *piece, struct q2_error *err)
{
    struct copy_state *state = data;
    struct copy_worker *worker = &state->workers[number];
    struct q2_error error = {0};
    int rc;
    if (piece->plain)
        rc = zero_run(state, piece->offset, piece->length, &error);
    else if (state->copy->flags & COPY_COMPRESS)
        rc = write_compressed(state, worker, piece, &error);
    else
        rc = write_plain(state, worker, piece, &error);
    drop_streams(state, worker);
    if (rc < 0)
        return q2_error_set(err, (enum q2_error_code)rc,
                            "error while writing at byte %" PRIu64 ": %s", piece->offset,
                            error.message);
    return 0;
}

/* The sizes that follow from the target. */
static void
plan(struct copy_state *state)
{
    const struct copy *copy = state->copy;
    struct q2_image *image = q2_disk_image(copy->target);
    uint64_t sparse = copy->sparse ? copy->sparse : COPY_SPARSE_DEFAULT;
    state->piece = PIECE;
    while (state->piece < sparse && state->piece < COPY_PIECE_MAX)
        state->piece *= 2;
    state->grain = COPY_SECTOR;
    while (state->grain * 2 <= sparse && state->grain < COPY_SPARSE_DEFAULT)
        state->grain *= 2;
    if (!image)
        return;
    const struct q2_geometry *geometry = q2_image_geometry(image);
    state->cluster = geometry->cluster_size;
    state->piece = q2_max(state->piece, state->cluster);
    uint64_t least = geometry->extended_l2 ? state->cluster / 32 : state->cluster;
    state->grain = q2_max(state->grain, q2_min(least, GRAIN_MAX));
    if (copy->flags & COPY_COMPRESS)
        state->grain = state->cluster;
}

static int
make_workers(struct copy_state *state, struct q2_error *err)
{
    state->workers = calloc(state->copy->threads, sizeof *state->workers);
    bool ok = state->workers != NULL;
    for (unsigned i = 0; ok && i < state->copy->threads; i++) {
        struct copy_worker *worker = &state->workers[i];
        worker->buffer = aligned_alloc(4096, state->piece);
        worker->kinds = malloc(state->piece / COPY_SECTOR);
        if (state->copy->flags & COPY_COMPRESS)
            worker->streams = calloc(state->piece / state->cluster, sizeof *worker->streams);
        ok = worker->buffer && worker->kinds &&
             (worker->streams || !(state->copy->flags & COPY_COMPRESS));
    }
    return ok ? 0 : q2_error_set(err, Q2_ERR_NOMEM, "no memory for the buffers of a copy");
}

static void
free_workers(struct copy_state *state)
{
    for (unsigned i = 0; state->workers && i < state->copy->threads; i++) {
        drop_streams(state, &state->workers[i]);
        free(state->workers[i].buffer);
        free(state->workers[i].kinds);
        free(state->workers[i].streams);
    }
    free(state->workers);
}

int
copy_run(const struct copy *copy, struct q2_error *err)
{
    struct copy_state state = {.copy = copy};
    for (unsigned i = 0; i < copy->source_count; i++) {
        struct copy_source *source = &copy->sources[i];
        source->at = (state.total + COPY_SECTOR - 1) / COPY_SECTOR * COPY_SECTOR;
        state.total = source->at + source->length;
    }
    plan(&state);
    rate_init(&state.rate, copy->rate);
    const struct q2_flow flow = {
        .threads = copy->threads,
        .ordered = copy->flags & COPY_ORDERED,
        .next = next_piece,
        .prepare = prepare_piece,
        .finish = finish_piece,
        .data = &state,
    };
    int rc = make_workers(&state, err);
    if (rc == 0)
        rc = q2_flow_run(&flow, err);
    free_workers(&state);
    rate_destroy(&state.rate);
    return rc;
}
