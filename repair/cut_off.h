/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A file that was cut off: pointers behind its end may be quite right. What tells them from damaged
 * ones is that the refcounts of the image, as it was before the repair, count what they lead to. */

#ifndef Q2_REPAIR_CUT_OFF_H
#define Q2_REPAIR_CUT_OFF_H

#include "repair/scene.h"

/* Whether a cluster behind the end of the file was in use before the file was cut off. */
bool q2_cut_cluster(const struct q2_scene *scene, uint64_t cluster);

/* The same for the last cluster that an entry of an L1 or L2 table leads to. */
bool q2_cut_entry(const struct q2_scene *scene, uint64_t raw, bool is_l1);

#endif
