/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The undo journal: what the bytes that a repair changes were before, and how long the file was.
 *
 * It is a file of its own, complete and durable before the image is touched:
 *
 *   header   state, sizes of the image before and after, number of records, what made it
 *   records  host offset, length, the bytes before; the digest of the bytes after
 *   trailer  digest of all of the above but the state
 *
 * Everything in it is checked before any of it is believed: a journal that was cut short or damaged
 * is refused, and the image left alone. All words are big-endian, digests SHA-256. */

#ifndef Q2_REPAIR_JOURNAL_H
#define Q2_REPAIR_JOURNAL_H

#include "core/io/overlay.h"

enum q2_journal_state {
    Q2_JOURNAL_INCOMPLETE, /* it was being made, so the image has not been touched */
    Q2_JOURNAL_APPLYING,   /* complete; the image may have been written to */
    Q2_JOURNAL_DONE,       /* the repair is complete */
    Q2_JOURNAL_UNDONE,     /* the image is as it was */
};

struct q2_journal_info {
    enum q2_journal_state state;
    uint64_t size_before; /* of the image, bytes */
    uint64_t size_after;
    uint64_t records;
    uint64_t bytes;   /* saved */
    uint64_t made_at; /* seconds since the Epoch */
};

/* Write to `journal`, an empty file, what undoing the edits of `overlay` on `image` takes, and make
 * it durable; its state becomes APPLYING. Memory is bounded, whatever the number of edits. */
int q2_journal_write(struct q2_file *journal, struct q2_file *image, struct q2_file *overlay,
                     uint64_t now, struct q2_error *err);

/* Read and verify a whole journal. Q2_ERR_FORMAT names what is wrong with it; an INCOMPLETE one is
 * no error. */
int q2_journal_read(struct q2_file *journal, struct q2_journal_info *ret_info,
                    struct q2_error *err);

/* Set the state, durably. */
int q2_journal_mark(struct q2_file *journal, enum q2_journal_state state, struct q2_error *err);

/* Put the bytes back that the journal has, and the length; durable before the journal is marked
 * UNDONE. May be interrupted and begun again. Refused with Q2_ERR_FORMAT, before anything is
 * written, where the journal is not complete; or where the image holds, in a range that it covers,
 * neither the bytes before nor those after, so that somebody else wrote to it since: `force`
 * overrides that. While the repair is APPLYING, a range may be partly written. */
int q2_journal_undo(struct q2_file *journal, struct q2_file *image, bool force,
                    struct q2_error *err);

#endif
