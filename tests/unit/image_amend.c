/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Another version, refcount width, backing file or key: the content stays, the image is clean, what
 * cannot be is refused by name, and a power cut leaves the one or the other. */

#include "core/image/amend.h"

#include "core/codec/secret.h"
#include "core/image/create.h"
#include "tests/unit/image_states.h"

static const char text[] =
    "cluster-size 4K\nsize 1M\nwrite 0 64K random\nwrite-compressed 256K 16K text\n"
    "snapshot one\nwrite 8K 16K 0x11\nwrite 600K 4K 0x22\n";

static int
amend(struct q2_file *file, const struct q2_amend_options *options, struct q2_error *err)
{
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    int rc = q2_image_amend(opened.image, options, err);
    must_close(&opened);
    return rc;
}

static const struct q2_header *
header_of(struct q2_file *file)
{
    static struct q2_header header;
    struct opened opened = must_open(file, 0);
    header = *q2_image_header(opened.image);
    must_close(&opened);
    return &header;
}

Test(amend, refcount_widths)
{
    struct q2_error err = {0};
    uint64_t size;
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    Q2_AUTOFREE uint8_t *active = read_state(file, -1, &size), *old = read_state(file, 0, &size);
    static const unsigned widths[] = {64, 4, 8, 32, 16};
    for (unsigned i = 0; i < 5; i++) {
        struct q2_amend_options options = {.fields = Q2_AMEND_REFCOUNT_BITS,
                                           .refcount_bits = widths[i]};
        MUST(amend(file, &options, &err), err);
        cr_assert_eq(1U << header_of(file)->refcount_order, widths[i]);
        expect_clean(file, "another width");
        expect_state(file, -1, active, size, "another width");
        expect_state(file, 0, old, size, "another width");
    }
    /* Clusters that a snapshot shares have refcount 2. */
    struct q2_amend_options one = {.fields = Q2_AMEND_REFCOUNT_BITS, .refcount_bits = 1};
    cr_assert_eq(amend(file, &one, &err), Q2_ERR_UNSUPPORTED);
    cr_assert(strstr(err.message, "cannot hold"), "%s", err.message);
    one.refcount_bits = 3;
    cr_assert_eq(amend(file, &one, &err), Q2_ERR_RANGE);
    cr_assert_eq(header_of(file)->refcount_order, 4);
    expect_clean(file, "refused");
}

Test(amend, versions)
{
    struct q2_error err = {0};
    uint64_t size;
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 64K random\nzero 16K 32K\nzero 512K 16K\n");
    Q2_AUTOFREE uint8_t *active = read_state(file, -1, &size);
    for (unsigned version = 2; version <= 3; version++) {
        struct q2_amend_options options = {.fields = Q2_AMEND_VERSION, .version = version};
        MUST(amend(file, &options, &err), err);
        cr_assert_eq(header_of(file)->version, version);
        expect_clean(file, "another version");
        expect_state(file, -1, active, size, "another version");
    }
}

static void
refused(const char *recipe, const char *word)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = build_image(recipe);
    struct q2_amend_options options = {.fields = Q2_AMEND_VERSION, .version = 2};
    cr_assert_eq(amend(file, &options, &err), Q2_ERR_UNSUPPORTED, "%s", recipe);
    cr_assert(strstr(err.message, word), "\"%s\" does not say \"%s\"", err.message, word);
    cr_assert_eq(header_of(file)->version, 3);
}

Test(amend, what_version_2_lacks)
{
    refused("size 1M\nrefcount-bits 8\n", "16 bits");
    refused("cluster-size 16K\nsize 1M\nextended-l2\n", "extended L2");
    refused("size 1M\ncompression zstd\n", "zlib");
    refused("size 1M\nwrite 0 64K 0x11\nzero 0 64K\nsnapshot one\n", "snapshot 1");
}

Test(amend, lazy_refcounts)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    struct q2_amend_options options = {.fields = Q2_AMEND_LAZY_REFCOUNTS, .lazy_refcounts = true};
    MUST(amend(file, &options, &err), err);
    cr_assert_eq(header_of(file)->compatible_features, Q2_COMPATIBLE_LAZY_REFCOUNTS);
    expect_clean(file, "lazy");
    options.lazy_refcounts = false;
    MUST(amend(file, &options, &err), err);
    cr_assert_eq(header_of(file)->compatible_features, 0);
    cr_assert_eq(header_of(file)->incompatible_features, 0);
    expect_clean(file, "no longer lazy");
}

