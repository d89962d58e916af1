/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The edits of an overlay: which bytes are edited and what they are now, exact to the byte, so that
 * what is written to an image in the end is what was meant and nothing more. Not thread-safe. */

#ifndef Q2_IO_EDITS_H
#define Q2_IO_EDITS_H

#include "core/io/overlay.h"
#include "core/io/sparse.h"

struct q2_edits {
    struct q2_sparse blocks;
};

void q2_edits_init(struct q2_edits *edits, struct q2_budget *budget, const char *name);
void q2_edits_clear(struct q2_edits *edits);

/* Set the bytes from `offset` on. *reached is raised to the end of what has been written, also when
 * memory runs out half way. */
int q2_edits_write(struct q2_edits *edits, uint64_t offset, const uint8_t *bytes, size_t length,
                   uint64_t *reached, struct q2_error *err);

/* Set bytes [offset, end) to zero; takes memory for the edges only. */
int q2_edits_zero(struct q2_edits *edits, uint64_t offset, uint64_t end, struct q2_error *err);

/* Forget the edits from `offset` on. A failure has changed nothing. */
int q2_edits_cut(struct q2_edits *edits, uint64_t offset, struct q2_error *err);

/* Put the edited bytes of [offset, offset + length) over those in `to`. */
void q2_edits_apply(const struct q2_edits *edits, uint64_t offset, uint8_t *to, size_t length);

/* Whether all bytes from `offset` to *ret_until (at most `end`) are edited. If not, those that are
 * may still lie among them. */
bool q2_edits_cover(const struct q2_edits *edits, uint64_t offset, uint64_t end,
                    uint64_t *ret_until);

/* The first run of edited bytes at or after `offset` within one block or one zero range; of the
 * latter, `bytes` is NULL. False: there is none. */
bool q2_edits_next(const struct q2_edits *edits, uint64_t offset, struct q2_edit *ret_edit);

/* What the blocks of edits know from `offset` to *ret_end, for those who look for holes: backed, if
 * any byte of the block is edited; zero, if all are and are zeros; or absent. */
enum q2_sparse_state q2_edits_extent(const struct q2_edits *edits, uint64_t offset,
                                     uint64_t *ret_end);

#endif
