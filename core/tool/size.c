/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Numbers on the command line, and sizes in what is printed, read and written as QEMU does. */

#include "core/base/checked.h"
#include "core/tool/tool.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The bytes that a suffix stands for; 0 for none. */
static uint64_t
suffix_bytes(char suffix)
{
    static const char letters[] = "BKMGTPE";
    const char *letter = suffix ? strchr(letters, toupper((unsigned char)suffix)) : NULL;
    return letter ? UINT64_C(1) << (10 * (letter - letters)) : 0;
}

/* Step over a point and digits, which are a part of 1. */
static double
take_fraction(const char **text)
{
    double fraction = 0, weight = 0.1;
    const char *digit = *text + 1;
    for (; isdigit((unsigned char)*digit); digit++, weight /= 10)
        fraction += weight * (*digit - '0');
    *text = digit;
    return fraction;
}

enum tool_size_result
tool_size_parse(const char *text, char plain, uint64_t *ret_size)
{
    bool hexadecimal = text[0] == '0' && tolower((unsigned char)text[1]) == 'x';
    char *end;
    /* strtoull takes signs and spaces, which are no sizes. */
    if (!isdigit((unsigned char)*text))
        return TOOL_SIZE_BAD;
    errno = 0;
    uint64_t number = strtoull(text, &end, hexadecimal ? 16 : 10);
    const char *rest = end;
    bool too_big = errno == ERANGE;
    double fraction = *rest == '.' && !hexadecimal ? take_fraction(&rest) : 0;
    uint64_t scale = suffix_bytes(*rest ? *rest : plain);
    if (scale == 0 || (*rest && rest[1]) || (fraction > 0 && scale == 1))
        return TOOL_SIZE_BAD;
    if (too_big || !q2_mul(number, scale, &number) ||
        !q2_add(number, (uint64_t)(fraction * (double)scale + 0.5), &number))
        return TOOL_SIZE_TOO_BIG;
    *ret_size = number;
    return TOOL_SIZE_OK;
}

static bool
check_range(const char *what, uint64_t value, uint64_t min, uint64_t max)
{
    if (value >= min && value <= max)
        return true;
    tool_say("%s: %llu is not between %llu and %llu", what, (unsigned long long)value,
             (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool
tool_size_option(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret_size)
{
    uint64_t size;
    switch (tool_size_parse(text, 'B', &size)) {
    case TOOL_SIZE_OK:
        break;
    case TOOL_SIZE_TOO_BIG:
        tool_say("%s: '%s' is too large; the most is %llu bytes", what, text,
                 (unsigned long long)max);
        return false;
    default:
        tool_say("%s: '%s' is no size; a number may have a suffix k, M, G, T, P or E", what, text);
        return false;
    }
    if (!check_range(what, size, min, max))
        return false;
    *ret_size = size;
    return true;
}

bool
tool_number_option(const char *what, const char *text, uint64_t min, uint64_t max,
                   uint64_t *ret_number)
{
    char *end = NULL;
    uint64_t number = 0;
    errno = 0;
    if (isdigit((unsigned char)*text))
        number = strtoull(text, &end, strncasecmp(text, "0x", 2) == 0 ? 16 : 10);
    if (!end || *end || errno) {
        tool_say("%s: '%s' is not a number it takes", what, text);
        return false;
    }
    if (!check_range(what, number, min, max))
        return false;
    *ret_number = number;
    return true;
}

bool
tool_bool_option(const char *what, const char *text, bool *ret_value)
{
    static const char *const words[] = {"on", "yes", "true", "y", "off", "no", "false", "n"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) {
            *ret_value = i < 4;
            return true;
        }
    tool_say("%s: '%s' is neither on nor off", what, text);
    return false;
}

struct tool_text
tool_size_text(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    struct tool_text text;
    double value = (double)bytes;
    size_t unit = 0;
    /* 1000 and more would need a fourth digit, so that it counts in the next unit. */
    for (; value >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1024;
    snprintf(text.text, sizeof text.text, "%0.3g %s", value, units[unit]);
    return text;
}
