/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/io.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The longest request: what `qemu-io` takes. */
enum { LENGTH_MAX = INT32_MAX / 512 * 512 };

void
io_options_begin(void)
{
    optind = 0; /* which makes getopt forget what it was at */
    opterr = 1;
}

bool
io_usage(char **argv)
{
    io_command_print(io_command_find(argv[0]));
    return false;
}

int
io_option_next(int argc, char **argv, const char *letters)
{
    int option = getopt(argc, argv, letters);
    if (option == '?')
        io_usage(argv);
    return option;
}

bool
io_number(const char *text, uint64_t *ret_value)
{
    enum tool_size_result result = tool_size_parse(text, 'b', ret_value);
    if (result == TOOL_SIZE_BAD)
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n",
               text);
    else if (result == TOOL_SIZE_TOO_BIG || *ret_value > INT64_MAX)
        printf("Parsing error: argument too large -- %s\n", text);
    else
        return true;
    return false;
}

bool
io_length(const char *text, uint64_t *ret_length)
{
    if (!io_number(text, ret_length))
        return false;
    if (*ret_length <= LENGTH_MAX)
        return true;
    printf("length cannot exceed %d, given %s\n", LENGTH_MAX, text);
    return false;
}

bool
io_pattern(const char *text, uint8_t *ret_pattern)
{
    char *end;
    unsigned long value = strtoul(text, &end, 0);
    bool good = isdigit((unsigned char)*text) && !*end && value <= UINT8_MAX;
    if (good)
        *ret_pattern = (uint8_t)value;
    else
        printf("%s is not a valid pattern byte\n", text);
    return good;
}

bool
io_sector_aligned(uint64_t offset, uint64_t length)
{
    enum { SECTOR = 512 };
    bool first = offset % SECTOR != 0;
    if (!first && length % SECTOR == 0)
        return true;
    printf("%" PRIu64 " is not a sector-aligned value for '%s'\n", first ? offset : length,
           first ? "offset" : "count");
    return false;
}
