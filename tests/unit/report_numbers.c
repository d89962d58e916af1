/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Numbers, names and paragraphs as the reports write them. */

#include "checker/format.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(format, sizes)
{
    cr_expect_str_eq(q2_format_size(0).text, "0 bytes");
    cr_expect_str_eq(q2_format_size(1).text, "1 byte");
    cr_expect_str_eq(q2_format_size(1023).text, "1023 bytes");
    cr_expect_str_eq(q2_format_size(65536).text, "64 KiB");
    cr_expect_str_eq(q2_format_size(1536).text, "1.5 KiB");
    cr_expect_str_eq(q2_format_size((1 << 20) - 1).text, "1024 KiB");
    cr_expect_str_eq(q2_format_size(UINT64_MAX).text, "16 EiB");
}

Test(format, ranges_are_exact)
{
    cr_expect_str_eq(q2_format_range(65536, 65536).text, "64K-128K");
    cr_expect_str_eq(q2_format_range(8 << 20, 65536).text, "8192K-8256K");
    cr_expect_str_eq(q2_format_range(0, UINT64_C(1) << 29).text, "0-512M");
    cr_expect_str_eq(q2_format_range(UINT64_C(1) << 40, 512).text, "1099511627776-1099511628288");
    cr_expect_str_eq(q2_format_host(0x50000, 0x10000).text, "0x50000-0x60000");
    cr_expect_str_eq(q2_format_host(0x50000, 0).text, "0x50000");
}

Test(format, counts_and_values)
{
    cr_expect_str_eq(q2_format_count(0).text, "0");
    cr_expect_str_eq(q2_format_count(999).text, "999");
    cr_expect_str_eq(q2_format_count(1000).text, "1,000");
    cr_expect_str_eq(q2_format_count(UINT64_MAX).text, "18,446,744,073,709,551,615");
    cr_expect_str_eq(q2_format_plural(1, "leak").text, "1 leak");
    cr_expect_str_eq(q2_format_plural(2000, "leak").text, "2,000 leaks");
    cr_expect_str_eq(q2_format_value(1023).text, "1023");
    cr_expect_str_eq(q2_format_value(65536).text, "0x10000");
    cr_expect_str_eq(q2_format_percent(1, 8).text, "12.50 %");
    cr_expect_str_eq(q2_format_percent(1, 0).text, "0.00 %");
}

Test(format, appending_stops_at_the_end)
{
    char buffer[8];
    size_t used = 0;
    q2_format_append(buffer, sizeof buffer, &used, "%s", "12345");
    q2_format_append(buffer, sizeof buffer, &used, "%s", "6789");
    q2_format_append(buffer, sizeof buffer, &used, "%s", "x");
    cr_expect_str_eq(buffer, "1234567");
    cr_expect_eq(used, 7);
}

Test(format, names_for_a_shell)
{
    char buffer[64];
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "vm/a.qcow2"), "vm/a.qcow2");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "-f"), "./-f");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, ""), "''");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "my vm"), "'my vm'");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "it's"), "'it'\\''s'");
    cr_expect_str_eq(q2_format_shell(buffer, sizeof buffer, "a\033'b"), "$'a\\x1b\\'b'");
}

Test(format, wraps_at_words)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    q2_format_wrap(out, 70, 4, "these are words that go on the next line");
    fclose(out);
    cr_expect_str_eq(text, "these are\n    words that go on the next line\n");
    free(text);
}
