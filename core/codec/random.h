/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Where keys come from and where they end. Private to core/codec. */

#ifndef Q2_CODEC_RANDOM_H
#define Q2_CODEC_RANDOM_H

#include "core/base/error.h"

#include <stddef.h>

/* Fill with bytes that nobody can guess. */
int q2_random_bytes(void *bytes, size_t length, struct q2_error *err);

/* Zero them, however sure the compiler is that nobody looks. */
void q2_wipe(void *bytes, size_t length);

#endif
