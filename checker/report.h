/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From findings to text: for people, and as JSON. */

#ifndef Q2_CHECKER_REPORT_H
#define Q2_CHECKER_REPORT_H

#include "checker/check.h"

#include <stdio.h>

struct q2_report_style {
    bool colour;
    uint64_t max_lines; /* findings listed for each problem; 0: all that were kept */
};

/* Write the report on one image for people: a line for the verdict, a block for each problem, and
 * at the end what it means for the guest's data and which command to run next. */
void q2_report_human(const struct q2_check *check, const char *filename,
                     const struct q2_report_style *style, FILE *out);

/* Write one JSON object: that of `qemu-img check --output=json` plus ours. `pretty` spreads it over
 * lines; otherwise it is one line with a newline at its end. */
int q2_report_json(const struct q2_check *check, const char *filename, bool pretty, FILE *out,
                   struct q2_error *err);

/* Write the catalogue's page on a problem. */
void q2_report_explain(enum q2_problem problem, const struct q2_report_style *style, FILE *out);

/* Describe an owner in a few words, such as "L2 table for guest 0-512M (active, snapshot 'a')".
 * Returns `buffer`, always terminated. */
const char *q2_report_owner(const struct q2_check *check, const struct q2_owner *owner,
                            char *buffer, size_t size);

#endif
