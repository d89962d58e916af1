/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the reports share: names of owners and maps, and the sum of what findings mean. Private to
 * the reports and the programs. */

#ifndef Q2_CHECKER_REPORT_PARTS_H
#define Q2_CHECKER_REPORT_PARTS_H

#include "checker/report.h"

struct json_object;

/* "clean", "corrupt", "leaks", "incomplete" or "not-supported", for JSON. */
const char *q2_exit_id(enum q2_check_exit status);

/* A stable one-word id, for JSON: "l2-table", "data". */
const char *q2_owner_kind_id(enum q2_owner_kind kind);

/* Describe a set of maps, such as "active, snapshot 'a' and 3 more". Empty for the empty set.
 * Returns `buffer`, always terminated. */
const char *q2_report_maps(const struct q2_check *check, q2_map_set maps, char *buffer,
                           size_t size);

/* An owner as a JSON object; NULL for lack of memory. */
struct json_object *q2_report_owner_object(const struct q2_check *check,
                                           const struct q2_owner *owner);

/* A file name as a JSON string; NULL for lack of memory. */
struct json_object *q2_report_name_object(const char *name);

/* What all findings of one impact come to. */
struct q2_impact_sum {
    uint64_t faults;         /* of corruptions, leaks and errors */
    uint64_t remarks;        /* of suspicious things and notes */
    uint64_t active_bytes;   /* of the active disk, each byte counted once */
    uint64_t snapshot_bytes; /* seen by snapshots only */
    uint64_t vm_state_bytes;
    uint64_t ranges;     /* of the active disk, adjacent ones joined */
    uint64_t first;      /* guest offset of the first such range, bytes */
    uint64_t first_size; /* of the first such range, bytes */
    bool at_least;       /* there are faults without a known guest range */
};

void q2_impact_sums(const struct q2_check *check, struct q2_impact_sum sums[Q2_IMPACT_COUNT]);

/* Write the first line of a human report. */
void q2_report_verdict(const struct q2_check *check, const char *filename,
                       const struct q2_report_style *style, FILE *out);

/* Write what the findings mean for the guest in one or two sentences, and the commands to run next,
 * as the end of a human report. */
void q2_report_meaning(const struct q2_check *check, const char *filename, FILE *out);

/* Only the commands. They name nothing but programs that exist. */
void q2_report_advice(const struct q2_check *check, const char *filename, FILE *out);

#endif
