/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* New images with any options: what is refused is refused with a word and before a byte changes;
 * what is not becomes an image that says what it was asked to be, has nothing wrong with it, reads
 * as zeros and can be written. If an I/O operation fails on the way there is an error, and no
 * half of an image.
 *
 * Input: a byte or two for each option, in the order of `options_of`; then what fails. */

#include "core/image/create.h"
#include "checker/check.h"
#include "core/base/checked.h"
#include "core/codec/secret.h"
#include "core/image/disk.h"
#include "core/io/fault.h"
#include "core/io/memory.h"
#include "fuzz/fuzz.h"
#include "fuzz/support/image.h"
#include "tests/stress/stress.h"

#include <string.h>

enum {
    LONGEST_NAME = 1100,
    MOST_SIZE = 1 << 28,    /* of a disk that is made */
    MOST_WRITTEN = 3 << 20, /* bytes that a preallocation may write */
    PIECE = 1000,
};
enum { LAZY = 1, EXTENDED = 2, RAW_DATA = 4, DATA = 8, BACKING = 16, FORMAT = 32, NO_SECRET = 64 };

static uint8_t phrase[] = "pass phrase";
static const struct q2_secret secret = {.bytes = phrase, .length = sizeof phrase - 1};

struct names {
    char backing[LONGEST_NAME + 1], format[64], data[LONGEST_NAME + 1];
};

/* ---- options ---- */

/* A name of any length whose last byte is any. */
static const char *
name(struct q2_fuzz_cursor *cursor, char *text, size_t most)
{
    size_t length = q2_fuzz_u8(cursor) * (size_t)5 % (most + 1);
    memset(text, 'n', length);
    text[length] = '\0';
    if (length > 0)
        text[length - 1] = (char)q2_fuzz_u8(cursor);
    return text;
}

