/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Making the image of a run, and what is below it. */

#ifndef Q2_TESTS_STRESS_MAKE_H
#define Q2_TESTS_STRESS_MAKE_H

#include "tests/stress/stress.h"

/* The backing file, if the parameters have one, with random content that the model gets too. */
bool make_below(struct run *run);
/* The empty image, and its empty data file. */
bool make_image(struct run *run);

#endif
