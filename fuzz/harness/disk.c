/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Disks of each format behind the one interface, against an array: a raw file of any length, a
 * qcow2 image, one over a raw file, one whose data is a raw file of its own. What is written is
 * read and mapped; what lies outside is refused and changes nothing; what cannot be opened says so.
 *
 * Input: the kind, the length of the raw file, and steps of six bytes. */

#include "core/image/disk.h"
#include "core/base/checked.h"
#include "core/codec/secret.h"
#include "core/image/create.h"
#include "core/io/posix.h"
#include "fuzz/fuzz.h"
#include "tests/stress/stress.h"

#include <string.h>

enum { MOST = 32 << 10, SECTOR = 512, MAX_STEPS = 24, PARTS = 5 };
enum kind { RAW, PROBED, QCOW2, OVERLAY, DATA_FILE_OF, LOOP, FOREIGN, LOCKED, MISSING, KINDS };
enum { WRITE, READ, ZERO, UNMAP, DISCARD, MAP, FLUSH, REOPEN, OUTSIDE, STEPS };

struct bench {
    enum kind kind;
    struct world world;
    struct q2_disk *disk;
    uint64_t size;
    uint8_t model[MOST + SECTOR], scratch[MOST + SECTOR];
};

/* ---- making and opening ---- */

static bool
is_raw(const struct bench *bench)
{
    return bench->kind == RAW || bench->kind == PROBED;
}

static void
make_raw(struct bench *bench, const char *name, uint64_t length)
{
    struct q2_error err = {0};
    struct slot *slot = world_add(&bench->world, name);
    fill(bench->model, length, 8 * length + 3);
    int rc = slot ? q2_file_write(slot->base, 0, bench->model, length, &err) : Q2_ERR_NOMEM;
    Q2_REQUIRE(rc == 0, "%s", err.message);
}

