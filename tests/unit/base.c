/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* core/base at its edges: the largest numbers, empty ranges, the last bit, the last byte of a
 * message and of a budget. */

#include "core/base/bitset.h"
#include "core/base/budget.h"
#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/base/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

/* Sanitizers end the process where malloc would return NULL, unless told not to. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *
__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *
__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- error ---- */

Test(error, set_formats_and_returns_the_code)
{
    struct q2_error err = {0};
    cr_assert_eq(q2_error_set(&err, Q2_ERR_EOF, "%s ends at %d", "disk.qcow2", 512), Q2_ERR_EOF);
    cr_assert_eq(err.code, Q2_ERR_EOF);
    cr_assert_str_eq(err.message, "disk.qcow2 ends at 512");
}

Test(error, set_replaces_what_was_there)
{
    struct q2_error err = {0};
    q2_error_set(&err, Q2_ERR_EOF, "a long first message");
    q2_error_set(&err, Q2_ERR_IO, "short");
    cr_assert_eq(err.code, Q2_ERR_IO);
    cr_assert_str_eq(err.message, "short");
}

Test(error, null_is_allowed)
{
    cr_assert_eq(q2_error_set(NULL, Q2_ERR_RANGE, "%d", 1), Q2_ERR_RANGE);
    cr_assert_eq(q2_error_set_errno(NULL, Q2_ERR_IO, EIO, "%d", 1), Q2_ERR_IO);
}

Test(error, errno_text_is_appended)
{
    struct q2_error err = {0};
    cr_assert_eq(q2_error_set_errno(&err, Q2_ERR_NOSPACE, ENOSPC, "offset %d", 7), Q2_ERR_NOSPACE);
    cr_assert_str_eq(err.message, "offset 7: No space left on device");
    q2_error_set_errno(&err, Q2_ERR_IO, 99999, "x");
    cr_assert(strncmp(err.message, "x: ", 3) == 0 && err.message[3], "%s", err.message);
}

Test(error, long_messages_are_cut_not_overrun)
{
    char text[2 * Q2_ERROR_MESSAGE_SIZE];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct q2_error err = {0};
    q2_error_set(&err, Q2_ERR_IO, "%s", text);
    cr_assert_eq(strlen(err.message), Q2_ERROR_MESSAGE_SIZE - 1);
    q2_error_set_errno(&err, Q2_ERR_IO, EIO, "%s", text);
    cr_assert_eq(strlen(err.message), Q2_ERROR_MESSAGE_SIZE - 1);
}

Test(error, every_code_has_a_text_of_its_own)
{
    static const enum q2_error_code codes[] = {
        Q2_OK,          Q2_ERR_NOMEM,     Q2_ERR_BUDGET,    Q2_ERR_IO,      Q2_ERR_EOF,
        Q2_ERR_NOSPACE, Q2_ERR_OPEN,      Q2_ERR_RANGE,     Q2_ERR_FORMAT,  Q2_ERR_UNSUPPORTED,
        Q2_ERR_LOCKED,  Q2_ERR_READ_ONLY, Q2_ERR_NOT_QCOW2, Q2_ERR_STOPPED,
    };
    size_t count = sizeof codes / sizeof *codes;
    for (size_t i = 0; i < count; i++) {
        cr_assert_str_neq(q2_error_text(codes[i]), "unknown error");
        for (size_t j = 0; j < i; j++)
            cr_assert_str_neq(q2_error_text(codes[i]), q2_error_text(codes[j]));
    }
    cr_assert_str_eq(q2_error_text((enum q2_error_code) - 9999), "unknown error");
}

/* ---- checked ---- */

