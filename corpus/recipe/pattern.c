/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Patterns are functions of the position alone, so that any part of one can be made at any time
 * and the same recipe always gives the same bytes. */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "corpus/recipe/syntax.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { WORD_BYTES = 8, LINE_BYTES = 32 };

/* A counter, well stirred. */
static uint64_t
stir(uint64_t counter)
{
    uint64_t x = counter * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 31) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 29;
}

/* The unit of a pattern that holds `position`: its bytes and where it begins. */
static size_t
unit_at(const struct recipe_pattern *pattern, uint64_t position, char *line, const char **ret_unit,
        uint64_t *ret_start)
{
    uint64_t number;
    switch (pattern->kind) {
    case PATTERN_RANDOM:
        number = position / WORD_BYTES;
        q2_store_be64(line, stir(number + stir(pattern->seed)));
        *ret_unit = line;
        *ret_start = number * WORD_BYTES;
        return WORD_BYTES;
    case PATTERN_LINES:
        number = position / LINE_BYTES;
        snprintf(line, LINE_BYTES + 1, "disk %-4" PRIu64 "line %-16" PRIu64 "\n",
                 pattern->seed % 10000, number % 10000000000000000);
        *ret_unit = line;
        *ret_start = number * LINE_BYTES;
        return LINE_BYTES;
    default:
        *ret_unit = pattern->literal;
        *ret_start = position - position % pattern->literal_length;
        return pattern->literal_length;
    }
}

void
recipe_pattern_fill(const struct recipe_pattern *pattern, uint64_t position, void *buffer,
                    size_t length)
{
    if (pattern->kind == PATTERN_BYTE) {
        memset(buffer, (int)pattern->seed, length);
        return;
    }
    char *to = buffer;
    while (length) {
        char line[LINE_BYTES + 1];
        const char *unit;
        uint64_t start;
        size_t size = unit_at(pattern, position, line, &unit, &start);
        size_t skip = (size_t)(position - start), part = (size_t)q2_min(size - skip, length);
        memcpy(to, unit + skip, part);
        to += part;
        position += part;
        length -= part;
    }
}
