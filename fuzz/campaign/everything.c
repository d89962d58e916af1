/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* A program with all of core, checker and repair in it, and never run: coverage is shown of what is
 * in a program, and a harness has only what it calls. */

int
main(void)
{
    return 0;
}
