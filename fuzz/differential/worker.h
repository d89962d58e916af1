/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What is asked of ours. */

#ifndef Q2_FUZZ_DIFFERENTIAL_WORKER_H
#define Q2_FUZZ_DIFFERENTIAL_WORKER_H

#include "fuzz/differential/run.h"

/* Run a command of qcow2-img, or "report" or "repair" of an image, in another process. */
void run_own(const char *const *argv, const char *input, struct outcome *ret_outcome);
/* Let go of that process. */
void worker_stop(void);

/* What "report" and "repair" do there. */
int own_report(const char *image);
int own_repair(const char *image);

#endif
