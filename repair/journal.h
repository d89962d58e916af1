/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The undo journal: what the bytes that a repair changes were before, and how long the file was.
 *
 * It is a file of its own, complete and durable before the image is touched:
 *
 *   header   state, sizes of the image before and after, when it was made
 *   records  host offset, length, what the bytes were, and how to know what they become
 *   trailer  numbers of records and bytes, digest of all of the above but the state
 *
 * Everything in it is checked before any of it is believed: a journal that was cut short or damaged
 * is refused, and the image left alone. All words are big-endian, digests SHA-256. What was a hole
 * and stays one takes no space in it, however long. journal_parts.h has the layout. */

#ifndef Q2_REPAIR_JOURNAL_H
#define Q2_REPAIR_JOURNAL_H

#include "core/io/overlay.h"

enum q2_journal_state {
    Q2_JOURNAL_INCOMPLETE, /* it was being made, so the image has not been touched */
    Q2_JOURNAL_APPLYING,   /* complete; the image may have been written to, or put back, in part */
    Q2_JOURNAL_DONE,       /* the repair is complete */
    Q2_JOURNAL_UNDONE,     /* the image is as it was */
};

struct q2_journal_info { /* of an INCOMPLETE one, the state and nothing else */
    enum q2_journal_state state;
    uint64_t size_before; /* of the image, bytes */
    uint64_t size_after;
    uint64_t records;
    uint64_t bytes;      /* saved */
    uint64_t unreadable; /* bytes that are written over, but could not be read: not saved */
    uint64_t made_at;    /* seconds since the Epoch */
};

/* Write to `journal`, an empty file, what undoing the edits of `overlay` on `image` takes, and make
 * it durable; its state becomes APPLYING. Memory is bounded, whatever the number of edits.
 * Q2_ERR_EXISTS: the file is not empty. */
int q2_journal_write(struct q2_file *journal, struct q2_file *image, struct q2_file *overlay,
                     uint64_t now, struct q2_error *err);

/* Read and verify a whole journal. Q2_ERR_FORMAT names what is wrong with it; an INCOMPLETE one, or
 * an empty file, is no error. */
int q2_journal_read(struct q2_file *journal, struct q2_journal_info *ret_info,
                    struct q2_error *err);

/* Set the state, durably. */
int q2_journal_mark(struct q2_file *journal, enum q2_journal_state state, struct q2_error *err);

/* Put the bytes back that the journal has, and the length; durable before the journal is marked
 * UNDONE. May be interrupted and begun again: the journal is APPLYING meanwhile. Refused with
 * Q2_ERR_FORMAT, before anything is written, where the journal is not complete; or where a sector
 * of the image holds, in what the journal covers, neither the bytes before nor those after, or the
 * image is of a size that it never was meant to have: then somebody else wrote to it since, or it
 * is another image. `force` overrides that. What could not be read when the journal was made is
 * left as it is. */
int q2_journal_undo(struct q2_file *journal, struct q2_file *image, bool force,
                    struct q2_error *err);

/* Whether the image is what it was before the repair, as far as the journal tells: undoing would
 * change nothing. Fails as q2_journal_undo without force does. */
int q2_journal_is_undone(struct q2_file *journal, struct q2_file *image, bool *ret_undone,
                         struct q2_error *err);

#endif
