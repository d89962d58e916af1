/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the files of `qcow2-img convert` share. */

#ifndef Q2_TOOL_CONVERT_H
#define Q2_TOOL_CONVERT_H

#include "core/tool/tool.h"

/* The command line, and what was opened because of it. */
struct convert {
    struct tool_common common;
    const char *target_format; /* -O; NULL: raw */
    const char *target;        /* its name */
    char **source_names;
    unsigned source_count;
    struct tool_pairs pairs;    /* -o, and what stands for some of it */
    const char *backing;        /* -B */
    const char *backing_format; /* -F */
    const char *snapshot;       /* -l */
    bool compress;
    bool keep_target; /* -n */
    bool target_image_opts;
    bool target_is_zero;
    bool out_of_order;
    bool offload; /* -C; copies as without it, but excludes what it excludes */
    bool salvage;
    bool bitmaps;
    bool skip_broken_bitmaps;
    bool has_sparse;
    uint64_t sparse;
    uint64_t rate;
    uint64_t threads;

    struct q2_disk **sources;
    struct q2_disk *disk; /* the target */
    uint64_t total;       /* bytes to copy */
};

/* Make the target unless it is to be kept, and open it (convert_target.c). */
bool convert_open_target(struct convert *convert);

/* Before anything is made: whether the bitmaps can be copied. After the data was: copy them
 * (convert_bitmaps.c). */
bool convert_bitmaps_allowed(struct convert *convert);
bool convert_copy_bitmaps(struct convert *convert);

#endif