Test(amend, backing_file)
{
    struct q2_error err = {0};
    char name[1025];
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 512\nsize 64K\n");
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE | Q2_IMAGE_NO_BACKING};
    struct q2_file *record = NULL;
    struct q2_image *image = NULL;
    cr_assert_eq(q2_file_new_record(file, &record, NULL), 0);
    MUST(q2_image_open_file(record, &options, &image, &err), err);
    MUST(q2_image_change_backing(image, "base", "raw", &err), err);
    cr_assert_str_eq(q2_image_backing_name(image), "base");
    memset(name, 'n', sizeof name);
    name[1024] = 0;
    cr_assert_eq(q2_image_change_backing(image, name, NULL, &err), Q2_ERR_RANGE);
    name[500] = 0;
    cr_assert_eq(q2_image_change_backing(image, name, NULL, &err), Q2_ERR_NOSPACE);
    cr_assert_eq(q2_image_change_backing(image, NULL, "raw", &err), Q2_ERR_RANGE);
    cr_assert_str_eq(q2_image_backing_name(image), "base");
    MUST(q2_image_close(image, &err), err);

    options.flags = Q2_IMAGE_NO_BACKING;
    cr_assert_eq(q2_file_new_record(file, &record, NULL), 0);
    MUST(q2_image_open_file(record, &options, &image, &err), err);
    cr_assert_str_eq(q2_image_backing_name(image), "base");
    cr_assert_str_eq(q2_image_backing_format(image), "raw");
    MUST(q2_image_close(image, &err), err);
}

/* ---- power cuts ---- */

static bool
harmless(enum q2_problem problem)
{
    return problem == Q2_PROBLEM_REFCOUNT_BEYOND_END || problem == Q2_PROBLEM_ORPHAN_L2_TABLE ||
           q2_catalogue(problem)->severity == Q2_SEVERITY_LEAK ||
           q2_catalogue(problem)->severity == Q2_SEVERITY_NOTE;
}

static bool
keep_some(size_t index, void *data)
{
    unsigned variant = *(unsigned *)data;
    return variant < 2 ? variant : (index * 2654435761U >> 7 ^ variant) & 1;
}

static void
cut_everywhere(const char *recipe, const struct q2_amend_options *options)
{
    struct q2_error err = {0};
    uint64_t size;
    Q2_AUTOCLOSE struct q2_file *file = build_image(recipe), *before = clone_file(file);
    Q2_AUTOFREE uint8_t *active = read_state(file, -1, &size);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    MUST(q2_image_amend(opened.image, options, &err), err);
    size_t count = q2_record_count(opened.record);
    cr_assert_geq(count, 3);
    for (size_t cut = 0; cut <= count; cut++)
        for (unsigned variant = 0; variant < 4; variant++) {
            char when[64];
            Q2_AUTOCLOSE struct q2_file *left = clone_file(before);
            snprintf(when, sizeof when, "fields %u, cut at %zu, variant %u", options->fields, cut,
                     variant);
            MUST(q2_record_replay(opened.record, cut, keep_some, &variant, left, &err), err);
            expect_findings(left, harmless, when);
            expect_state(left, -1, active, size, when);
        }
    must_close(&opened);
}

Test(amend, power_cuts)
{
    cut_everywhere(text, &(struct q2_amend_options){.fields = Q2_AMEND_REFCOUNT_BITS,
                                                    .refcount_bits = 64});
    cut_everywhere(text, &(struct q2_amend_options){.fields = Q2_AMEND_VERSION, .version = 2});
    cut_everywhere("cluster-size 4K\nsize 1M\nwrite 0 64K random\nzero 16K 32K\nzero 512K 16K\n",
                   &(struct q2_amend_options){.fields = Q2_AMEND_VERSION, .version = 2});
}

/* ---- keys ---- */

static uint8_t first[] = "first", second[] = "second";
static const struct q2_secret one = {.bytes = first, .length = 5};
static const struct q2_secret two = {.bytes = second, .length = 6};

static int
open_with(struct q2_file *file, const struct q2_secret *secret, struct q2_image **ret_image,
          struct q2_error *err)
{
    struct q2_file *record = NULL;
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE, .secret = secret};
    cr_assert_eq(q2_file_new_record(file, &record, NULL), 0);
    return q2_image_open_file(record, &options, ret_image, err);
}

Test(amend, keys)
{
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    struct q2_create_options options = {.size = 1 << 20,
                                        .crypt = Q2_CRYPT_LUKS,
                                        .secret = &one,
                                        .iterations = 1000};
    cr_assert_eq(q2_file_new_memory("image", &file, NULL), 0);
    MUST(q2_image_format(file, NULL, &options, &err), err);
    cr_assert_eq(open_with(file, &two, &image, &err), Q2_ERR_PASSPHRASE);
    MUST(open_with(file, &one, &image, &err), err);
    MUST(q2_image_write(image, 0, "guest", 5, &err), err);
    MUST(q2_image_add_key(image, &two, -1, 1000, 0, &err), err);
    cr_assert_eq(q2_image_add_key(image, &two, 1, 1000, 0, &err), Q2_ERR_EXISTS);
    MUST(q2_image_remove_key(image, &one, -1, false, &err), err);
    cr_assert_eq(q2_image_remove_key(image, &two, -1, false, &err), Q2_ERR_RANGE);
    MUST(q2_image_close(image, &err), err);

    char bytes[5];
    cr_assert_eq(open_with(file, &one, &image, &err), Q2_ERR_PASSPHRASE);
    MUST(open_with(file, &two, &image, &err), err);
    MUST(q2_image_read(image, 0, bytes, 5, &err), err);
    cr_assert_eq(memcmp(bytes, "guest", 5), 0);
    MUST(q2_image_close(image, &err), err);
    expect_clean(file, "keys changed");
}
