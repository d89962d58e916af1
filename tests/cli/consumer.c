/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The smallest program around the installed library: the exit status of a check, and a plan of the
 * repair, which has to promise less damage. */

#include <checker/check.h>
#include <core/io/posix.h>
#include <repair/apply.h>
#include <repair/journal.h>
#include <repair/plan_file.h>
#include <repair/repair.h>
#include <repair/report.h>
#include <repair/salvage.h>
#include <stdio.h>

int
main(int argc, char **argv)
{
    struct q2_file *file = NULL;
    struct q2_check *check = NULL;
    struct q2_check_options options = {0};
    struct q2_repair *repair = NULL;
    struct q2_repair_options how = {.level = Q2_LEVEL_GUESS};
    struct q2_error err = {0};
    if (argc != 2 || q2_file_open(argv[1], 0, &file, &err) < 0 ||
        q2_check_run(file, &options, &check, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    int status = (int)q2_check_exit(check);
    if (q2_repair_plan(file, &how, &repair, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    if (!q2_repair_needed(repair) || q2_check_exit(q2_repair_after(repair)) == Q2_EXIT_CORRUPT)
        return fprintf(stderr, "%s: no repair was planned\n", argv[1]), 1;
    q2_repair_free(repair);
    q2_check_free(check);
    q2_file_close(file);
    return status;
}
