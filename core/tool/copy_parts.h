/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files of the copying engine share. */

#ifndef Q2_TOOL_COPY_PARTS_H
#define Q2_TOOL_COPY_PARTS_H

#include "core/base/flow.h"
#include "core/tool/copy.h"
#include "core/tool/rate.h"

enum { COPY_SECTOR = 512 };

/* What is to be done about a sector of the target. */
enum copy_kind {
    COPY_SKIP, /* nothing */
    COPY_ZERO, /* it reads as zeros */
    COPY_DATA, /* it has other bytes, or nobody has looked yet */
};

/* A compressed cluster. */
struct copy_stream {
    uint8_t *bytes; /* NULL: it does not become smaller */
    size_t length;
};

/* What one thread works with. */
struct copy_worker {
    uint8_t *buffer;             /* the piece */
    uint8_t *kinds;              /* enum copy_kind of each sector of the piece */
    struct copy_stream *streams; /* of each cluster of the piece */
};

struct copy_state {
    const struct copy *copy;
    uint64_t total;   /* bytes */
    uint64_t next;    /* where the next piece begins */
    uint64_t piece;   /* pieces end at multiples of this many bytes */
    uint64_t cluster; /* of a qcow2 target, bytes; 0: raw */
    uint64_t grain;   /* zeros are looked for in aligned blocks of this many bytes */
    struct rate rate;
    struct copy_worker *workers;
};

/* What is at `offset` of the target, and where the stretch of it ends, at most at `end`. */
int copy_status(const struct copy_state *state, uint64_t offset, uint64_t end,
                enum copy_kind *ret_kind, uint64_t *ret_end, struct q2_error *err);

/* Fill the worker's buffer and kinds with the piece (copy_read.c). */
int copy_read_piece(const struct copy_state *state, struct copy_worker *worker,
                    const struct q2_piece *piece, struct q2_error *err);

/* Before reading: a block that has data and zeros is data, so that it is written at once; blocks of
 * a compressed target, which are clusters, are of one kind always (copy_sift.c). */
void copy_unify_piece(const struct copy_state *state, struct copy_worker *worker,
                      const struct q2_piece *piece);

/* After reading: turn data that is zero into COPY_ZERO. */
void copy_sift_piece(const struct copy_state *state, struct copy_worker *worker,
                     const struct q2_piece *piece);

static inline size_t
copy_sectors(const struct q2_piece *piece)
{
    return (size_t)((piece->length + COPY_SECTOR - 1) / COPY_SECTOR);
}

/* Where the run of one kind that begins at sector `first` ends, before sector `end`. */
static inline size_t
copy_run_end(const uint8_t *kinds, size_t first, size_t end)
{
    size_t last = first + 1;
    while (last < end && kinds[last] == kinds[first])
        last++;
    return last;
}

#endif