Test(checked, add_up_to_the_edge)
{
    uint64_t sum = 42;
    cr_assert(q2_add(UINT64_MAX - 1, 1, &sum));
    cr_assert_eq(sum, UINT64_MAX);
    sum = 42;
    cr_assert_not(q2_add(UINT64_MAX, 1, &sum));
    cr_assert_not(q2_add(1, UINT64_MAX, &sum));
    cr_assert_eq(sum, 42, "untouched on failure");
    cr_assert(q2_add(0, 0, &sum));
    cr_assert_eq(sum, 0);
}

Test(checked, add_may_write_to_its_operand)
{
    uint64_t a = 5;
    cr_assert(q2_add(a, 6, &a));
    cr_assert_eq(a, 11);
}

Test(checked, mul_up_to_the_edge)
{
    uint64_t product = 42;
    cr_assert(q2_mul(UINT32_MAX, UINT64_C(0x100000001), &product));
    cr_assert_eq(product, UINT64_MAX);
    product = 42;
    cr_assert_not(q2_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &product));
    cr_assert_eq(product, 42, "untouched on failure");
    cr_assert(q2_mul(UINT64_MAX, 0, &product));
    cr_assert_eq(product, 0);
}

Test(checked, range_inside)
{
    cr_assert(q2_range_inside(0, 0, 0));
    cr_assert(q2_range_inside(10, 0, 10), "an empty range at the limit");
    cr_assert_not(q2_range_inside(11, 0, 10));
    cr_assert(q2_range_inside(4, 6, 10));
    cr_assert_not(q2_range_inside(4, 7, 10));
    cr_assert(q2_range_inside(0, UINT64_MAX, UINT64_MAX));
    cr_assert_not(q2_range_inside(UINT64_MAX, 2, 10), "must not wrap");
    cr_assert_not(q2_range_inside(2, UINT64_MAX, 10), "must not wrap");
}

Test(checked, ranges_overlap)
{
    cr_assert(q2_ranges_overlap(0, 10, 9, 1));
    cr_assert(q2_ranges_overlap(9, 1, 0, 10));
    cr_assert_not(q2_ranges_overlap(0, 10, 10, 1), "touching is not overlapping");
    cr_assert_not(q2_ranges_overlap(10, 1, 0, 10));
    cr_assert_not(q2_ranges_overlap(5, 0, 0, 10), "an empty range has no bytes");
    cr_assert_not(q2_ranges_overlap(0, 10, 5, 0));
    cr_assert(q2_ranges_overlap(7, 1, 7, 1));
    cr_assert(q2_ranges_overlap(0, UINT64_MAX, UINT64_MAX - 1, 1));
    cr_assert_not(q2_ranges_overlap(0, UINT64_MAX, UINT64_MAX, 1));
}

Test(checked, units_round_up)
{
    cr_assert_eq(q2_units(0, 16), 0);
    cr_assert_eq(q2_units(1, 16), 1);
    cr_assert_eq(q2_units(65536, 16), 1);
    cr_assert_eq(q2_units(65537, 16), 2);
    cr_assert_eq(q2_units(UINT64_MAX, 9), UINT64_C(1) << 55);
    cr_assert_eq(q2_units(UINT64_MAX, 63), 2);
    cr_assert_eq(q2_units(UINT64_MAX, 1), UINT64_C(1) << 63);
}

Test(checked, min_and_max)
{
    cr_assert_eq(q2_min(0, UINT64_MAX), 0);
    cr_assert_eq(q2_max(0, UINT64_MAX), UINT64_MAX);
    cr_assert_eq(q2_min(3, 3), 3);
    cr_assert_eq(q2_max(3, 3), 3);
}

/* ---- endian ---- */

