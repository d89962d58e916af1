/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Work on a disk that is cut into pieces: cutting is done one piece at a time, preparing (reading,
 * decoding, compressing) on many threads, finishing (writing, hashing) in the order of the disk
 * where that matters. Copying, comparing and hashing are this with other functions. */

#ifndef Q2_BASE_FLOW_H
#define Q2_BASE_FLOW_H

#include "core/base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct q2_piece {
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes */
    bool plain;      /* means what `next` wants it to mean */
    uint64_t number; /* 0, 1, 2, ... as they were cut */
};

struct q2_flow {
    unsigned threads;
    bool ordered; /* finish one piece at a time, in the order of their numbers */
    /* Cut the next piece; never called twice at once. 1: there is one, 0: that was all. */
    int (*next)(void *data, struct q2_piece *ret_piece, struct q2_error *err);
    /* `worker` is below `threads` and never the same for two pieces at once. */
    int (*prepare)(void *data, unsigned worker, const struct q2_piece *piece, struct q2_error *err);
    int (*finish)(void *data, unsigned worker, const struct q2_piece *piece, struct q2_error *err);
    void *data;
};

/* Run until there are no more pieces. The error is that of the first piece that failed if
 * `ordered`, otherwise of any; a positive result of `finish` ends the run too and is returned. */
int q2_flow_run(const struct q2_flow *flow, struct q2_error *err);

/* Threads for work that is waiting for files half of the time. */
unsigned q2_flow_threads(void);

#endif
