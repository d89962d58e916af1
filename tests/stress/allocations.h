/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Allocations that fail on purpose. The linker leads the calls of this program here (--wrap). */

#ifndef Q2_TESTS_STRESS_ALLOCATIONS_H
#define Q2_TESTS_STRESS_ALLOCATIONS_H

#include <stdbool.h>
#include <stdint.h>

/* The nth allocation from now on fails, and all after it if `permanent`; 0: none. */
void allocations_fail(uint64_t nth, bool permanent);
/* Whether one has failed since. */
bool allocations_failed(void);

#endif
