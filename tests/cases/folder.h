/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What a case folder holds besides its images, for those who run cases; tests/cases/run.c says what
 * the files are. All of it ends the program where the folder is not as it should be. */

#ifndef Q2_TESTS_CASES_FOLDER_H
#define Q2_TESTS_CASES_FOLDER_H

#include "checker/check.h"
#include "core/io/fault.h"

struct folder_options {
    struct q2_check_options check;
    bool chain;
    struct q2_fault_plan fault;
};

_Noreturn void folder_die(const char *what, const char *why);

/* The whole text of a file, terminated; NULL if there is none. The caller frees it. */
char *folder_read(const char *folder, const char *name, size_t *ret_length);

/* What the file called options says. */
void folder_options(const char *folder, struct folder_options *options);

#endif
