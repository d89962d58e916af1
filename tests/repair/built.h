/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The image of a case folder, built in memory. */

#ifndef Q2_TESTS_REPAIR_BUILT_H
#define Q2_TESTS_REPAIR_BUILT_H

#include "core/io/file.h"

/* Ends the program where the recipe cannot be built. The caller closes the file. */
struct q2_file *built_image(const char *folder);

#endif
