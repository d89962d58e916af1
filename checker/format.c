/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "checker/format.h"

#include "core/format/problem.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

enum { COLUMNS = 80 };

static const char suffixes[] = "KMGTPE";

struct q2_text
q2_format_size(uint64_t bytes)
{
    struct q2_text text;
    unsigned unit = 0;
    while (unit < 6 && bytes >> (10 * (unit + 1)))
        unit++;
    if (unit == 0) {
        snprintf(text.text, sizeof text.text, "%" PRIu64 " byte%s", bytes, bytes == 1 ? "" : "s");
        return text;
    }
    uint64_t whole = bytes >> (10 * unit);
    uint64_t tenths = ((bytes >> (10 * unit - 10) & 1023) * 10 + 512) / 1024;
    if (tenths == 10) {
        whole++;
        tenths = 0;
    }
    if (tenths)
        snprintf(text.text, sizeof text.text, "%" PRIu64 ".%" PRIu64 " %ciB", whole, tenths,
                 suffixes[unit - 1]);
    else
        snprintf(text.text, sizeof text.text, "%" PRIu64 " %ciB", whole, suffixes[unit - 1]);
    return text;
}

/* The largest unit (a power of 1024) that divides `bytes`. */
static unsigned
exact_unit(uint64_t bytes)
{
    unsigned unit = 0;
    while (unit < 6 && (bytes & ((UINT64_C(1) << (10 * (unit + 1))) - 1)) == 0)
        unit++;
    return unit;
}

static struct q2_text
in_unit(uint64_t bytes, unsigned unit)
{
    struct q2_text text;
    if (bytes == 0 || unit == 0)
        snprintf(text.text, sizeof text.text, "%" PRIu64, bytes);
    else
        snprintf(text.text, sizeof text.text, "%" PRIu64 "%c", bytes >> (10 * unit),
                 suffixes[unit - 1]);
    return text;
}

struct q2_text
q2_format_range(uint64_t offset, uint64_t length)
{
    struct q2_text text;
    unsigned unit = exact_unit(offset | length);
    snprintf(text.text, sizeof text.text, "%.30s-%.30s", in_unit(offset, unit).text,
             in_unit(offset + length, unit).text);
    return text;
}

struct q2_text
q2_format_host(uint64_t offset, uint64_t length)
{
    struct q2_text text;
    if (length)
        snprintf(text.text, sizeof text.text, "0x%" PRIx64 "-0x%" PRIx64, offset, offset + length);
    else
        snprintf(text.text, sizeof text.text, "0x%" PRIx64, offset);
    return text;
}

struct q2_text
q2_format_count(uint64_t count)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, count);
    struct q2_text text;
    char *to = text.text;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return text;
}

struct q2_text
q2_format_plural(uint64_t count, const char *noun)
{
    struct q2_text text;
    snprintf(text.text, sizeof text.text, "%.28s %.30s%s", q2_format_count(count).text, noun,
             count == 1 ? "" : "s");
    return text;
}

struct q2_text
q2_format_value(uint64_t value)
{
    struct q2_text text;
    snprintf(text.text, sizeof text.text, value < 1024 ? "%" PRIu64 : "0x%" PRIx64, value);
    return text;
}

struct q2_text
q2_format_percent(uint64_t part, uint64_t whole)
{
    struct q2_text text;
    snprintf(text.text, sizeof text.text, "%.2f %%",
             whole ? 100.0 * (double)part / (double)whole : 0.0);
    return text;
}

void
q2_format_append(char *buffer, size_t size, size_t *used, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(buffer + *used, size - *used, format, args);
    va_end(args);
    if (length > 0)
        *used = (size_t)length < size - *used ? *used + (size_t)length : size - 1;
}

/* Columns that the first `length` bytes of valid UTF-8 take, wide characters aside. */
static size_t
columns_of(const char *text, size_t length)
{
    size_t columns = 0;
    for (size_t i = 0; i < length; i++)
        columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    return columns;
}

void
q2_format_wrap(FILE *out, unsigned first, unsigned indent, const char *text)
{
    size_t column = first;
    bool begun = false; /* whether this line has a word */
    while (*text) {
        size_t length = strcspn(text, " ");
        size_t columns = columns_of(text, length);
        if (begun && column + 1 + columns > COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            begun = false;
        }
        fprintf(out, "%s%.*s", begun ? " " : "", (int)length, text);
        column += columns + begun;
        begun = true;
        text += length + (text[length] == ' ');
    }
    fputc('\n', out);
}

static bool
shell_safe(const char *name)
{
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("%+,-./:=@_", *c) && (unsigned char)*c < 0x80)
            return false;
    return *name != '\0';
}

const char *
q2_format_shell(char *buffer, size_t size, const char *name)
{
    char printable[1024];
    q2_printable(printable, sizeof printable, name, strlen(name));
    bool odd = strcmp(printable, name) != 0;
    const char *dot = name[0] == '-' ? "./" : "";
    size_t used = 0;
    buffer[0] = '\0';

    if (!odd && shell_safe(name)) {
        q2_format_append(buffer, size, &used, "%s%s", dot, name);
        return buffer;
    }
    q2_format_append(buffer, size, &used, "%s'%s", odd ? "$" : "", dot);
    for (const char *c = printable; *c; c++)
        if (*c == '\'')
            q2_format_append(buffer, size, &used, "%s", odd ? "\\'" : "'\\''");
        else
            q2_format_append(buffer, size, &used, "%c", *c);
    q2_format_append(buffer, size, &used, "'");
    return buffer;
}
