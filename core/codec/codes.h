/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Prefix codes for the deflate encoder (RFC 1951, section 3.2.2): from how often each symbol occurs
 * to the shortest code of limited length. Private to core/codec. */

#ifndef Q2_CODEC_CODES_H
#define Q2_CODEC_CODES_H

#include <stdint.h>

enum { Q2_CODES_MAX_SYMBOLS = 288 };

/* Lengths in bits (0: unused) and codes, first bit lowest, of symbols 0 .. count-1. `counts` are
 * below 65536 each. At least two symbols get a code, so that the code is always complete: some
 * readers refuse others. */
void q2_codes_build(const uint32_t *counts, unsigned count, unsigned longest, uint8_t *lengths,
                    uint16_t *codes);

#endif
