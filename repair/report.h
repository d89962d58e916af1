/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* From a plan to text: for people, and as JSON. */

#ifndef Q2_REPAIR_REPORT_H
#define Q2_REPAIR_REPORT_H

#include "checker/report.h"
#include "repair/repair.h"

#include <stdio.h>

/* What was planned, under which options, and what became of it. */
struct q2_repair_report {
    const struct q2_repair *repair;
    const struct q2_repair_options *options;
    const char *filename;
    const char *journal; /* where the bytes before are; NULL: nowhere */
    bool dry_run;
    bool applied;             /* the repair is on the disk */
    struct q2_check *checked; /* the image as it is in the end; NULL: as it was before */
};

/* "leaks", "certain", "likely" or "guess". */
const char *q2_repair_level_id(enum q2_repair_level level);
bool q2_repair_level_find(const char *id, enum q2_repair_level *ret_level);

/* The exit status: that of the state of the image in the end. */
enum q2_check_exit q2_repair_exit(const struct q2_repair_report *report);

/* Why a problem that is left in the image is left, and what to do instead: a sentence without full
 * stop. NULL: it is not left, is no fault, or the plan has an action that would mend it. */
const char *q2_repair_left(const struct q2_repair *repair, enum q2_problem problem);

/* Write what was found, what is to be done and why, what it changes for the guest, and what is left
 * out. */
void q2_repair_report_plan(const struct q2_repair_report *report,
                           const struct q2_report_style *style, FILE *out);

/* Write what became of it: the verdict, and how to take it back. */
void q2_repair_report_outcome(const struct q2_repair_report *report,
                              const struct q2_report_style *style, FILE *out);

/* Write one JSON object: that of `qemu-img check -r --output=json` plus ours; repair/tool/JSON.md
 * describes it. One of a dry run is what q2_plan_file_parse (plan_file.h) takes. */
int q2_repair_report_json(const struct q2_repair_report *report, FILE *out, struct q2_error *err);

#endif
