/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The smallest program around the installed library: the exit status of a check. */

#include <checker/check.h>
#include <core/io/posix.h>
#include <stdio.h>

int
main(int argc, char **argv)
{
    struct q2_file *file = NULL;
    struct q2_check *check = NULL;
    struct q2_check_options options = {0};
    struct q2_error err = {0};
    if (argc != 2 || q2_file_open(argv[1], 0, &file, &err) < 0 ||
        q2_check_run(file, &options, &check, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    int status = (int)q2_check_exit(check);
    q2_check_free(check);
    q2_file_close(file);
    return status;
}
