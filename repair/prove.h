/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The proof of a repair, before it touches the image: the check of the mended overlay against that
 * of the image as it is.
 *
 *   - No finding of a corruption, a leak or an error is new.
 *   - What the applied actions answer is gone.
 *   - Every byte of the active disk, of a snapshot and of VM state that could be read reads the
 *     same, or lies in a range that an applied action names. */

#ifndef Q2_REPAIR_PROVE_H
#define Q2_REPAIR_PROVE_H

#include "repair/scene.h"

enum q2_objection_kind {
    Q2_OBJECTION_NEW_FINDING,   /* `problem`, `offset`: host */
    Q2_OBJECTION_NOT_MENDED,    /* `problem`, `offset`; `action` is its index */
    Q2_OBJECTION_DATA_CHANGED,  /* `map`, `offset`, `length`: guest, bytes */
    Q2_OBJECTION_SNAPSHOT_GONE, /* `map`: of the image as it was */
};

struct q2_objection {
    enum q2_objection_kind kind;
    enum q2_problem problem;
    uint32_t map;
    uint64_t offset;
    uint64_t length;
    uint64_t action; /* the applied action to blame, UINT64_MAX if none stands out */
    char text[200];  /* a sentence without full stop, for people */
};

/* Hold scene->check, which must be current, against scene->before. Returns 1 if the repair is
 * proven; 0 with the first objection if it is not; or an error. */
int q2_prove(struct q2_scene *scene, struct q2_objection *ret_objection, struct q2_error *err);

/* The third rule alone: whether what could be read through `before` from `base` reads the same
 * through `after` from `file`, but for what `plan` names (NULL: nothing). Same results. */
int q2_prove_content(struct q2_file *base, struct q2_check *before, struct q2_file *file,
                     struct q2_check *after, const struct q2_plan *plan,
                     struct q2_objection *ret_objection, struct q2_error *err);

#endif
