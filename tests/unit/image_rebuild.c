/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Opening a dirty image for writing: its refcounts are made anew whatever they were, also where the
 * power fails or the file does meanwhile, unless the references break a rule: then nothing is
 * written. */

#include "tests/unit/image_states.h"

#include "core/io/fault.h"

#define DIRTY "header.incompatible_features |= 1\n"
#define CONTENT                                                                 \
    "write 0 64K random\nwrite-compressed 256K 16K text\nsnapshot one\n"        \
    "write 8K 16K 0x11\nzero 16K 8K allocated\nwrite-compressed 272K 8K text\n" \
    "write 600K 4K 0x22\nbitmap b auto dirty 0 100K\nleak 3\n"

/* Images, and what has become of their refcounts and flags. */
static const char *const images[] = {
    "cluster-size 4K\nsize 1M\n" CONTENT,
    "cluster-size 4K\nsize 1M\nrefcount-bits 4\n" CONTENT,
    "cluster-size 512\nsize 1M\nrefcount-bits 64\n" CONTENT,
    ("cluster-size 16K\nextended-l2\nsize 1M\nrefcount-bits 32\nwrite 0 64K random\nsnapshot one\n"
     "write 8K 16K 0x11\nsubclusters 64K alloc 0xff zero 0xff00 pattern 7\n"),
    "cluster-size 4K\nsize 1M\nencryption luks\nwrite 0 64K random\nsnapshot one\nwrite 0 4K 1\n",
};

static const char *const damages[] = {
    "", /* leaks alone */
    "zero-fill offset(refcount_block[0]) cluster_size\n",
    "fill offset(refcount_block[0]) cluster_size 0x55\n",
    "refcount_table[0] = 0\n",
    "map(60K).copied = 0\nmap(0).copied = 1\nl1[0].copied = 0\n",
    "refcount(offset(l1)) = 0\nrefcount(map(0).offset) = 1\n",
};

enum {
    IMAGES = sizeof images / sizeof images[0],
    DAMAGES = sizeof damages / sizeof damages[0],
};

static void
join(char *text, size_t size, unsigned image, unsigned damage)
{
    int length = snprintf(text, size, "%s%s%s", images[image], damages[damage], DIRTY);
    cr_assert(length > 0 && (size_t)length < size);
}

static bool
encrypted(unsigned image)
{
    return strstr(images[image], "encryption") != NULL;
}

/* Without the key there is no content to compare. */
static uint8_t *
content(struct q2_file *file, unsigned image, int state)
{
    uint64_t size;
    return encrypted(image) ? NULL : read_state(file, state, &size);
}

static void
expect_content(struct q2_file *file, unsigned image, int state, const uint8_t *bytes,
               const char *when)
{
    if (!encrypted(image))
        expect_state(file, state, bytes, 1 << 20, when);
}

static void
open_and_close(struct q2_file *file)
{
    struct opened opened = must_open(file, Q2_IMAGE_WRITE | Q2_IMAGE_NO_CRYPTO);
    must_close(&opened);
}

Test(rebuild, refcounts_and_flags_are_made_anew)
{
    for (unsigned image = 0; image < IMAGES; image++)
        for (unsigned damage = 0; damage < DAMAGES; damage++) {
            char text[1024];
            join(text, sizeof text, image, damage);
            Q2_AUTOCLOSE struct q2_file *file = build_image(text);
            Q2_AUTOFREE uint8_t *active = content(file, image, -1), *one = NULL;
            one = content(file, image, 0);
            open_and_close(file);
            expect_clean(file, text);
            expect_content(file, image, -1, active, text);
            expect_content(file, image, 0, one, text);
        }
}

/* With clusters of 512 bytes a table of one cluster reaches 8 MiB. */
#define LARGE "cluster-size 512\nsize 20M\nwrite 0 18M 0x33\n"

Test(rebuild, a_table_that_is_too_small_is_replaced)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image(LARGE "header.refcount_table_clusters = 1\n" DIRTY);
    open_and_close(file);
    expect_clean(file, "a small table");
}

Test(rebuild, all_blocks_can_be_missing)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image(LARGE "zero-fill offset(refcount_table) 1024\n" DIRTY);
    open_and_close(file);
    expect_clean(file, "no blocks");
}

Test(rebuild, reading_leaves_a_dirty_image_as_it_is)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 4K 1\nrefcount(offset(l1)) = 0\n" DIRTY);
    struct opened opened = must_open(file, 0);
    cr_expect_eq(q2_record_count(opened.record), 0);
    cr_expect(q2_image_header(opened.image)->incompatible_features & Q2_INCOMPATIBLE_DIRTY);
    must_close(&opened);
}

/* ---- broken rules ---- */

static void
expect_left_alone(const char *damage, const char *words)
{
    char text[1024];
    snprintf(text, sizeof text, "cluster-size 4K\nsize 1M\n%s%s%s", CONTENT, damage, DIRTY);
    Q2_AUTOCLOSE struct q2_file *file = build_image(text), *before = NULL;
    before = clone_file(file);
    struct opened opened;
    struct q2_error err = {0};
    cr_expect_eq(open_image(file, Q2_IMAGE_WRITE, &opened, &err), Q2_ERR_FORMAT, "%s: %s", damage,
                 err.message);
    cr_expect_not_null(strstr(err.message, words), "%s", err.message);
    uint64_t size, size_before;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_eq(q2_file_size(before, &size_before, NULL), 0);
    cr_assert_eq(size, size_before);
    Q2_AUTOFREE uint8_t *bytes = malloc(size), *bytes_before = NULL;
    bytes_before = malloc(size);
    cr_assert_eq(q2_file_read(file, 0, bytes, size, NULL), 0);
    cr_assert_eq(q2_file_read(before, 0, bytes_before, size, NULL), 0);
    cr_expect_eq(memcmp(bytes, bytes_before, size), 0, "%s: written to", damage);
}

