/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* New images: what is refused and why; that what is made is clean and reads as zeros; that a
 * failure anywhere leaves neither half an image nor half a file. */

#include "core/image/create.h"

#include "core/codec/secret.h"
#include "core/io/fault.h"
#include "tests/unit/image_states.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t phrase[] = "abc";
static const struct q2_secret secret = {.bytes = phrase, .length = 3};

static void
refused(struct q2_create_options options, int code, const char *word)
{
    struct q2_error err = {0};
    if (options.size == 0)
        options.size = 1 << 20;
    int rc = q2_create_validate(&options, &err);
    cr_assert_eq(rc, code, "%s: %d: %s", word, rc, err.message);
    cr_assert(strstr(err.message, word), "\"%s\" does not say \"%s\"", err.message, word);
}

#define REFUSED(code, word, ...) refused((struct q2_create_options){__VA_ARGS__}, code, word)

Test(create, numbers_out_of_range)
{
    REFUSED(Q2_ERR_RANGE, "512 to 2097152", .cluster_size = 256);
    REFUSED(Q2_ERR_RANGE, "512 to 2097152", .cluster_size = 4 << 20);
    REFUSED(Q2_ERR_RANGE, "3000", .cluster_size = 3000);
    REFUSED(Q2_ERR_RANGE, "1 to 64", .refcount_bits = 3);
    REFUSED(Q2_ERR_RANGE, "1 to 64", .refcount_bits = 128);
    REFUSED(Q2_ERR_RANGE, "neither 2 nor 3", .version = 4);
    REFUSED(Q2_ERR_RANGE, "multiple of 512", .size = 1000);
    REFUSED(Q2_ERR_RANGE, "2251799813685248", .size = (UINT64_C(2) << 50) + 512);
    REFUSED(Q2_ERR_RANGE, "137438953472", .size = (UINT64_C(128) << 30) + 512, .cluster_size = 512);
    REFUSED(Q2_ERR_RANGE, "at least 16384", .flags = Q2_CREATE_EXTENDED_L2, .cluster_size = 8192);
    REFUSED(Q2_ERR_RANGE, "refcount_bits 64", .size = UINT64_C(128) << 30, .cluster_size = 512,
            .refcount_bits = 64, .preallocation = Q2_PREALLOCATION_METADATA);
}

Test(create, version_2_lacks_features)
{
    REFUSED(Q2_ERR_UNSUPPORTED, "refcount_bits", .version = 2, .refcount_bits = 8);
    REFUSED(Q2_ERR_UNSUPPORTED, "lazy", .version = 2, .flags = Q2_CREATE_LAZY_REFCOUNTS);
    REFUSED(Q2_ERR_UNSUPPORTED, "extended", .version = 2, .flags = Q2_CREATE_EXTENDED_L2);
    REFUSED(Q2_ERR_UNSUPPORTED, "zlib", .version = 2, .compression = Q2_COMPRESSION_ZSTD);
    REFUSED(Q2_ERR_UNSUPPORTED, "data_file", .version = 2, .data_file = "d");
}

Test(create, what_does_not_go_together)
{
    char name[1200];
    memset(name, 'n', sizeof name);
    name[1024] = 0;
    REFUSED(Q2_ERR_RANGE, "needs data_file", .flags = Q2_CREATE_RAW_DATA_FILE);
    REFUSED(Q2_ERR_RANGE, "exclude", .flags = Q2_CREATE_RAW_DATA_FILE, .data_file = "d",
            .backing_file = "b");
    REFUSED(Q2_ERR_RANGE, "extended_l2", .backing_file = "b",
            .preallocation = Q2_PREALLOCATION_FULL);
    REFUSED(Q2_ERR_RANGE, "backing_fmt", .backing_format = "raw");
    REFUSED(Q2_ERR_RANGE, "backing_file", .backing_file = name);
    REFUSED(Q2_ERR_RANGE, "1 and 15", .backing_file = "b", .backing_format = "abcdefghijklmnop");
    REFUSED(Q2_ERR_RANGE, "control", .data_file = "a\nb");
    name[500] = 0;
    REFUSED(Q2_ERR_NOSPACE, "first cluster", .backing_file = name, .cluster_size = 512);
    REFUSED(Q2_ERR_PASSPHRASE, "key-secret", .crypt = Q2_CRYPT_AES);
    REFUSED(Q2_ERR_UNSUPPORTED, "read as zeros", .version = 2, .crypt = Q2_CRYPT_AES,
            .secret = &secret, .preallocation = Q2_PREALLOCATION_METADATA);
    REFUSED(Q2_ERR_UNSUPPORTED, "aes-128", .crypt = Q2_CRYPT_LUKS, .secret = &secret,
            .cipher_name = "des");
    REFUSED(Q2_ERR_UNSUPPORTED, "plain64", .crypt = Q2_CRYPT_LUKS, .secret = &secret,
            .ivgen_name = "none");
    REFUSED(Q2_ERR_UNSUPPORTED, "xts", .crypt = Q2_CRYPT_LUKS, .secret = &secret,
            .cipher_name = "aes-192", .cipher_mode = "cbc");
}

