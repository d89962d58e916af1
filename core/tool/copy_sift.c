/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is worth writing. Zeros are looked for in aligned blocks as large as what the target can
 * leave out: finer would make it write a part of a cluster, and fill the rest with zeros anyway. */

#include "core/tool/copy_parts.h"

#include "core/base/checked.h"
#include "core/base/zeros.h"

#include <string.h>

/* The end of the block that begins at or contains sector `first`. */
static size_t
block_end(const struct copy_state *state, const struct q2_piece *piece, size_t first)
{
    uint64_t at = piece->offset + first * COPY_SECTOR;
    uint64_t end = (at / state->grain + 1) * state->grain - piece->offset;
    return (size_t)q2_min(end / COPY_SECTOR, copy_sectors(piece));
}

void
copy_unify_piece(const struct copy_state *state, struct copy_worker *worker,
                 const struct q2_piece *piece)
{
    size_t sectors = copy_sectors(piece);
    bool clusters = state->copy->flags & COPY_COMPRESS;
    for (size_t first = 0, last; first < sectors; first = last) {
        last = block_end(state, piece, first);
        uint8_t *kinds = worker->kinds + first;
        if (copy_run_end(kinds, 0, last - first) == last - first)
            continue;
        if (clusters || !memchr(kinds, COPY_SKIP, last - first))
            memset(kinds, COPY_DATA, last - first);
    }
}

/* Whether the block [first, last) of the piece was read and is zero. */
static bool
is_zero_block(const struct copy_worker *worker, const struct q2_piece *piece, size_t first,
              size_t last)
{
    size_t begin = first * COPY_SECTOR;
    size_t end = (size_t)q2_min(last * COPY_SECTOR, piece->length);
    return worker->kinds[first] == COPY_DATA && copy_run_end(worker->kinds, first, last) == last &&
           q2_is_zero(worker->buffer + begin, end - begin);
}

void
copy_sift_piece(const struct copy_state *state, struct copy_worker *worker,
                const struct q2_piece *piece)
{
    size_t sectors = copy_sectors(piece);
    size_t zeros = 0; /* sectors in a row, before `first` */
    size_t enough = state->copy->sparse / COPY_SECTOR;
    if (!state->copy->sparse)
        return;
    if (state->copy->flags & COPY_COMPRESS)
        enough = 1;
    for (size_t first = 0, last; first <= sectors; first = last) {
        last = first < sectors ? block_end(state, piece, first) : first + 1;
        if (first < sectors && is_zero_block(worker, piece, first, last)) {
            zeros += last - first;
            continue;
        }
        /* A piece that is zero as a whole is part of a run that is longer than it. */
        if (zeros >= enough || zeros == sectors)
            memset(worker->kinds + first - zeros, COPY_ZERO, zeros);
        zeros = 0;
    }
}
