/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The copying engine: convert, dd and commit are this with other options. */

#ifndef Q2_TOOL_COPY_H
#define Q2_TOOL_COPY_H

#include "core/tool/tool.h"

/* A part of the target's content; parts follow each other without gaps. */
struct copy_source {
    struct q2_disk *disk;
    uint64_t from;   /* where the part is in `disk`, bytes */
    uint64_t length; /* bytes; all parts but the last are whole sectors */
    uint64_t at;     /* where it is in the target; filled in by copy_run */
};

enum copy_flags {
    COPY_ORDERED = 1 << 0,        /* write in the order of the disk */
    COPY_COMPRESS = 1 << 1,       /* whole clusters of the target, which is a qcow2 image */
    COPY_SALVAGE = 1 << 2,        /* what cannot be read becomes zeros, and is reported */
    COPY_QUIET = 1 << 3,          /* not reported */
    COPY_TARGET_IS_ZERO = 1 << 4, /* what is not written reads as zeros already */
    /* Only what the sources have themselves: what they leave to their backing files, the target
     * leaves to its own. */
    COPY_OWN = 1 << 5,
};

struct copy {
    struct copy_source *sources;
    unsigned source_count;
    struct q2_disk *target;
    unsigned threads;
    unsigned flags; /* enum copy_flags */
    /* Bytes in a row that must be zero for the target to be left sparse there; 0: write it all. */
    uint64_t sparse;
    /* Of the target's backing file, bytes: behind its end zeros come of themselves. UINT64_MAX
     * where there is none. */
    uint64_t backing_size;
    uint64_t rate; /* bytes for each second at most; 0: any */
    struct tool_progress *progress;
};

enum { COPY_SPARSE_DEFAULT = 4096, COPY_PIECE_MAX = 16 << 20 };

/* Copy all parts. */
int copy_run(const struct copy *copy, struct q2_error *err);

#endif