Test(endian, bytes_in_order_at_any_alignment)
{
    uint8_t bytes[9] = {0};
    q2_store_be64(bytes + 1, UINT64_C(0x0123456789abcdef));
    static const uint8_t expected[9] = {0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    cr_assert_arr_eq(bytes, expected, 9);
    cr_assert_eq(q2_load_be64(bytes + 1), UINT64_C(0x0123456789abcdef));
    cr_assert_eq(q2_load_be32(bytes + 3), UINT32_C(0x456789ab));
    cr_assert_eq(q2_load_be16(bytes + 7), 0xcdef);
    cr_assert_eq(q2_load_be64(bytes), UINT64_C(0x000123456789abcd));
}

Test(endian, stores_touch_only_their_bytes)
{
    uint8_t bytes[6];
    memset(bytes, 0x55, sizeof bytes);
    q2_store_be32(bytes + 1, UINT32_C(0xfffefdfc));
    static const uint8_t expected[6] = {0x55, 0xff, 0xfe, 0xfd, 0xfc, 0x55};
    cr_assert_arr_eq(bytes, expected, 6);
    q2_store_be16(bytes + 3, 0x8001);
    cr_assert_eq(bytes[2], 0xfe);
    cr_assert_eq(q2_load_be16(bytes + 3), 0x8001);
    cr_assert_eq(bytes[5], 0x55);
}

/* ---- bitset ---- */

Test(bitset, first_and_last_bit_of_words)
{
    static const size_t bits[] = {0, 1, 63, 64, 127, 128};
    uint64_t words[3] = {0};
    for (size_t i = 0; i < 6; i++) {
        cr_assert_not(q2_bit_test(words, bits[i]));
        q2_bit_set(words, bits[i]);
        cr_assert(q2_bit_test(words, bits[i]));
    }
    cr_assert_eq(words[0], UINT64_C(0x8000000000000003));
    cr_assert_eq(words[1], UINT64_C(0x8000000000000001));
    cr_assert_eq(words[2], 1);
}

Test(bitset, word_mask)
{
    cr_assert_eq(q2_word_mask(0, 0), 0);
    cr_assert_eq(q2_word_mask(63, 0), 0);
    cr_assert_eq(q2_word_mask(0, 64), UINT64_MAX);
    cr_assert_eq(q2_word_mask(63, 1), UINT64_C(1) << 63);
    cr_assert_eq(q2_word_mask(4, 8), 0xff0);
}

/* ---- cleanup ---- */

Test(cleanup, steal_disarms)
{
    char *kept;
    {
        Q2_AUTOFREE char *scoped = strdup("kept");
        kept = Q2_STEAL(scoped);
        cr_assert_null(scoped);
    }
    cr_assert_str_eq(kept, "kept"); /* freed memory would be an AddressSanitizer report */
    free(kept);
}

/* ---- budget ---- */

Test(budget, takes_up_to_the_limit_and_not_a_byte_more)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 100);
    struct q2_error err = {0};
    void *ten = NULL, *ninety = NULL, *one = &ten;
    cr_assert_eq(q2_budget_calloc(&budget, 10, 1, "ten", &ten, &err), 0);
    cr_assert_eq(q2_budget_calloc(&budget, 9, 10, "ninety", &ninety, &err), 0);
    cr_assert_eq(budget.used, 100);
    cr_assert_eq(q2_budget_calloc(&budget, 1, 1, "the refcount table", &one, &err), Q2_ERR_BUDGET);
    cr_assert_eq(one, &ten, "untouched on failure");
    cr_assert(strstr(err.message, "the refcount table") && strstr(err.message, "100"), "%s",
              err.message);

    q2_budget_free(&budget, ninety, 9, 10);
    cr_assert_eq(budget.used, 10);
    cr_assert_eq(q2_budget_calloc(&budget, 90, 1, "again", &ninety, NULL), 0);
    q2_budget_free(&budget, ninety, 90, 1);
    q2_budget_free(&budget, ten, 10, 1);
    cr_assert_eq(budget.used, 0);
    cr_assert_eq(budget.peak, 100);
}

Test(budget, memory_is_zeroed)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 1 << 20);
    for (int round = 0; round < 2; round++) {
        void *memory;
        cr_assert_eq(q2_budget_calloc(&budget, 1000, 8, "words", &memory, NULL), 0);
        for (size_t i = 0; i < 1000; i++)
            cr_assert_eq(((uint64_t *)memory)[i], 0);
        memset(memory, 0xff, 8000);
        q2_budget_free(&budget, memory, 1000, 8);
    }
}

