/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The parts of qcow2-check that its output alone does not show well: sizes, progress, messages. */

#include "checker/console/numbers.h"
#include "checker/console/progress.h"
#include "checker/console/say.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <string.h>
#include <unistd.h>

Test(options, sizes)
{
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {
        {"0", 0},
        {"512", 512},
        {"64K", 65536},
        {"64k", 65536},
        {"64KiB", 65536},
        {"7B", 7},
        {"0x50000", 0x50000},
        {"0X1F", 31},
        {"1M", 1 << 20},
        {"2G", UINT64_C(2) << 30},
        {"3T", UINT64_C(3) << 40},
        {"1P", UINT64_C(1) << 50},
        {"15E", UINT64_C(15) << 60},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t size = 1;
        cr_expect(numbers_parse_size(good[i].text, &size), "%s", good[i].text);
        cr_expect_eq(size, good[i].size, "%s", good[i].text);
    }
}

Test(options, no_sizes)
{
    static const char *const bad[] = {
        "",   "K",    "-1",  "+1",   " 1",
        "1 ", "1KK",  "1KB", "0x1K", "0xg",
        "0x", "1.5G", "16E", "1BiB", "18446744073709551616",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t size = 7;
        cr_expect_not(numbers_parse_size(bad[i], &size), "%s", bad[i]);
        cr_expect_eq(size, 7, "%s", bad[i]);
    }
}

Test(progress, lines)
{
    char line[128];
    struct q2_progress now = {.phase = "L2 tables", .done = 0, .total = 1 << 30};
    cr_expect_str_eq(progress_line(&now, 0, line, sizeof line), "L2 tables, 0.0 % of 1 GiB");
    now.done = 256 << 20;
    cr_expect_str_eq(progress_line(&now, 2, line, sizeof line),
                     "L2 tables, 25.0 % of 1 GiB, 128 MiB/s, 0:07 left");
    now.done = now.total;
    cr_expect_str_eq(progress_line(&now, 8, line, sizeof line),
                     "L2 tables, 100.0 % of 1 GiB, 128 MiB/s");
    now = (struct q2_progress){.phase = "header"};
    cr_expect_str_eq(progress_line(&now, 1, line, sizeof line), "header");
    now.done = 65536;
    cr_expect_str_eq(progress_line(&now, 1, line, sizeof line), "header, 64 KiB, 64 KiB/s");
}

static void
show_twice(bool terminal, bool eager)
{
    struct progress progress;
    struct q2_progress now = {.phase = "L2 tables", .done = 1, .total = 1 << 20};
    progress_init(&progress, eager);
    progress.terminal = terminal;
    progress_show(&progress, &now);
    progress_show(&progress, &now); /* too soon */
    progress_end(&progress);
    progress_end(&progress);
    fflush(stderr);
}

Test(progress, is_drawn_over_itself_on_a_terminal)
{
    cr_redirect_stderr();
    show_twice(true, true);
    cr_assert_stderr_eq_str("\rL2 tables, 0.0 % of 1 MiB\033[K\r\033[K");
}

Test(progress, is_lines_elsewhere)
{
    cr_redirect_stderr();
    show_twice(false, true);
    cr_assert_stderr_eq_str("L2 tables, 0.0 % of 1 MiB\n");
}

Test(progress, short_checks_show_none)
{
    cr_redirect_stderr();
    show_twice(true, false);
    cr_assert_stderr_eq_str("");
}

Test(progress, counts_images)
{
    struct progress progress;
    cr_redirect_stderr();
    progress_init(&progress, true);
    progress.terminal = false;
    progress_show_images(&progress, 3, 20);
    progress_show_images(&progress, 4, 20);
    progress_end(&progress);
    fflush(stderr);
    cr_assert_stderr_eq_str("3 of 20 images checked\n");
}

Test(say, control_characters_are_spelled_out)
{
    cr_redirect_stderr();
    say_error("a\033b", "c\n%s", "d\\x1b");
    say_note("e%d", 1);
    fflush(stderr);
    cr_assert_stderr_eq_str("qcow2-check: a\\x1bb: c\\x0ad\\x1b\nqcow2-check: note: e1\n");
}

Test(say, a_long_message_is_cut)
{
    char name[5000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    cr_redirect_stderr();
    say_error(name, "%s", name);
    fflush(stderr);
    char line[5000] = "";
    FILE *err = cr_get_redirected_stderr();
    size_t length = fread(line, 1, sizeof line - 1, err);
    cr_expect_lt(length, 2200);
    cr_expect_eq(line[length - 1], '\n');
}

Test(say, no_terminal_no_colours)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_expect_not(say_is_terminal(ends[1]));
    cr_expect_not(say_may_colour(ends[1]));
    close(ends[0]);
    close(ends[1]);
}
