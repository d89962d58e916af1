/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/format/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const ids[] = {
#define Q2_PROBLEM(name, id, pass, severity, impact, repair, sentence) id,
#include "core/format/problems.def"
#undef Q2_PROBLEM
};

const char *
q2_problem_id(enum q2_problem problem)
{
    return ids[problem];
}

bool
q2_problem_find(const char *id, enum q2_problem *ret_problem)
{
    for (size_t i = 0; i < Q2_PROBLEM_COUNT; i++)
        if (strcmp(ids[i], id) == 0) {
            *ret_problem = (enum q2_problem)i;
            return true;
        }
    return false;
}

/* The text is large, and often all that is asked is whether there are violations: it is not cleared
 * beyond its end. */
static void
begin(struct q2_violation *violation, enum q2_problem problem, uint64_t offset, uint64_t length)
{
    violation->problem = problem;
    violation->offset = offset;
    violation->length = length;
    violation->got = violation->expected = 0;
    violation->has_got = violation->has_expected = false;
    violation->detail[0] = '\0';
}

static void
report(const struct q2_sink *sink, struct q2_violation *violation, const char *format, va_list args)
{
    if (format && !sink->wordless)
        vsnprintf(violation->detail, sizeof violation->detail, format, args);
    sink->report(sink->data, violation);
}

void
q2_violate(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset, uint64_t length,
           uint64_t got, const char *format, ...)
{
    struct q2_violation violation;
    begin(&violation, problem, offset, length);
    violation.got = got;
    violation.has_got = true;
    va_list args;
    va_start(args, format);
    report(sink, &violation, format, args);
    va_end(args);
}

void
q2_violate_text(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset,
                uint64_t length, const char *format, ...)
{
    struct q2_violation violation;
    begin(&violation, problem, offset, length);
    va_list args;
    va_start(args, format);
    report(sink, &violation, format, args);
    va_end(args);
}

void
q2_violate_expected(const struct q2_sink *sink, enum q2_problem problem, uint64_t offset,
                    uint64_t length, uint64_t got, uint64_t expected, const char *format, ...)
{
    struct q2_violation violation;
    begin(&violation, problem, offset, length);
    violation.got = got;
    violation.expected = expected;
    violation.has_got = violation.has_expected = true;
    va_list args;
    va_start(args, format);
    report(sink, &violation, format, args);
    va_end(args);
}

/* Length of the valid, printable UTF-8 character at `text`, or 0. */
static size_t
character(const unsigned char *text, size_t length)
{
    if (text[0] >= 0x20 && text[0] < 0x7f && text[0] != '\\')
        return 1;
    size_t bytes = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : text[0] >= 0xc2 ? 2 : 0;
    if (bytes == 0 || text[0] > 0xf4 || bytes > length)
        return 0;

    uint32_t code = text[0] & (0x7fU >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    /* Beyond overlong forms: C1 controls, and marks that reorder or hide text on a terminal. */
    bool unprintable = code < 0xa0 || (code >= 0x200b && code <= 0x200f) ||
                       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
                       code == 0xfeff;
    return code < smallest[bytes] || code > 0x10ffff || surrogate || unprintable ? 0 : bytes;
}

const char *
q2_printable(char *buffer, size_t size, const void *text, size_t length)
{
    const unsigned char *from = text;
    size_t used = 0, at = 0;
    while (at < length) {
        size_t bytes = character(from + at, length - at);
        size_t needs = bytes ? bytes : 4;
        /* Keep room for the mark of a cut, unless this is the last thing to go in. */
        size_t reserve = at + (bytes ? bytes : 1) < length ? 4 : 1;
        if (used + needs + reserve > size) {
            snprintf(buffer + used, size - used, "%s", "...");
            return buffer;
        }
        if (bytes)
            memcpy(buffer + used, from + at, bytes);
        else
            snprintf(buffer + used, size - used, "\\x%02x", from[at]);
        used += needs;
        at += bytes ? bytes : 1;
    }
    if (size)
        buffer[used] = '\0';
    return buffer;
}