Test(rebuild, references_that_break_a_rule_leave_the_image_alone)
{
    expect_left_alone("map(0).offset = 1 << 40\n", "l2-entry-past-end");
    expect_left_alone("map(0).reserved = 2\n", "l2-entry-reserved");
    expect_left_alone("snapshot[0].map(0).offset = 1 << 40\n", "l2-entry-past-end");
    expect_left_alone("l1[0].offset += 512\n", "l1-entry-unaligned");
    expect_left_alone("snapshot[0].l1[0].reserved = 1\n", "l1-entry-reserved");
    expect_left_alone("refcount_table[0] += 512\n", "refcount-block-unaligned");
    expect_left_alone("bitmap[0].table[0].offset = 1 << 40\n", "bitmap-entry-past-end");
}

Test(rebuild, clusters_that_two_things_claim_leave_the_image_alone)
{
    expect_left_alone("map(0).offset = offset(refcount_block[0])\n",
                      "as metadata and as guest data");
    expect_left_alone("map(0).offset = offset(l2_table[0])\n", "as an L2 table and as guest data");
    expect_left_alone("map(0).offset = 0x0\nmap(0) = offset(l1)\n",
                      "as metadata and as guest data");
    expect_left_alone("l1[0].offset = offset(refcount_table)\n", "metadata");
    expect_left_alone("bitmap[0].table[0].offset = offset(l1)\n", "other metadata");
}

Test(rebuild, more_references_than_refcounts_can_count_leave_the_image_alone)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nrefcount-bits 1\nwrite 0 64K 1\n"
                    "map(4K).offset = map(0).offset\n" DIRTY);
    struct opened opened;
    struct q2_error err = {0};
    cr_expect_eq(open_image(file, Q2_IMAGE_WRITE, &opened, &err), Q2_ERR_FORMAT);
    cr_expect_not_null(strstr(err.message, "more than refcounts of 1 bits"), "%s", err.message);
}

/* ---- power cuts and failures ---- */

static bool
keep_some(size_t index, void *data)
{
    return (index * 2654435761U >> 7 ^ *(unsigned *)data) & 1;
}

/* Whatever is left behind, opening it again finishes the work. */
static void
cut_everywhere(unsigned image, unsigned damage)
{
    char text[1024];
    struct q2_error err = {0};
    join(text, sizeof text, image, damage);
    Q2_AUTOCLOSE struct q2_file *file = build_image(text), *before = NULL;
    Q2_AUTOFREE uint8_t *active = content(file, image, -1), *one = NULL;
    one = content(file, image, 0);
    before = clone_file(file);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE | Q2_IMAGE_NO_CRYPTO);
    size_t count = q2_record_count(opened.record);
    cr_assert_gt(count, 3);
    for (size_t cut = 0; cut <= count; cut++)
        for (unsigned variant = 0; variant < 3; variant++) {
            char when[64];
            snprintf(when, sizeof when, "image %u, damage %u, cut at %zu of %zu", image, damage,
                     cut, count);
            Q2_AUTOCLOSE struct q2_file *after = clone_file(before);
            MUST(q2_record_replay(opened.record, cut, variant ? keep_some : NULL, &variant, after,
                                  &err),
                 err);
            open_and_close(after);
            expect_clean(after, when);
            expect_content(after, image, -1, active, when);
            expect_content(after, image, 0, one, when);
        }
    must_close(&opened);
}

Test(rebuild, a_power_cut_meanwhile_does_no_harm)
{
    /* Damages are alike in what has to be written, but for a missing block and wrong flags. */
    for (unsigned image = 0; image < IMAGES; image++) {
        cut_everywhere(image, 4);
        cut_everywhere(image, 3);
    }
}

static bool
fail_at(struct q2_file *file, uint64_t nth)
{
    struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO, .ops = Q2_FAULT_ALL, .nth = nth};
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE};
    struct q2_file *fault = NULL;
    struct q2_image *image = NULL;
    struct q2_error err = {0};
    cr_assert_eq(q2_file_new_fault(file, &plan, &fault, NULL), 0);
    int rc = q2_image_open_file(fault, &options, &image, &err);
    if (rc < 0) {
        cr_expect_neq(err.message[0], 0);
        return true;
    }
    bool reached = q2_fault_matched(fault) >= nth;
    q2_image_close(image, NULL);
    return reached;
}

Test(rebuild, each_failing_operation_does_no_harm)
{
    char text[1024];
    join(text, sizeof text, 0, 3);
    Q2_AUTOCLOSE struct q2_file *original = build_image(text);
    Q2_AUTOFREE uint8_t *active = content(original, 0, -1);
    for (uint64_t nth = 1;; nth++) {
        Q2_AUTOCLOSE struct q2_file *file = clone_file(original);
        cr_assert_lt(nth, 5000);
        if (!fail_at(file, nth))
            break;
        open_and_close(file);
        expect_clean(file, "after a failure");
        expect_content(file, 0, -1, active, "after a failure");
    }
}
