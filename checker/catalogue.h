/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The words of the catalogue (core/format/problems.def): what each problem is, what it means to the
 * guest and what can be done about it. */

#ifndef Q2_CHECKER_CATALOGUE_H
#define Q2_CHECKER_CATALOGUE_H

#include "core/format/problem.h"

/* What a finding is worth. The first three have a counter in `qemu-img check`. */
enum q2_severity {
    Q2_SEVERITY_CORRUPTION, /* the image breaks a rule; data is wrong, lost or in danger */
    Q2_SEVERITY_LEAK,       /* space is lost, nothing else */
    Q2_SEVERITY_ERROR,      /* something could not be checked */
    Q2_SEVERITY_SUSPICIOUS, /* allowed, but no sound software leaves it like that */
    Q2_SEVERITY_NOTE,       /* worth knowing */
    Q2_SEVERITY_COUNT,
};

enum q2_pass {
    Q2_PASS_HEADER,
    Q2_PASS_EXTENSIONS,
    Q2_PASS_REFCOUNTS,
    Q2_PASS_SNAPSHOTS,
    Q2_PASS_MAP,
    Q2_PASS_BITMAPS,
    Q2_PASS_ENCRYPTION,
    Q2_PASS_REFERENCES,
    Q2_PASS_PAYLOAD,
    Q2_PASS_CHAIN,
    Q2_PASS_COUNT,
};

/* What a problem means to the guest, worst first: a report ends with the worst of them. */
enum q2_impact {
    Q2_IMPACT_LOST_DATA,    /* data is still in the file but can no longer be reached */
    Q2_IMPACT_UNREADABLE,   /* the guest range cannot be read */
    Q2_IMPACT_WRONG_DATA,   /* the guest may read or write the wrong bytes */
    Q2_IMPACT_KEYS,         /* encrypted data may not be unlocked */
    Q2_IMPACT_SHARED_WRITE, /* the next write may change a snapshot or other data */
    Q2_IMPACT_AT_RISK,      /* intact now, may be overwritten by the next write */
    Q2_IMPACT_SNAPSHOTS,    /* snapshots are affected, the active disk is not */
    Q2_IMPACT_CANNOT_OPEN,  /* software refuses the image; the data in it is not touched by that */
    Q2_IMPACT_CANNOT_WRITE, /* software opens the image for reading only */
    Q2_IMPACT_BITMAPS,      /* dirty bitmaps are affected: the next backup must be a full one */
    Q2_IMPACT_SPACE,        /* space is wasted */
    Q2_IMPACT_NONE,
    Q2_IMPACT_COUNT,
};

/* What qcow2-repair can do about a problem. */
enum q2_repairable {
    Q2_REPAIR_CERTAIN,    /* the right state follows from the image itself */
    Q2_REPAIR_LIKELY,     /* can be decided where other structures give evidence */
    Q2_REPAIR_SALVAGE,    /* not in place; what is readable can be copied out */
    Q2_REPAIR_MANUAL,     /* somebody has to decide */
    Q2_REPAIR_NOT_NEEDED, /* nothing to do */
    Q2_REPAIR_COUNT,
};

struct q2_catalogue_entry {
    const char *name; /* as in the source, such as "L2_ENTRY_PAST_END" */
    const char *id;
    enum q2_pass pass;
    enum q2_severity severity;
    enum q2_impact impact;
    enum q2_repairable repair;
    const char *sentence;
};

const struct q2_catalogue_entry *q2_catalogue(enum q2_problem problem);

/* Whether what a finding of this problem found and expected are numbers of references; of the rest
 * they are what a hex editor shows. */
bool q2_problem_is_about_refcounts(enum q2_problem problem);

/* Stable one-word ids, for JSON: "corruption", "map", "unreadable", "certain". */
const char *q2_severity_id(enum q2_severity severity);
const char *q2_pass_id(enum q2_pass pass);
const char *q2_impact_id(enum q2_impact impact);
const char *q2_repairable_id(enum q2_repairable repair);

/* A sentence each, for people. */
const char *q2_pass_sentence(enum q2_pass pass);
const char *q2_impact_sentence(enum q2_impact impact);
const char *q2_repairable_sentence(enum q2_repairable repair);

#endif