Test(budget, sizes_that_overflow_are_refused)
{
    struct q2_budget budget;
    q2_budget_init(&budget, UINT64_MAX);
    void *memory = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_budget_calloc(&budget, UINT64_MAX, 8, "clusters", &memory, &err),
                 Q2_ERR_BUDGET);
    cr_assert(strstr(err.message, "18446744073709551615 objects of 8 bytes"), "%s", err.message);
    cr_assert_eq(q2_budget_calloc(&budget, UINT64_C(1) << 63, 1, "clusters", &memory, &err),
                 Q2_ERR_BUDGET);
    cr_assert_null(memory);
    cr_assert_eq(budget.used, 0);
}

Test(budget, what_the_system_refuses_is_given_back)
{
    struct q2_budget budget;
    q2_budget_init(&budget, UINT64_MAX);
    void *memory = NULL;
    struct q2_error err = {0};
    /* No address space is that large. */
    cr_assert_eq(q2_budget_calloc(&budget, UINT64_C(1) << 62, 1, "a table", &memory, &err),
                 Q2_ERR_NOMEM);
    cr_assert(strstr(err.message, "a table"), "%s", err.message);
    cr_assert_null(memory);
    cr_assert_eq(budget.used, 0);
}

Test(budget, grow_keeps_old_and_zeroes_new)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 800);
    void *memory = NULL;
    cr_assert_eq(q2_budget_grow(&budget, 0, 10, 8, "words", &memory, NULL), 0);
    memset(memory, 0xaa, 80);
    cr_assert_eq(q2_budget_grow(&budget, 10, 100, 8, "words", &memory, NULL), 0);
    uint8_t *bytes = memory;
    for (size_t i = 0; i < 800; i++)
        cr_assert_eq(bytes[i], i < 80 ? 0xaa : 0, "byte %zu", i);
    cr_assert_eq(budget.used, 800);

    cr_assert_eq(q2_budget_grow(&budget, 100, 101, 8, "words", &memory, NULL), Q2_ERR_BUDGET);
    cr_assert_eq(memory, (void *)bytes, "unchanged on failure");
    cr_assert_eq(budget.used, 800);
    q2_budget_free(&budget, memory, 100, 8);
    cr_assert_eq(budget.used, 0);
}

Test(budget, nothing_can_be_allocated_and_freed)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 0);
    void *memory = NULL;
    cr_assert_eq(q2_budget_calloc(&budget, 0, 8, "nothing", &memory, NULL), 0);
    cr_assert_not_null(memory);
    q2_budget_free(&budget, memory, 0, 8);
    q2_budget_free(&budget, NULL, 5, 8);
    cr_assert_eq(budget.used, 0);
}

static void *
take_and_give_back(void *data)
{
    struct q2_budget *budget = data;
    uintptr_t taken = 0;
    for (int i = 0; i < 5000; i++) {
        void *memory = NULL;
        if (q2_budget_calloc(budget, 3, 100, "a thread", &memory, NULL) == 0)
            taken++;
        q2_budget_free(budget, memory, 3, 100);
    }
    return (void *)taken;
}

Test(budget, threads_never_pass_the_limit_together)
{
    struct q2_budget budget;
    q2_budget_init(&budget, 700); /* two fit, three do not */
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_give_back, &budget), 0);
    uintptr_t total = 0;
    for (int i = 0; i < 4; i++) {
        void *taken;
        pthread_join(threads[i], &taken);
        total += (uintptr_t)taken;
    }
    cr_assert_gt(total, 0);
    cr_assert_eq(budget.used, 0);
    cr_assert_leq(budget.peak, 700);
    cr_assert_geq(budget.peak, 300);
}
