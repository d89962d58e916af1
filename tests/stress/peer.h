/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Running QEMU's programs in a folder. */

#ifndef Q2_TESTS_STRESS_PEER_H
#define Q2_TESTS_STRESS_PEER_H

#include "tests/stress/stress.h"

bool peer_command(struct run *run, const char *folder, const char *command);
bool peer_write(const char *folder, const char *name, const void *bytes, size_t length);

#endif
