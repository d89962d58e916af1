/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Giving the space of freed clusters back to the file system. */

#ifndef Q2_REPAIR_DISCARD_H
#define Q2_REPAIR_DISCARD_H

#include "repair/scene.h"

/* Punch holes, on the overlay, where the repair has freed clusters: nothing refers to them, they
 * are not counted any more, and were before. Comes after the proof, whose check must be current;
 * the content of free clusters is nobody's. */
int q2_discard_freed(struct q2_scene *scene, struct q2_error *err);

#endif
