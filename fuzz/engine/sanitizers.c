/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What the sanitizers are to do in all harnesses. The environment still has the last word. */

const char *__asan_default_options(void) __attribute__((visibility("default")));

const char *__lsan_default_suppressions(void) __attribute__((visibility("default")));

/* A thread that is just starting asks what its stack is, for the sanitizer: libFuzzer starts one of
 * its own, and may look for leaks meanwhile. */
const char *
__lsan_default_suppressions(void)
{
    return "leak:__pthread_attr_extension\nleak:pthread_attr_setaffinity_np\n";
}

/* Freed memory need not be kept for longer than some inputs take: what is new is cold, and the
 * first touch of each page costs more than what a harness does in it. Nor need it be known at
 * length who took memory, which would cost as much as taking it: triage asks again, for all of it.
 */
const char *
__asan_default_options(void)
{
    return "quarantine_size_mb=4:malloc_context_size=2";
}
