/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Errors: the last step of a sequence is done again, and one of the I/O operations or allocations
 * that it makes fails, by itself or with all that follow. Whatever the step then says, the disk
 * holds its old or its new bytes, the image can be used on, and the file has nothing worse than
 * leaked clusters. */

#ifndef Q2_TESTS_STRESS_FAULTS_H
#define Q2_TESTS_STRESS_FAULTS_H

#include "core/io/fault.h"
#include "tests/stress/history.h"

struct fault_kind {
    enum q2_fault_kind kind;
    bool permanent;
};
enum { FAULT_KINDS = 6 };
extern const struct fault_kind fault_kinds[FAULT_KINDS];

/* The step, and which fault there is while it is done. */
struct sweep {
    struct run *run;
    const struct step *step;
    struct history history; /* before and after the step */
    struct world saved;     /* the files before it */
    bool memory;            /* an allocation fails; no allocation knows the kinds but `permanent` */
    struct fault_kind kind;
    struct slot *slot; /* whose file fails */
    uint64_t nth;
};

/* Begin the run and do the steps before the last one, which there must be, and the last one as it
 * should be. */
bool faults_prepare(struct sweep *sweep, const struct params *params, const struct step *steps,
                    unsigned count);
/* Do the last step again with the fault. *ret_over: there are not as many operations. */
bool faults_once(struct sweep *sweep, bool *ret_over);
void faults_destroy(struct sweep *sweep);

#endif
