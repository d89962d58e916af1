/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Programs whose image is damaged in the end, and repairs of it that something interrupts. */

#ifndef Q2_FUZZ_SUPPORT_REPAIRED_H
#define Q2_FUZZ_SUPPORT_REPAIRED_H

#include "fuzz/support/program.h"
#include "repair/repair.h"
#include "tests/repair/sweep_files.h"

/* Run the program, close the image, and damage it; what it is then. */
struct q2_file *q2_program_damaged(struct run *run, const struct q2_program *program);

/* What is asked of a repair, by two bits of the flags from bit 4 on. */
struct q2_repair_options q2_program_repair_options(const struct q2_program *program);

/* Go by the journal. The image is then what it was, or repaired. */
void q2_require_safe(struct sweep_disk *disk, struct q2_file *before, struct q2_file *after);

#endif
