/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing a proven repair to the image, so that it can be interrupted anywhere.
 *
 * The journal is durable first. Then the edits go down in phases with barriers in between: space
 * that nothing referred to before the repair; refcounts; tables; the header. So at no instant does
 * something on the disk lead to what is not there yet. A write that fails is rolled back at once; a
 * power cut, a kill, or a roll back that fails too leave a journal that q2_repair_resume finds. */

#ifndef Q2_REPAIR_APPLY_H
#define Q2_REPAIR_APPLY_H

#include "core/io/overlay.h"

/* When an edit is written. */
enum q2_apply_phase {
    Q2_PHASE_NEW, /* nothing referred to it */
    Q2_PHASE_REFCOUNTS,
    Q2_PHASE_TABLES,
    Q2_PHASE_HEADER,
    Q2_PHASE_COUNT,
};

/* Tells the phase of the byte at host `offset`, and where that ends, bytes. */
typedef enum q2_apply_phase q2_phase_of(void *data, uint64_t offset, uint64_t *ret_end);

/* Make `image` what `overlay` is, by way of `journal` (an empty file). On failure the image has
 * been rolled back, unless the error says otherwise; *ret_touched says whether the journal is still
 * needed for that. */
int q2_apply(struct q2_file *image, struct q2_file *overlay, struct q2_file *journal, uint64_t now,
             q2_phase_of *phase_of, void *phase_data, bool *ret_needed, struct q2_error *err);

/* After an interruption: bring `image` to where `journal` says it was before. *ret_rolled_back is
 * false where there was nothing to do. */
int q2_apply_resume(struct q2_file *image, struct q2_file *journal, bool *ret_rolled_back,
                    struct q2_error *err);

#endif
