/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A folder of its own, for a harness that cannot do without files of the system. */

#ifndef Q2_FUZZ_SUPPORT_SCRATCH_H
#define Q2_FUZZ_SUPPORT_SCRATCH_H

/* Its path: canonical, in memory where there is such a place. It is made if there is none. */
const char *q2_fuzz_scratch(void);

/* Remove it with all that is in it, after each input, as engines end without a word. */
void q2_fuzz_scratch_remove(void);

#endif
