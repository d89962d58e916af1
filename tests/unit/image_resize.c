/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Disks of another size: what stays, what is zero, what is refused; and power cuts at every write,
 * after which the disk has its old or its new size and all that both have in common. */

#include "core/image/resize.h"

#include "core/io/fault.h"
#include "tests/unit/image_states.h"

static const char *const images[] = {
    ("cluster-size 4K\nsize 1M\nwrite 0 64K random\nwrite-compressed 256K 16K text\n"
     "write 1000K 24K 0x22\n"),
    "cluster-size 512\nsize 100K\nwrite 0 100K random\n",
    "cluster-size 16K\nextended-l2\nsize 1M\nwrite 0 64K random\nwrite 900K 100K 0x11\n",
    "cluster-size 4K\nsize 1M\nwrite 0 1M 0x33\nsnapshot one\nwrite 8K 16K 0x11\n",
    "version 2\ncluster-size 4K\nsize 1M\nwrite 0 64K random\nwrite 1000K 24K 0x22\n",
};
enum { IMAGES = sizeof images / sizeof images[0] };

/* What is mapped behind the disk is dropped when the disk grows. */
static bool
harmless(enum q2_problem problem)
{
    return problem == Q2_PROBLEM_MAP_BEYOND_DISK || problem == Q2_PROBLEM_REFCOUNT_BEYOND_END ||
           problem == Q2_PROBLEM_L2_COPIED_CLEAR || problem == Q2_PROBLEM_ORPHAN_L1_TABLE ||
           problem == Q2_PROBLEM_ORPHAN_L2_TABLE ||
           q2_catalogue(problem)->severity == Q2_SEVERITY_LEAK ||
           q2_catalogue(problem)->severity == Q2_SEVERITY_NOTE;
}

static void
resize(struct q2_file *file, uint64_t size, enum q2_preallocation preallocation)
{
    struct q2_error err = {0};
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    MUST(q2_image_resize(opened.image, size, preallocation, &err), err);
    cr_assert_eq(q2_image_size(opened.image), size);
    must_close(&opened);
}

/* The first bytes are those of `old`; the rest is zeros. */
static void
expect_disk(struct q2_file *file, const uint8_t *old, uint64_t old_size, uint64_t size,
            const char *when)
{
    Q2_AUTOFREE uint8_t *expected = calloc(1, size + 1);
    memcpy(expected, old, old_size < size ? old_size : size);
    expect_state(file, -1, expected, size, when);
}

Test(resize, grow_and_shrink)
{
    for (unsigned i = 0; i < IMAGES; i++)
        for (unsigned pre = 0; pre < 4; pre++) {
            char when[64];
            uint64_t old_size;
            Q2_AUTOCLOSE struct q2_file *file = build_image(images[i]);
            Q2_AUTOFREE uint8_t *old = read_state(file, -1, &old_size);
            snprintf(when, sizeof when, "image %u, preallocation %u", i, pre);
            resize(file, 9 << 20, (enum q2_preallocation)pre);
            expect_clean(file, when);
            expect_disk(file, old, old_size, 9 << 20, when);
            /* In the middle of a cluster, and back: what was cut off does not come back. */
            resize(file, 50 * 1024 + 512, Q2_PREALLOCATION_OFF);
            expect_clean(file, when);
            expect_disk(file, old, 50 * 1024 + 512, 50 * 1024 + 512, when);
            resize(file, 1 << 20, Q2_PREALLOCATION_OFF);
            expect_clean(file, when);
            expect_disk(file, old, 50 * 1024 + 512, 1 << 20, when);
        }
}

Test(resize, snapshots_keep_their_size)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(images[3]);
    uint64_t size;
    Q2_AUTOFREE uint8_t *before = read_state(file, 0, &size);
    resize(file, 64 << 10, Q2_PREALLOCATION_OFF);
    expect_state(file, 0, before, size, "shrunk");
    resize(file, 5 << 20, Q2_PREALLOCATION_METADATA);
    expect_state(file, 0, before, size, "grown");
    expect_clean(file, "grown");
}

Test(resize, file_is_cut)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\n");
    uint64_t before, grown, after;
    cr_assert_eq(q2_file_size(file, &before, NULL), 0);
    resize(file, 8 << 20, Q2_PREALLOCATION_FULL);
    cr_assert_eq(q2_file_size(file, &grown, NULL), 0);
    cr_assert_gt(grown, before + (7 << 20) - 1);
    resize(file, 1 << 20, Q2_PREALLOCATION_OFF);
    cr_assert_eq(q2_file_size(file, &after, NULL), 0);
    cr_assert_lt(after, before + (1 << 20));
}