Test(create, names_of_preallocation)
{
    enum q2_preallocation found = Q2_PREALLOCATION_OFF;
    cr_assert(q2_preallocation_find("falloc", &found));
    cr_assert_eq(found, Q2_PREALLOCATION_FALLOC);
    cr_assert_str_eq(q2_preallocation_name(Q2_PREALLOCATION_FULL), "full");
    cr_assert(!q2_preallocation_find("some", &found));
}

/* ---- images ---- */

static struct q2_file *
memory_file(void)
{
    struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_memory("image", &file, NULL), 0);
    return file;
}

static void
expect_zeros(struct q2_file *file, uint64_t size)
{
    uint64_t got;
    Q2_AUTOFREE uint8_t *bytes = read_state(file, -1, &got);
    cr_assert_eq(got, size);
    for (uint64_t i = 0; i < size; i++)
        cr_assert_eq(bytes[i], 0, "byte %llu", (unsigned long long)i);
}

Test(create, clean_and_zero)
{
    static const uint64_t sizes[] = {0, 512, 65536, 3 * 65536 + 512};
    for (unsigned cluster = 9; cluster <= 17; cluster += 2)
        for (unsigned bits = 1; bits <= 64; bits *= 4)
            for (unsigned i = 0; i < 4; i++)
                for (unsigned pre = 0; pre < 4; pre++) {
                    struct q2_error err = {0};
                    Q2_AUTOCLOSE struct q2_file *file = memory_file();
                    struct q2_create_options options = {
                        .size = sizes[i],
                        .cluster_size = UINT64_C(1) << cluster,
                        .refcount_bits = bits,
                        .preallocation = (enum q2_preallocation)pre,
                        .flags = cluster >= 14 && bits == 4 ? Q2_CREATE_EXTENDED_L2 : 0,
                    };
                    MUST(q2_image_format(file, NULL, &options, &err), err);
                    char when[64];
                    snprintf(when, sizeof when, "cluster %u bits %u size %u preallocation %u",
                             cluster, bits, i, pre);
                    expect_clean(file, when);
                    expect_zeros(file, sizes[i]);
                }
}

Test(create, preallocated_to_the_last_cluster)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = memory_file();
    struct q2_create_options options = {.size = 10 << 20,
                                        .preallocation = Q2_PREALLOCATION_METADATA};
    MUST(q2_image_format(file, NULL, &options, &err), err);
    struct opened opened = must_open(file, 0);
    struct q2_extent extent;
    uint64_t size;
    MUST(q2_image_map_own(opened.image, 0, options.size, &extent, &err), err);
    cr_assert_eq(extent.length, options.size, "in one piece");
    cr_assert(extent.present && extent.has_host);
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    cr_assert_eq(extent.host + options.size, size);
    must_close(&opened);
}

/* What an existing file has is gone, not mixed in. */
Test(create, over_something_else)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = memory_file();
    Q2_AUTOFREE uint8_t *noise = malloc(1 << 20);
    memset(noise, 0xa5, 1 << 20);
    MUST(q2_file_write(file, 0, noise, 1 << 20, &err), err);
    MUST(q2_image_format(file, NULL, &(struct q2_create_options){.size = 1 << 20}, &err), err);
    expect_clean(file, "over noise");
    expect_zeros(file, 1 << 20);
}

