/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A header from nothing but what else is in the file. Tables of pointers are easy to tell from
 * guest data, and the distance from one pointer to the next says how large clusters are; the rest
 * follows from what leads to what. */

#ifndef Q2_REPAIR_HEADER_CARVE_H
#define Q2_REPAIR_HEADER_CARVE_H

#include "repair/header_try.h"

/* Look for what the header should lead to, and write one that does: an action of its own. Does
 * nothing where nothing is found. */
int q2_header_rebuild(struct q2_scene *scene, struct q2_trial *trial, struct q2_error *err);

#endif