static const char *
one_of(struct q2_fuzz_cursor *cursor, const char *const *names, unsigned count)
{
    return names[q2_fuzz_u8(cursor) % count];
}
#define ONE_OF(cursor, ...)                            \
    one_of(cursor, (const char *const[]){__VA_ARGS__}, \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static uint64_t
size_of(struct q2_fuzz_cursor *cursor)
{
    static const unsigned shifts[] = {9, 9, 9, 12, 16, 0, 32, 47};
    unsigned shift = shifts[q2_fuzz_u8(cursor) % 8];
    return (uint64_t)q2_fuzz_u16(cursor) << shift;
}

static void
encryption_of(struct q2_fuzz_cursor *cursor, struct q2_create_options *options)
{
    static const uint8_t methods[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 7};
    options->crypt = methods[q2_fuzz_u8(cursor) % 16];
    options->secret = &secret;
    options->iterations = 1000;
    if (options->crypt != Q2_CRYPT_LUKS)
        return;
    options->cipher_name = ONE_OF(cursor, NULL, "aes-128", "aes-192", "aes-256", "serpent-256");
    options->cipher_mode = ONE_OF(cursor, NULL, "xts", "cbc", "ecb", "ctr", "ofb");
    options->ivgen_name = ONE_OF(cursor, NULL, "plain64", "plain", "essiv", "null");
    options->ivgen_hash = ONE_OF(cursor, NULL, "sha256", "md5", "sha1");
    options->hash = ONE_OF(cursor, NULL, "sha1", "sha224", "sha256", "sha384", "sha512", "md5",
                           "ripemd160", "whirlpool");
}

static void
options_of(struct q2_fuzz_cursor *cursor, struct q2_create_options *options, struct names *names)
{
    static const unsigned versions[] = {0, 3, 3, 3, 2, 2, 1, 4},
                          widths[] = {0, 1, 2, 4, 8, 16, 32, 64, 3, 128};
    unsigned flags = q2_fuzz_u8(cursor);
    *options = (struct q2_create_options){
        .version = versions[q2_fuzz_u8(cursor) % 8],
        .flags = (flags & LAZY ? Q2_CREATE_LAZY_REFCOUNTS : 0) |
                 (flags & EXTENDED ? Q2_CREATE_EXTENDED_L2 : 0) |
                 (flags & RAW_DATA ? Q2_CREATE_RAW_DATA_FILE : 0),
    };
    unsigned cluster = q2_fuzz_u8(cursor);
    if (cluster > 0)
        options->cluster_size = (cluster < 240 ? UINT64_C(128) : 100) << cluster % 16;
    options->refcount_bits = widths[q2_fuzz_u8(cursor) % 10];
    options->compression = q2_fuzz_u8(cursor) % 3;
    options->preallocation = q2_fuzz_u8(cursor) % 5;
    options->size = size_of(cursor);
    encryption_of(cursor, options);
    if (flags & NO_SECRET)
        options->secret = NULL;
    if (flags & BACKING)
        options->backing_file = name(cursor, names->backing, LONGEST_NAME);
    if (flags & FORMAT)
        options->backing_format = name(cursor, names->format, sizeof names->format - 1);
    if (flags & DATA)
        options->data_file = name(cursor, names->data, LONGEST_NAME);
}

/* Options as programs have them. */
static struct q2_create_options
with_defaults(const struct q2_create_options *options)
{
    struct q2_create_options whole = *options;
    whole.version = whole.version ? whole.version : 3;
    whole.cluster_size = whole.cluster_size ? whole.cluster_size : 65536;
    whole.refcount_bits = whole.refcount_bits ? whole.refcount_bits : 16;
    return whole;
}

/* ---- what has been made ---- */

static bool
same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void
require_asked(struct q2_image *image, const struct q2_create_options *asked)
{
    const struct q2_header *header = q2_image_header(image);
    bool lazy = header->compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS;
    bool extended = header->incompatible_features & Q2_INCOMPATIBLE_EXTENDED_L2;
    bool raw = header->autoclear_features & Q2_AUTOCLEAR_RAW_DATA;
    Q2_REQUIRE(header->version == asked->version && q2_image_size(image) == asked->size &&
                   q2_image_geometry(image)->cluster_size == asked->cluster_size &&
                   1U << header->refcount_order == asked->refcount_bits &&
                   header->compression_type == asked->compression &&
                   header->crypt_method == asked->crypt,
               "a number is not what was asked for");
    Q2_REQUIRE(lazy == !!(asked->flags & Q2_CREATE_LAZY_REFCOUNTS) &&
                   extended == !!(asked->flags & Q2_CREATE_EXTENDED_L2) &&
                   raw == !!(asked->flags & Q2_CREATE_RAW_DATA_FILE),
               "a feature is not what was asked for");
    Q2_REQUIRE(same(q2_image_backing_name(image), asked->backing_file) &&
                   same(q2_image_backing_format(image), asked->backing_format) &&
                   same(q2_image_data_name(image), asked->data_file),
               "a name is not what was asked for");
    Q2_REQUIRE((q2_image_data(image) != q2_image_file(image)) == (asked->data_file != NULL),
               "the data is in the wrong file");
}

static void
require_clean(struct q2_file *file, const char *when)
{
    struct q2_check *check = q2_fuzz_check(file, true);
    Q2_REQUIRE(check, "cannot be checked %s", when);
    Q2_REQUIRE(q2_check_exit(check) == Q2_EXIT_CLEAN && q2_check_finding_count(check) == 0, "%s %s",
               q2_check_finding_count(check) ? q2_problem_id(q2_check_finding(check, 0)->problem)
                                             : "nothing, but not clean,",
               when);
    q2_check_free(check);
}

/* Zeros at `offset`, and then what is written there. */
static void
require_works(struct q2_disk *disk, uint64_t offset)
{
    struct q2_error err = {0};
    uint8_t bytes[PIECE], zeros[PIECE] = {0};
    size_t length = (size_t)q2_min(PIECE, q2_disk_size(disk) - offset);
    int rc = q2_disk_read(disk, offset, bytes, length, &err);
    Q2_REQUIRE(rc == 0 && memcmp(bytes, zeros, length) == 0, "no zeros: %s", err.message);
    memset(zeros, 0x5a, length);
    rc = q2_disk_write(disk, offset, zeros, length, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    rc = q2_disk_read(disk, offset, bytes, length, &err);
    Q2_REQUIRE(rc == 0 && memcmp(bytes, zeros, length) == 0, "other bytes: %s", err.message);
}

/* What preallocation wrote, the estimate knew. */
static void
require_measured(const struct q2_create_options *asked, struct q2_file *file)
{
    struct q2_error err = {0};
    uint64_t required = 0, most = 0, size = 0;
    int rc = q2_create_measure(asked, 0, &required, &most, &err);
    Q2_REQUIRE(rc == 0 && q2_file_size(file, &size, &err) == 0, "%s", err.message);
    Q2_REQUIRE(required <= most, "%llu bytes now, %llu at most", (unsigned long long)required,
               (unsigned long long)most);
    bool whole = asked->preallocation == Q2_PREALLOCATION_FALLOC ||
                 asked->preallocation == Q2_PREALLOCATION_FULL;
    if (whole && !asked->data_file && asked->crypt != Q2_CRYPT_LUKS)
        Q2_REQUIRE(size == required, "%llu bytes were estimated, there are %llu",
                   (unsigned long long)required, (unsigned long long)size);
}

static void
require_image(struct world *world, const struct q2_create_options *asked)
{
    struct q2_file *file = world_find(world, "image")->base;
    const struct q2_image_options how = {
        .flags = Q2_IMAGE_WRITE | Q2_IMAGE_NO_BACKING,
        .data_file = asked->data_file ? "data" : NULL,
        .secret = asked->crypt ? &secret : NULL,
        .open_file = world_open,
        .open_file_data = world,
    };
    struct q2_error err = {0};
    struct q2_disk *disk = NULL;
    require_clean(file, "when it is new");
    require_measured(asked, file);
    int rc = q2_disk_open("image", &how, &disk, &err);
    Q2_REQUIRE(rc == 0 && q2_disk_format(disk) == Q2_DISK_QCOW2, "%s", err.message);
    require_asked(q2_disk_image(disk), asked);
    if (asked->size > 0) {
        require_works(disk, 0);
        if (asked->size > 2 * PIECE)
            require_works(disk, asked->size - PIECE / 2);
    }
    rc = q2_disk_flush(disk, &err);
    Q2_REQUIRE(rc == 0 && q2_disk_close(disk, &err) == 0, "%s", err.message);
    require_clean(file, "when it has been written");
}

/* ---- making it ---- */

/* Whether it can be made in no time. */
static bool
is_small(const struct q2_create_options *options)
{
    uint64_t required = 0, most = 0;
    if (options->size > MOST_SIZE || options->cluster_size > 1 << 16)
        return false;
    return options->preallocation == Q2_PREALLOCATION_OFF ||
           (q2_create_measure(options, options->size, &required, &most, NULL) == 0 &&
            most <= MOST_WRITTEN);
}

/* What was there before is all there, or nothing that could be taken for an image. */
static void
require_nothing(struct q2_file *file, struct q2_file *before, bool permanent)
{
    enum q2_disk_format format = Q2_DISK_RAW;
    struct q2_error err = {0};
    if (q2_fuzz_equal(file, before))
        return;
    int rc = q2_disk_probe(file, &format, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    if (format != Q2_DISK_QCOW2)
        return;
    /* The last flush has failed, and the clearing away too. */
    Q2_REQUIRE(permanent, "an image, though it failed");
    require_clean(file, "though it failed");
}

/* `valid`: what validation said of the options. */
static void
make(const struct q2_create_options *options, const struct q2_fault_plan *plan, int valid)
{
    struct world world = {0};
    struct q2_error err = {0}, other = {0};
    struct slot *image = world_add(&world, "image"), *data = world_add(&world, "data");
    struct q2_file *fault = NULL;
    Q2_REQUIRE(image && data, "no memory");
    int rc = q2_file_write(image->base, 3000, "what was there", 14, &err);
    Q2_REQUIRE(rc == 0 && q2_file_new_fault(image->base, plan, &fault, &err) == 0, "%s",
               err.message);
    struct q2_file *before = q2_fuzz_copy(image->base);
    rc = q2_image_format(fault, options->data_file ? data->base : NULL, options, &other);
    /* Nothing is read on the way that could be short. */
    bool failed = plan->kind != Q2_FAULT_NONE && q2_fault_matched(fault) >= plan->nth;
    Q2_REQUIRE(rc == 0 || other.message[0], "failed without a word");
    Q2_REQUIRE(valid == 0 || (rc == valid && q2_fuzz_equal(image->base, before)),
               "refused with %d, then %d", valid, rc);
    Q2_REQUIRE(valid < 0 || failed || rc == 0, "%s", other.message);
    Q2_REQUIRE(!failed || rc < 0, "something failed, and nobody says so");
    if (rc < 0)
        require_nothing(image->base, before, plan->permanent);
    const struct q2_create_options asked = with_defaults(options);
    if (rc == 0)
        require_image(&world, &asked);
    q2_file_close(fault);
    q2_file_close(before);
    world_destroy(&world);
}

static void
run(const uint8_t *input, size_t length)
{
    static struct names names;
    struct q2_fuzz_cursor cursor = {input, length};
    struct q2_create_options options;
    struct q2_error err = {0};
    options_of(&cursor, &options, &names);
    struct q2_fault_plan plan = {.ops = Q2_FAULT_ALL};
    plan.kind = q2_fuzz_u8(&cursor) % (Q2_FAULT_TORN + 1);
    plan.permanent = plan.kind != Q2_FAULT_NONE && q2_fuzz_u8(&cursor) & 1;
    plan.nth = plan.kind == Q2_FAULT_NONE ? 0 : 1 + q2_fuzz_u8(&cursor) % 32;
    int rc = q2_create_validate(&options, &err);
    Q2_REQUIRE(rc == 0 || err.message[0], "refused without a word");
    if (rc < 0 || is_small(&options))
        make(&options, &plan, rc);
}

const struct q2_harness q2_harness = {"create", Q2_FUZZ_BYTES, 64, run};