static void
make(struct bench *bench, uint64_t length)
{
    static uint8_t phrase[] = "phrase";
    const struct q2_secret secret = {.bytes = phrase, .length = sizeof phrase - 1};
    enum kind kind = bench->kind;
    struct q2_error err = {0};
    bench->size = (length + SECTOR - 1) / SECTOR * SECTOR;
    if (is_raw(bench)) {
        make_raw(bench, "disk", length);
        return;
    }
    if (kind == OVERLAY)
        make_raw(bench, "below", length);
    struct slot *data = kind == DATA_FILE_OF ? world_add(&bench->world, "data") : NULL;
    struct slot *slot = world_add(&bench->world, "disk");
    const struct q2_create_options options = {
        .size = bench->size,
        .cluster_size = SECTOR,
        .flags = kind == DATA_FILE_OF ? Q2_CREATE_RAW_DATA_FILE : 0,
        .data_file = kind == DATA_FILE_OF ? "data" : NULL,
        .backing_file = kind == OVERLAY || kind == FOREIGN ? "below"
                        : kind == LOOP                     ? "disk"
                        : kind == MISSING                  ? "nothing"
                                                           : NULL,
        .backing_format = kind == FOREIGN ? "vmdk"
                          : kind == LOOP  ? "qcow2"
                                          : NULL,
        .crypt = kind == LOCKED ? Q2_CRYPT_AES : Q2_CRYPT_NONE,
        .secret = &secret,
    };
    int rc = q2_image_format(slot->base, data ? data->base : NULL, &options, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
}

static int
open_disk(struct bench *bench, const char *name, bool raw, struct q2_disk **ret_disk,
          struct q2_error *err)
{
    const struct q2_image_options options = {
        .flags = Q2_IMAGE_WRITE,
        .format = raw ? Q2_DISK_RAW : Q2_DISK_PROBE,
        .open_file = world_open,
        .open_file_data = &bench->world,
    };
    struct q2_file *file = NULL;
    /* Both ways. */
    if (bench->size % 1024 == 0)
        return q2_disk_open(name, &options, ret_disk, err);
    int rc = world_open(&bench->world, name, Q2_OPEN_WRITE, &file, err);
    return rc < 0 ? rc : q2_disk_open_file(file, &options, ret_disk, err);
}

/* What it says of itself. */
static void
require_what_it_is(const struct bench *bench)
{
    struct q2_disk *disk = bench->disk, *below = q2_disk_backing(disk);
    enum q2_disk_format wanted = is_raw(bench) ? Q2_DISK_RAW : Q2_DISK_QCOW2, found = Q2_DISK_PROBE;
    Q2_REQUIRE(q2_disk_format(disk) == wanted && (q2_disk_image(disk) != NULL) == !is_raw(bench),
               "a disk of another format");
    Q2_REQUIRE(q2_disk_format_find(q2_disk_format_name(wanted), &found) && found == wanted &&
                   !q2_disk_format_find("vmdk", &found),
               "names of formats");
    Q2_REQUIRE(q2_disk_size(disk) == bench->size, "a disk of another size");
    Q2_REQUIRE(strcmp(q2_disk_name(disk), "disk") == 0 && q2_disk_file(disk), "another name");
    Q2_REQUIRE((below != NULL) == (bench->kind == OVERLAY), "what is below");
    Q2_REQUIRE(!below || q2_disk_format(below) == Q2_DISK_RAW, "what is below is not raw");
}

/* False: it is one that is refused. */
static bool
open_bench(struct bench *bench)
{
    static const int refused[KINDS] = {[LOOP] = Q2_ERR_FORMAT,
                                       [FOREIGN] = Q2_ERR_UNSUPPORTED,
                                       [LOCKED] = Q2_ERR_PASSPHRASE,
                                       [MISSING] = Q2_ERR_OPEN};
    struct q2_error err = {0};
    int rc = open_disk(bench, "disk", bench->kind == RAW, &bench->disk, &err);
    Q2_REQUIRE(rc == refused[bench->kind] && (rc == 0 || err.message[0]),
               "opening kind %d gives %d: %s", (int)bench->kind, rc, err.message);
    if (rc == 0)
        require_what_it_is(bench);
    return rc == 0;
}

/* ---- steps ---- */

/* Cut the range into parts. */
static int
cut(uint8_t *bytes, uint64_t length, struct iovec parts[PARTS])
{
    for (unsigned i = 0; i < PARTS; i++) {
        uint64_t part = i + 1 < PARTS ? length / PARTS : length - (PARTS - 1) * (length / PARTS);
        parts[i] = (struct iovec){.iov_base = bytes, .iov_len = part};
        bytes += part;
    }
    return PARTS;
}

static void
check_read(struct bench *bench, uint64_t offset, uint64_t length)
{
    struct iovec parts[PARTS];
    struct q2_error err = {0};
    int rc = length % 2 ? q2_disk_read(bench->disk, offset, bench->scratch, length, &err)
                        : q2_disk_readv(bench->disk, offset, parts,
                                        cut(bench->scratch, length, parts), &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
    Q2_REQUIRE(memcmp(bench->scratch, bench->model + offset, length) == 0, "wrong bytes are read");
}

static void
check_map(struct bench *bench, uint64_t offset, uint64_t length)
{
    struct q2_error err = {0};
    for (uint64_t end = offset + length; offset < end;) {
        struct q2_extent extent = {0};
        int rc = q2_disk_map(bench->disk, offset, end - offset, &extent, &err);
        Q2_REQUIRE(rc == 0, "%s", err.message);
        Q2_REQUIRE(extent.offset == offset && extent.length > 0 && extent.length <= end - offset,
                   "another extent than was asked for");
        memset(bench->scratch, 0, extent.length);
        if (!extent.zero) {
            Q2_REQUIRE(extent.data && extent.has_host && extent.file, "data that is nowhere");
            rc = q2_file_read_padded((struct q2_file *)(uintptr_t)extent.file, extent.host,
                                     bench->scratch, extent.length, &err);
            Q2_REQUIRE(rc == 0, "%s", err.message);
        }
        Q2_REQUIRE(memcmp(bench->scratch, bench->model + offset, extent.length) == 0,
                   "the map leads to other bytes");
        offset += extent.length;
    }
}

static void
write_some(struct bench *bench, uint64_t offset, uint64_t length, unsigned seed)
{
    struct iovec parts[PARTS];
    struct q2_error err = {0};
    fill(bench->model + offset, length, seed);
    uint8_t *bytes = bench->model + offset;
    int rc = seed & 1 ? q2_disk_write(bench->disk, offset, bytes, length, &err)
                      : q2_disk_writev(bench->disk, offset, parts, cut(bytes, length, parts), &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
}

static void
clear_some(struct bench *bench, unsigned how, uint64_t offset, uint64_t length)
{
    struct q2_error err = {0};
    if (how == DISCARD && !is_raw(bench)) { /* whole clusters alone */
        length = (offset + length) / SECTOR * SECTOR;
        offset = (offset + SECTOR - 1) / SECTOR * SECTOR;
        length = length > offset ? length - offset : 0;
    }
    memset(bench->model + offset, 0, length);
    int rc = how == DISCARD ? q2_disk_discard(bench->disk, offset, length, &err)
                            : q2_disk_zero(bench->disk, offset, length,
                                           how == UNMAP ? Q2_ZERO_UNMAP : 0, &err);
    Q2_REQUIRE(rc == 0, "%s", err.message);
}

/* All of these reach behind the end. */
static void
refuse(struct bench *bench, uint64_t offset, uint64_t length)
{
    struct q2_error err = {0};
    struct q2_extent extent;
    length += bench->size - offset + 1;
    struct iovec iov = {.iov_base = bench->scratch,
                        .iov_len = q2_min(length, sizeof bench->scratch)};
    if (iov.iov_len <= bench->size - offset)
        return;
    Q2_REQUIRE(q2_disk_readv(bench->disk, offset, &iov, 1, &err) == Q2_ERR_RANGE &&
                   q2_disk_writev(bench->disk, offset, &iov, 1, &err) == Q2_ERR_RANGE &&
                   q2_disk_zero(bench->disk, offset, length, 0, &err) == Q2_ERR_RANGE &&
                   q2_disk_discard(bench->disk, offset, length, &err) == Q2_ERR_RANGE &&
                   q2_disk_map(bench->disk, offset, length, &extent, &err) == Q2_ERR_RANGE,
               "what lies outside is not refused");
}

static void
close_bench(struct bench *bench)
{
    struct q2_error err = {0};
    int rc = q2_disk_close(bench->disk, &err);
    bench->disk = NULL;
    Q2_REQUIRE(rc == 0, "%s", err.message);
}

static void
step(struct bench *bench, struct q2_fuzz_cursor *cursor)
{
    struct q2_error err = {0};
    unsigned op = q2_fuzz_u8(cursor) % STEPS;
    uint64_t offset = q2_fuzz_u16(cursor) % (bench->size + 1), length = q2_fuzz_u16(cursor);
    unsigned seed = q2_fuzz_u8(cursor);
    length %= bench->size - offset + 1;
    switch (op) {
    case WRITE:
        write_some(bench, offset, length, seed);
        break;
    case READ:
        check_read(bench, offset, length);
        break;
    case MAP:
        check_map(bench, offset, length);
        break;
    case FLUSH:
        Q2_REQUIRE(q2_disk_flush(bench->disk, &err) == 0, "%s", err.message);
        break;
    case REOPEN:
        close_bench(bench);
        open_bench(bench);
        break;
    case OUTSIDE:
        refuse(bench, offset, length);
        break;
    default:
        clear_some(bench, op, offset, length);
    }
}

/* The data file is the disk. */
static void
require_data(struct bench *bench)
{
    struct q2_error err = {0};
    int rc = open_disk(bench, "data", true, &bench->disk, &err);
    Q2_REQUIRE(rc == 0 && q2_disk_size(bench->disk) == bench->size, "%s", err.message);
    check_read(bench, 0, bench->size);
    close_bench(bench);
}

static void
run(const uint8_t *input, size_t length)
{
    static struct bench bench;
    struct q2_fuzz_cursor cursor = {input, length};
    bench = (struct bench){.kind = q2_fuzz_u8(&cursor) % KINDS};
    make(&bench, 1 + q2_fuzz_u16(&cursor) % MOST);
    if (open_bench(&bench)) {
        for (unsigned i = 0; i < MAX_STEPS && cursor.left > 0; i++)
            step(&bench, &cursor);
        check_read(&bench, 0, bench.size);
        check_map(&bench, 0, bench.size);
        close_bench(&bench);
        if (bench.kind == DATA_FILE_OF)
            require_data(&bench);
    }
    world_destroy(&bench.world);
}

const struct q2_harness q2_harness = {"disk", Q2_FUZZ_BYTES, 3 + 6 * MAX_STEPS, run};
