/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A file that remembers every change and every barrier, and can replay what a power cut at any of
 * them would have left behind. */

#ifndef Q2_IO_RECORD_H
#define Q2_IO_RECORD_H

#include "core/io/file.h"

enum q2_record_kind {
    Q2_RECORD_WRITE,
    Q2_RECORD_FLUSH,
    Q2_RECORD_TRUNCATE,
    Q2_RECORD_PUNCH,
};

struct q2_record {
    enum q2_record_kind kind;
    uint64_t offset;      /* bytes; for TRUNCATE the new size */
    uint64_t length;      /* bytes; of WRITE and PUNCH */
    const uint8_t *bytes; /* of WRITE; owned by the recorder */
};

/* Wrap `base`, which stays the caller's and must outlive the recorder: operations go through, one
 * change at a time, and are remembered in order if they succeed. To record what a torn write put
 * down, put the fault over the recorder. */
int q2_file_new_record(struct q2_file *base, struct q2_file **ret_file, struct q2_error *err);

size_t q2_record_count(const struct q2_file *record);
/* The record at `index`, below the count; valid until the recorder is closed. */
const struct q2_record *q2_record_at(const struct q2_file *record, size_t index);

/* Apply records [0, count) to `target`, a copy of the base as it was when recording began. Of the
 * records after the last flush inside that prefix, only those i with keep(i, data) true are
 * applied: the writes that a volatile cache happened to have put down. NULL keeps all. */
int q2_record_replay(const struct q2_file *record, size_t count,
                     bool (*keep)(size_t index, void *data), void *data, struct q2_file *target,
                     struct q2_error *err);

#endif
