/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the image must hold, in plain arrays. */

#ifndef Q2_TESTS_STRESS_MODEL_H
#define Q2_TESTS_STRESS_MODEL_H

#include "tests/stress/stress.h"

bool model_init(struct model *model, const struct params *params);
void model_destroy(struct model *model);

/* The active state is that of a new image. */
void model_begin(struct model *model, const struct params *params);

void model_write(struct model *model, uint64_t offset, const uint8_t *bytes, size_t length);
void model_zero(struct model *model, uint64_t offset, uint64_t length);
/* The range was part of a request, whether it changed or not: bitmaps may say so. */
void model_touch(struct model *model, uint64_t offset, uint64_t length);
/* All reads as what is below. */
void model_empty(struct model *model, const struct params *params);
/* The disk gets another size; what is added reads as zeros. */
void model_resize(struct model *model, uint64_t size);

bool state_init(struct state *state, const struct params *params);
void state_destroy(struct state *state);
void state_copy(struct state *to, const struct state *from, const struct params *params);

#endif
