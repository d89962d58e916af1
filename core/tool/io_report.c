/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What `qcow2-img io` prints, in the words that scripts made for `qemu-io` look for. */

#include "core/tool/io.h"
#include "core/tool/rate.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct tool_text
io_size_text(double bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    enum { LAST = sizeof units / sizeof *units - 1 };
    struct tool_text text;
    unsigned unit = 0;
    for (; bytes >= 1024 && unit < LAST; unit++)
        bytes /= 1024;
    int length = snprintf(text.text, sizeof text.text - 8, "%.3f", bytes);
    if (length > 4 && strcmp(text.text + length - 4, ".000") == 0)
        length -= 4;
    snprintf(text.text + length, 8, " %s", units[unit]);
    return text;
}

static struct tool_text
time_text(double seconds, bool fixed)
{
    struct tool_text text;
    unsigned long whole = (unsigned long)seconds;
    unsigned hundredths = (unsigned)((seconds - (double)whole) * 100);
    if (fixed || whole >= 60)
        snprintf(text.text, sizeof text.text, "%lu:%02lu:%02lu.%02u", whole / 3600, whole / 60 % 60,
                 whole % 60, hundredths);
    else
        snprintf(text.text, sizeof text.text, "%02lu.%02u sec", whole, hundredths);
    return text;
}

void
io_report_print(const struct io_report *report)
{
    double seconds = rate_now() - report->begun;
    if (report->quiet)
        return;
    if (seconds <= 0)
        seconds = 1e-9;
    double rate = (double)report->length / seconds, operations = 1 / seconds;
    struct tool_text time = time_text(seconds, report->terse);
    if (report->terse) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", report->length, time.text, rate, operations);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", report->verb, report->length,
           report->length, report->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", io_size_text((double)report->length).text,
           time.text, io_size_text(rate).text, operations);
}

void
io_dump(const uint8_t *buffer, uint64_t offset, size_t length)
{
    enum { ROW = 16 };
    for (size_t row = 0; row < length; row += ROW) {
        size_t end = length - row < ROW ? length : row + ROW;
        printf("%08" PRIx64 ":  ", offset + row);
        for (size_t i = row; i < end; i++)
            printf("%02x ", buffer[i]);
        putchar(' ');
        for (size_t i = row; i < end; i++)
            putchar(isalnum(buffer[i]) ? buffer[i] : '.');
        putchar('\n');
    }
}

bool
io_failed(const char *what, const struct q2_error *err)
{
    printf("%s failed: %s\n", what, err->message);
    return false;
}
