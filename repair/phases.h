/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Which phase of writing (apply.h) each byte of a repair belongs to. */

#ifndef Q2_REPAIR_PHASES_H
#define Q2_REPAIR_PHASES_H

#include "repair/apply.h"
#include "repair/scene.h"

struct q2_phases;

int q2_phases_new(struct q2_scene *scene, struct q2_phases **ret_phases, struct q2_error *err);
void q2_phases_free(struct q2_phases *phases);

/* A q2_phase_of with a struct q2_phases as its data. */
enum q2_apply_phase q2_phases_of(void *data, uint64_t offset, uint64_t *ret_end);

#endif
