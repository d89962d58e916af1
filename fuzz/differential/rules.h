/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The reviewed list of disagreements: the file `rules`, whose head says how a rule looks. */

#ifndef Q2_FUZZ_DIFFERENTIAL_RULES_H
#define Q2_FUZZ_DIFFERENTIAL_RULES_H

#include "fuzz/differential/trial.h"

struct rule {
    char *trait, *fact, *field, *ours, *theirs, *right, *reason; /* all in `text` */
    char *text;
};

struct rules {
    struct rule *rules;
    size_t count;
};

/* Read the file. False, with a message printed, where it is not as it should be. */
bool rules_read(const char *path, struct rules *ret_rules);
void rules_destroy(struct rules *rules);

/* The first rule that explains a difference; NULL: none does. */
const struct rule *rules_find(const struct rules *rules, const struct difference *difference);

#endif
