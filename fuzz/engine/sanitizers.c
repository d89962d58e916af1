/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the sanitizers are to do in all harnesses. The environment still has the last word. */

const char *__asan_default_options(void) __attribute__((visibility("default")));

/* Freed memory need not be kept for longer than some inputs take: what is new is cold, and the
 * first touch of each page costs more than what a harness does in it. */
const char *
__asan_default_options(void)
{
    return "quarantine_size_mb=4:malloc_context_size=12";
}
