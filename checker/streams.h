/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where the compressed data of guest clusters begins, to find two that share it. Software packs
 * compressed clusters into common host clusters, so no tally of clusters can show this. */

#ifndef Q2_CHECKER_STREAMS_H
#define Q2_CHECKER_STREAMS_H

#include "checker/scan.h"

struct q2_stream {
    uint64_t raw;   /* L2 entry, without the COPIED flag */
    uint64_t guest; /* cluster */
};

struct q2_streams {
    struct q2_check *check;
    struct q2_stream *items;
    uint64_t count, capacity;
    bool dropped; /* memory did not suffice for all */
};

void q2_streams_init(struct q2_streams *streams, struct q2_check *check);
void q2_streams_destroy(struct q2_streams *streams);

void q2_streams_add(struct q2_streams *streams, uint64_t raw, uint64_t guest);

/* Add all of `from`. */
void q2_streams_merge(struct q2_streams *streams, const struct q2_streams *from);

/* Says to `owner`, which has everything else, which maps have a stream and where their entry is. */
typedef int q2_stream_find(void *data, const struct q2_stream *stream, struct q2_owner *owner,
                           struct q2_error *err);

/* Report guest clusters with the same data, and whether some could not be compared. */
int q2_streams_report(struct q2_streams *streams, q2_stream_find *find, void *data,
                      struct q2_error *err);

#endif
