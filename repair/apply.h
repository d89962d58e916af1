/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Writing a proven repair to the image, so that it can be interrupted anywhere.
 *
 * The journal is durable first. Then the edits go down in phases with barriers in between: space
 * that nothing referred to before the repair; refcounts; tables; the header. So at no instant does
 * something on the disk lead to what is not there yet. A file that gets longer does so first, one
 * that gets shorter last. A write that fails is rolled back at once; a power cut, a kill, or a roll
 * back that fails too leave a journal that q2_apply_resume goes by. */

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

/* Tells the phase of the byte at host `offset`, and where that ends (past `offset`), bytes. A
 * sector of 512 bytes is all of one phase. */
typedef enum q2_apply_phase q2_phase_of(void *data, uint64_t offset, uint64_t *ret_end);

/* Make `image` what `overlay` is, by way of `journal` (an empty file, whose name the caller has
 * made durable). The image is what the overlay lies over, open for writing; a NULL `phase_of` puts
 * everything into one phase.
 *
 * On success the image is durable and the journal DONE. On failure the error says whether the image
 * is as it was before. In either case, *ret_needed says whether the journal is: where not, the
 * image was not touched or has been rolled back durably; where it is, it is what undoes the repair,
 * or what q2_apply_resume needs. */
int q2_apply(struct q2_file *image, struct q2_file *overlay, struct q2_file *journal, uint64_t now,
             q2_phase_of *phase_of, void *phase_data, bool *ret_needed, struct q2_error *err);

/* After an interruption: bring `image` to where `journal` says it was before, if the repair was
 * under way. *ret_rolled_back is false where there was nothing to do: the journal was never
 * completed, or the repair was, or has been undone. Fails as q2_journal_undo without force. */
int q2_apply_resume(struct q2_file *image, struct q2_file *journal, bool *ret_rolled_back,
                    struct q2_error *err);

#endif