Test(create, every_fault)
{
    static const enum q2_fault_kind kinds[] = {Q2_FAULT_EIO, Q2_FAULT_ENOSPC, Q2_FAULT_TORN};
    const struct q2_create_options options = {.size = 1 << 20,
                                              .cluster_size = 512,
                                              .preallocation = Q2_PREALLOCATION_FULL};
    for (unsigned kind = 0; kind < 3; kind++)
        for (uint64_t nth = 1;; nth++) {
            struct q2_error err = {0};
            Q2_AUTOCLOSE struct q2_file *file = memory_file();
            Q2_AUTOCLOSE struct q2_file *fault = NULL;
            struct q2_fault_plan plan = {.kind = kinds[kind], .ops = Q2_FAULT_ALL, .nth = nth};
            cr_assert_eq(q2_file_new_fault(file, &plan, &fault, &err), 0);
            int rc = q2_image_format(fault, NULL, &options, &err);
            if (q2_fault_matched(fault) < nth) {
                cr_assert_eq(rc, 0, "%s", err.message);
                cr_assert_gt(nth, 5);
                break;
            }
            cr_assert_lt(rc, 0, "fault %u at %llu went unseen", kind, (unsigned long long)nth);
            uint64_t size;
            cr_assert_eq(q2_file_size(file, &size, NULL), 0);
            cr_assert_eq(size, 0, "fault %u at %llu left %llu bytes", kind, (unsigned long long)nth,
                         (unsigned long long)size);
        }
}

/* ---- by name ---- */

Test(create, files)
{
    char folder[] = "/tmp/q2-create-XXXXXX", image[64], data[64];
    struct q2_error err = {0};
    struct stat st;
    cr_assert_not_null(mkdtemp(folder));
    snprintf(image, sizeof image, "%s/image", folder);
    snprintf(data, sizeof data, "%s/data", folder);

    /* A refusal leaves nothing, and what is there alone. */
    struct q2_create_options options = {.size = 1 << 20, .cluster_size = 3};
    cr_assert_eq(q2_image_create(image, &options, &err), Q2_ERR_RANGE);
    cr_assert_lt(stat(image, &st), 0);
    FILE *stream = fopen(image, "w");
    cr_assert_not_null(stream);
    fputs("precious", stream);
    fclose(stream);
    cr_assert_eq(q2_image_create(image, &options, &err), Q2_ERR_RANGE);
    cr_assert_eq(stat(image, &st), 0);
    cr_assert_eq(st.st_size, 8);

    /* The data file is beside the image; one that cannot be made takes the image along. */
    options = (struct q2_create_options){.size = 1 << 20, .data_file = "missing/data"};
    unlink(image);
    cr_assert_eq(q2_image_create(image, &options, &err), Q2_ERR_OPEN);
    cr_assert_lt(stat(image, &st), 0);
    options.data_file = "data";
    MUST(q2_image_create(image, &options, &err), err);
    cr_assert_eq(stat(data, &st), 0);
    cr_assert_eq(st.st_size, 1 << 20);

    /* The image cannot be its own data file. */
    options.data_file = "image";
    cr_assert_eq(q2_image_create(image, &options, &err), Q2_ERR_LOCKED);
    unlink(image);
    unlink(data);
    rmdir(folder);
}

/* ---- measuring ---- */

Test(create, measure)
{
    struct q2_error err = {0};
    uint64_t required, full;
    struct q2_create_options options = {.size = 1 << 30};
    MUST(q2_create_measure(&options, 0, &required, &full, &err), err);
    cr_assert_eq(required, 393216);
    cr_assert_eq(full, 1074135040);
    MUST(q2_create_measure(&options, 65536, &required, &full, &err), err);
    cr_assert_eq(required, 393216 + 65536);
    options.crypt = Q2_CRYPT_LUKS;
    MUST(q2_create_measure(&options, 0, &required, &full, &err), err);
    cr_assert_eq(required, 2490368);
    options.cluster_size = 3;
    required = 4711;
    cr_assert_eq(q2_create_measure(&options, 0, &required, &full, &err), Q2_ERR_RANGE);
    cr_assert_eq(required, 4711);
}
