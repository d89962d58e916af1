/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The fixes (fix.h, fixes.def) in their order: stage by stage, pass after pass, from the surest on.
 */

#ifndef Q2_REPAIR_STAGES_H
#define Q2_REPAIR_STAGES_H

#include "repair/scene.h"

/* Let all fixes work on the scene until they find nothing more, at the level of its plan. Fails
 * with Q2_ERR_BUDGET where looking for what is lost takes too much. */
int q2_run_stages(struct q2_scene *scene, struct q2_error *err);

#endif