Test(resize, refused)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 512\nsize 64K\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    cr_assert_eq(q2_image_resize(opened.image, 1000, Q2_PREALLOCATION_OFF, &err), Q2_ERR_RANGE);
    cr_assert_eq(q2_image_resize(opened.image, 512, Q2_PREALLOCATION_FULL, &err), Q2_ERR_RANGE);
    cr_assert_eq(q2_image_resize(opened.image, (UINT64_C(128) << 30) + 512, Q2_PREALLOCATION_OFF,
                                 &err),
                 Q2_ERR_RANGE);
    cr_assert(strstr(err.message, "137438953472"), "%s", err.message);
    cr_assert_eq(q2_image_size(opened.image), 64 << 10);
    must_close(&opened);

    Q2_AUTOCLOSE struct q2_file *old =
        build_image("version 2\ncluster-size 4K\nsize 64K\nsnapshot one\n");
    opened = must_open(old, Q2_IMAGE_WRITE);
    cr_assert_eq(q2_image_resize(opened.image, 128 << 10, Q2_PREALLOCATION_OFF, &err),
                 Q2_ERR_UNSUPPORTED);
    must_close(&opened);
}

/* ---- power cuts and faults ---- */

static bool
keep_some(size_t index, void *data)
{
    unsigned variant = *(unsigned *)data;
    return variant < 2 ? variant : (index * 2654435761U >> 7 ^ variant) & 1;
}

static void
cut_everywhere(const char *text, uint64_t new_size, enum q2_preallocation preallocation)
{
    struct q2_error err = {0};
    uint64_t old_size, size;
    Q2_AUTOCLOSE struct q2_file *file = build_image(text), *before = clone_file(file);
    Q2_AUTOFREE uint8_t *old = read_state(file, -1, &old_size);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    MUST(q2_image_resize(opened.image, new_size, preallocation, &err), err);
    size_t count = q2_record_count(opened.record);
    cr_assert_geq(count, 3);
    for (size_t cut = 0; cut <= count; cut++)
        for (unsigned variant = 0; variant < 4; variant++) {
            char when[64];
            Q2_AUTOCLOSE struct q2_file *left = clone_file(before);
            snprintf(when, sizeof when, "to %llu, cut at %zu, variant %u",
                     (unsigned long long)new_size, cut, variant);
            MUST(q2_record_replay(opened.record, cut, keep_some, &variant, left, &err), err);
            expect_findings(left, harmless, when);
            Q2_AUTOFREE uint8_t *got = read_state(left, -1, &size);
            cr_assert(size == old_size || size == new_size, "%s", when);
            uint64_t common = old_size < new_size ? old_size : new_size;
            cr_assert_eq(memcmp(got, old, common), 0, "%s: reads differently", when);
            for (uint64_t i = old_size; i < size; i++)
                cr_assert_eq(got[i], 0, "%s: byte %llu", when, (unsigned long long)i);
            /* Whatever was left behind the end, it does not come back. */
            resize(left, 4 << 20, Q2_PREALLOCATION_OFF);
            expect_findings(left, harmless, when);
            expect_disk(left, got, size, 4 << 20, when);
        }
    must_close(&opened);
}

Test(resize, power_cuts)
{
    for (unsigned i = 0; i < IMAGES; i++) {
        cut_everywhere(images[i], 3 << 20, Q2_PREALLOCATION_OFF);
        cut_everywhere(images[i], 2 << 20, Q2_PREALLOCATION_METADATA);
        cut_everywhere(images[i], 30 * 1024 + 512, Q2_PREALLOCATION_OFF);
    }
}

Test(resize, faults)
{
    for (unsigned grow = 0; grow < 2; grow++)
        for (uint64_t nth = 1;; nth++) {
            struct q2_error err = {0};
            uint64_t old_size, size, new_size = grow ? 2 << 20 : 30 * 1024 + 512;
            Q2_AUTOCLOSE struct q2_file *file = build_image(images[0]);
            Q2_AUTOFREE uint8_t *old = read_state(file, -1, &old_size);
            struct q2_file *fault = NULL;
            struct q2_image *image = NULL;
            struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                         .ops = Q2_FAULT_ALL & ~(unsigned)Q2_FAULT_READ,
                                         .nth = nth};
            cr_assert_eq(q2_file_new_fault(file, &plan, &fault, &err), 0);
            MUST(q2_image_open_file(fault, &(struct q2_image_options){.flags = Q2_IMAGE_WRITE},
                                    &image, &err),
                 err);
            int rc = q2_image_resize(image, new_size,
                                     grow ? Q2_PREALLOCATION_METADATA : Q2_PREALLOCATION_OFF, &err);
            bool struck = q2_fault_matched(fault) >= nth;
            cr_assert_eq(rc < 0, struck, "fault %llu: %d", (unsigned long long)nth, rc);
            q2_image_close(image, NULL);
            expect_findings(file, harmless, "after a fault");
            Q2_AUTOFREE uint8_t *got = read_state(file, -1, &size);
            cr_assert(size == old_size || size == new_size);
            cr_assert_eq(memcmp(got, old, old_size < size ? old_size : size), 0);
            if (!struck)
                break;
        }
}
