/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One image, from its name to its report. */

#ifndef Q2_CHECKER_TOOL_IMAGE_H
#define Q2_CHECKER_TOOL_IMAGE_H

#include "checker/check.h"
#include "checker/tool/options.h"

#include <stdio.h>

struct output {
    FILE *out;
    bool colour;
    bool one_of_many; /* a JSON object is one line, a sound image is one line */
    bool silent_notes;
    bool progress;
};

/* Check the image called `name`, or say who owns the cluster that the options ask for. Enters the
 * sandbox, so that a process can do this once. Problems of its own go to stderr. Returns an exit
 * status. */
int image_run(const struct options *options, const char *name, const struct output *output);

/* Say on stderr, and with JSON on the output too, that an image could not be checked. */
void image_fail(const struct options *options, const char *name, const struct output *output,
                enum q2_check_exit status, const char *message);

#endif
