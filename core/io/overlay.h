/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A base file plus edits in memory: reads see the edits, the base is never written. The ground on
 * which a repair is tried and proven before it touches an image. */

#ifndef Q2_IO_OVERLAY_H
#define Q2_IO_OVERLAY_H

#include "core/base/budget.h"
#include "core/io/file.h"

/* Lay an empty set of edits over `base`, which must outlive the overlay, must not change under it
 * and stays the caller's. Edits take memory from `budget`, about 1.2 bytes for each byte written in
 * bulk and 600 for a lone one; holes take next to none. */
int q2_file_new_overlay(struct q2_file *base, struct q2_budget *budget, struct q2_file **ret_file,
                        struct q2_error *err);

enum { Q2_EDIT_LENGTH_MAX = 1024 * 1024 };

/* One run of edited bytes. `bytes` belongs to the overlay and lives until the visitor returns; NULL
 * stands for zeros where a hole would do (punched, or between an old size and a new one), of any
 * length: pass them on to q2_file_punch. Other runs are at most Q2_EDIT_LENGTH_MAX long, and what
 * is longer comes as several that touch. */
struct q2_edit {
    uint64_t offset;
    uint64_t length;
    const uint8_t *bytes;
};

/* Call `visit` for each run of edited bytes, in ascending order, never overlapping. Stops at the
 * first negative result and returns it; Q2_ERR_NOMEM if there is no memory for one run. Truncating
 * a copy of the base to the size of the overlay and then making all edits makes it the same as the
 * overlay. The visitor may read the overlay; an edit that changes meanwhile is seen before or
 * after. */
int q2_overlay_visit(struct q2_file *overlay, int (*visit)(const struct q2_edit *edit, void *data),
                     void *data);

/* Whether `file` is an overlay over `base`, so that its edits are all that tells the two apart. */
bool q2_overlay_is_over(const struct q2_file *file, const struct q2_file *base);

/* Forget all edits, the change of size included. */
void q2_overlay_reset(struct q2_file *overlay);

enum { Q2_OVERLAY_READ_COST = 512 };

/* What all reads of the overlay have cost so far: their bytes, and Q2_OVERLAY_READ_COST for each.
 * For who must bound the work on it. */
uint64_t q2_overlay_cost(const struct q2_file *overlay);

#endif
