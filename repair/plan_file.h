/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A plan as a file: the JSON of a dry run, which somebody has read and agreed to.
 *
 * A plan is a function of the image and of a few options. So what is in the file is never carried
 * out: the plan is made anew from the image, and has to be the same. The file is not trusted. */

#ifndef Q2_REPAIR_PLAN_FILE_H
#define Q2_REPAIR_PLAN_FILE_H

#include "repair/repair.h"

enum { Q2_PLAN_FILE_MAX = 32 * 1024 * 1024 }; /* bytes */

struct q2_plan_file;

/* Parse `length` bytes at `text`; `name` is for messages. Q2_ERR_FORMAT where that is no plan. */
int q2_plan_file_parse(const char *name, const char *text, size_t length,
                       struct q2_plan_file **ret_file, struct q2_error *err);
void q2_plan_file_free(struct q2_plan_file *file);

/* Set the options under which the plan was made: level, deep, discard and now. */
void q2_plan_file_options(const struct q2_plan_file *file, struct q2_repair_options *options);

/* Whether `repair` is what the file describes. Q2_ERR_FORMAT names the first difference. */
int q2_plan_file_match(const struct q2_plan_file *file, const struct q2_repair *repair,
                       struct q2_error *err);

#endif
