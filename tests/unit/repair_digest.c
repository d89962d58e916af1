/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The digest of a plan: the same edits of the same bytes have the same, and nothing else has it. */

#include "repair/digest.h"
#include "tests/unit/overlays.h"

#include <string.h>

struct digest {
    char text[65];
};

typedef void edit_function(struct q2_file *overlay);

static struct digest
digest_of(struct setup *setup, edit_function *edit)
{
    struct digest digest;
    struct q2_error err = {0};
    setup_overlay(setup, 1 << 20);
    edit(setup->overlay);
    cr_assert_eq(q2_digest_edits(setup->base, setup->overlay, digest.text, &err), 0, "%s",
                 err.message);
    q2_file_close(setup->overlay);
    setup->overlay = NULL;
    return digest;
}

static void
put(struct q2_file *overlay, uint64_t offset, const char *bytes)
{
    cr_assert_eq(q2_file_write(overlay, offset, bytes, strlen(bytes), NULL), 0);
}

static void
nothing(struct q2_file *overlay)
{
    (void)overlay;
}

static void
two_words(struct q2_file *overlay)
{
    put(overlay, 1000, "word");
    put(overlay, 3000, "another");
}

static void
two_words_in_another_order(struct q2_file *overlay)
{
    put(overlay, 3000, "an");
    put(overlay, 3002, "other");
    put(overlay, 1000, "wood");
    put(overlay, 1000, "word");
}

static void
one_byte_other(struct q2_file *overlay)
{
    put(overlay, 1000, "work");
    put(overlay, 3000, "another");
}

static void
one_byte_farther(struct q2_file *overlay)
{
    put(overlay, 1001, "word");
    put(overlay, 3000, "another");
}

static void
one_word(struct q2_file *overlay)
{
    put(overlay, 1000, "word");
}

static void
longer(struct q2_file *overlay)
{
    two_words(overlay);
    cr_assert_eq(q2_file_truncate(overlay, size_of(overlay) + 1, NULL), 0);
}

static void
shorter(struct q2_file *overlay)
{
    two_words(overlay);
    cr_assert_eq(q2_file_truncate(overlay, BASE_SIZE - 1, NULL), 0);
}

static void
hole(struct q2_file *overlay)
{
    two_words(overlay);
    cr_assert_eq(q2_file_punch(overlay, 4096, 2048, NULL), 0);
}

static void
larger_hole(struct q2_file *overlay)
{
    two_words(overlay);
    cr_assert_eq(q2_file_punch(overlay, 4096, 2560, NULL), 0);
}

static void
behind_the_end(struct q2_file *overlay)
{
    two_words(overlay);
    put(overlay, BASE_SIZE - 2, "word");
}

Test(repair_digest, is_of_what_comes_out)
{
    struct setup setup = setup_new();
    struct digest first = digest_of(&setup, two_words);
    struct digest second = digest_of(&setup, two_words_in_another_order);
    cr_expect_str_eq(first.text, second.text);
    cr_expect_eq(strlen(first.text), 64);
    cr_expect_eq(strspn(first.text, "0123456789abcdef"), 64);
    setup_free(&setup);
}

Test(repair_digest, tells_edits_apart)
{
    static edit_function *const edits[] = {nothing,          two_words, one_byte_other,
                                           one_byte_farther, one_word,  longer,
                                           shorter,          hole,      larger_hole,
                                           behind_the_end};
    enum { EDITS = sizeof edits / sizeof edits[0] };
    struct setup setup = setup_new();
    struct digest digests[EDITS];
    for (size_t i = 0; i < EDITS; i++) {
        digests[i] = digest_of(&setup, edits[i]);
        for (size_t k = 0; k < i; k++)
            cr_expect_str_neq(digests[i].text, digests[k].text, "%zu and %zu", i, k);
    }
    setup_free(&setup);
}

/* What is edited belongs to the digest as it was before; what is not edited does not. */
Test(repair_digest, is_of_the_image_that_it_is_for)
{
    static const struct {
        uint64_t offset;
        bool differs;
    } bytes[] = {{1000, true}, {1003, true}, {999, false}, {1004, false}, {3006, true}};
    struct setup setup = setup_new();
    struct digest first = digest_of(&setup, two_words);
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        uint8_t *byte = &setup.bytes[bytes[i].offset];
        for (unsigned turn = 0; turn < 2; turn++) {
            *byte ^= 0x10;
            cr_assert_eq(q2_file_write(setup.base, bytes[i].offset, byte, 1, NULL), 0);
            struct digest now = digest_of(&setup, two_words);
            cr_expect_eq(strcmp(now.text, first.text) != 0, bytes[i].differs && turn == 0,
                         "byte %d, turn %u", (int)bytes[i].offset, turn);
        }
    }
    setup_free(&setup);
}
