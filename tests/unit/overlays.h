/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* An overlay on a base in memory that must never change. */

#ifndef Q2_TESTS_OVERLAYS_H
#define Q2_TESTS_OVERLAYS_H

#include "core/io/memory.h"
#include "core/io/overlay.h"

#include <criterion/criterion.h>

enum { BLOCK = 512, BASE_SIZE = 20 * BLOCK + 77 };

struct setup {
    struct q2_budget budget;
    struct q2_file *base;
    struct q2_file *overlay;
    uint8_t bytes[BASE_SIZE];
};

static struct setup
setup_new(void)
{
    struct setup setup = {0};
    for (size_t i = 0; i < BASE_SIZE; i++)
        setup.bytes[i] = (uint8_t)(i % 255 + 1);
    cr_assert_eq(q2_file_new_memory_from("base", setup.bytes, BASE_SIZE, &setup.base, NULL), 0);
    return setup;
}

/* The budget must not move once the overlay knows it. */
static void
setup_overlay(struct setup *setup, uint64_t limit)
{
    q2_budget_init(&setup->budget, limit);
    cr_assert_eq(q2_file_new_overlay(setup->base, &setup->budget, &setup->overlay, NULL), 0);
}

static void
setup_free(struct setup *setup)
{
    uint8_t back[BASE_SIZE];
    uint64_t size = 0;
    q2_file_close(setup->overlay);
    cr_assert_eq(setup->budget.used, 0, "all memory is given back");
    cr_assert_eq(q2_file_size(setup->base, &size, NULL), 0);
    cr_assert_eq(size, BASE_SIZE);
    cr_assert_eq(q2_file_read(setup->base, 0, back, BASE_SIZE, NULL), 0);
    cr_assert_arr_eq(back, setup->bytes, BASE_SIZE, "the base never changes");
    q2_file_close(setup->base);
}

static uint64_t
size_of(struct q2_file *file)
{
    uint64_t size = UINT64_MAX;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    return size;
}

#endif
