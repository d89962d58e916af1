/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/console/numbers.h"

#include "checker/console/say.h"
#include "core/base/checked.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The power of 1024 that a suffix stands for; -1 for none. */
static int
suffix_power(const char *suffix)
{
    static const char letters[] = "BKMGTPE";
    if (*suffix == '\0')
        return 0;
    const char *letter = strchr(letters, toupper((unsigned char)*suffix));
    if (!letter)
        return -1;
    bool whole = suffix[1] == '\0' || strcasecmp(suffix + 1, "iB") == 0;
    return whole && (letter != letters || suffix[1] == '\0') ? (int)(letter - letters) : -1;
}

bool
numbers_parse_size(const char *text, uint64_t *ret_size)
{
    char *end;
    /* strtoull takes signs and spaces, which are no sizes. */
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    bool hexadecimal = text[0] == '0' && tolower((unsigned char)text[1]) == 'x';
    uint64_t number = strtoull(text, &end, hexadecimal ? 16 : 10);
    int power = suffix_power(end);
    if (errno || power < 0 || (hexadecimal && *end))
        return false;
    return q2_mul(number, UINT64_C(1) << (10 * power), ret_size);
}

bool
numbers_parse(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    uint64_t value;
    if (!numbers_parse_size(text, &value) || value < min || value > max) {
        say_error(NULL, "%s: '%s' is not a number it takes", option, text);
        return false;
    }
    *ret_value = value;
    return true;
}

bool
numbers_parse_jobs(const char *option, const char *text, unsigned *ret_value)
{
    enum { MAX = 1024 };
    uint64_t value;
    if (!numbers_parse(option, text, 1, MAX, &value))
        return false;
    *ret_value = (unsigned)value;
    return true;
}
