/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Small damaged images, made from recipes, and what the engine plans for them. */

#ifndef Q2_FUZZ_SUPPORT_PLANS_H
#define Q2_FUZZ_SUPPORT_PLANS_H

#include "repair/repair.h"

enum { Q2_FUZZ_PLANS = 4 };

#define Q2_FUZZ_PLANS_NOW UINT64_C(1700000000)

/* What is asked for the image at `number`. */
struct q2_repair_options q2_fuzz_plan_options(enum q2_repair_level level, bool deep, bool discard);

/* The plan for image `number` with these options; the same object for the same arguments, which
 * lives as long as the process. */
const struct q2_repair *q2_fuzz_plan(unsigned number, enum q2_repair_level level, bool deep,
                                     bool discard);

/* The plan as JSON, as --dry-run prints it. The caller frees *ret_text. */
void q2_fuzz_plan_text(unsigned number, enum q2_repair_level level, bool deep, bool discard,
                       char **ret_text, size_t *ret_length);

#endif
