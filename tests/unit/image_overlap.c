/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts and mappings that lie: what would write over metadata is refused, marks the image
 * corrupt, and changes no other byte of the file. */

#include "core/base/endian.h"
#include "core/image/resize.h"
#include "core/image/vmstate.h"
#include "tests/unit/image_states.h"

#define BASE                                                                                      \
    "cluster-size 4K\nsize 4M\nwrite 0 64K random\nwrite-compressed 128K 8K text\nsnapshot one\n" \
    "write 0 8K 0x11\n"
#define OLD "version 2\n" BASE

enum { AT_CORRUPT = 79, CORRUPT = 2, CLUSTER = 4096 };

/* A guest cluster in each of the states that tests need. */
enum {
    IN_PLACE = 4096,
    SHARED = 16 << 10,
    UNMAPPED = 512 << 10,
    NO_TABLE = 3 << 20,
};

/* ---- operations that allocate ---- */

static int
write_at(struct q2_image *image, uint64_t guest, size_t length, struct q2_error *err)
{
    Q2_AUTOFREE uint8_t *bytes = malloc(length);
    memset(bytes, 0x5a, length);
    return q2_image_write(image, guest, bytes, length, err);
}

static int
write_unmapped(struct q2_image *image, struct q2_error *err)
{
    return write_at(image, UNMAPPED, 512, err);
}

static int
write_much(struct q2_image *image, struct q2_error *err)
{
    return write_at(image, UNMAPPED + 100, 20 * CLUSTER, err);
}

static int
write_shared(struct q2_image *image, struct q2_error *err)
{
    return write_at(image, SHARED, CLUSTER, err);
}

static int
write_without_table(struct q2_image *image, struct q2_error *err)
{
    return write_at(image, NO_TABLE, CLUSTER, err);
}

static int
write_compressed(struct q2_image *image, struct q2_error *err)
{
    uint8_t bytes[CLUSTER] = {1};
    return q2_image_write_compressed(image, UNMAPPED, bytes, sizeof bytes, err);
}

static int
zero_without_table(struct q2_image *image, struct q2_error *err)
{
    /* Version 2 has no flag to set, and nothing lies below. */
    return q2_image_header(image)->version < 3 ? write_unmapped(image, err)
                                               : q2_image_zero(image, NO_TABLE, CLUSTER, 0, err);
}

static int
take_snapshot(struct q2_image *image, struct q2_error *err)
{
    struct q2_snapshot_options options = {.name = "two"};
    return q2_snapshot_create(image, &options, err);
}

static int
preallocate(struct q2_image *image, struct q2_error *err)
{
    /* Version 2 with snapshots keeps its size. */
    return q2_image_header(image)->version < 3
               ? write_unmapped(image, err)
               : q2_image_resize(image, 5 << 20, Q2_PREALLOCATION_METADATA, err);
}

static int
save_state(struct q2_image *image, struct q2_error *err)
{
    return q2_vmstate_write(image, 0, "state", 5, err);
}

typedef int (*operation)(struct q2_image *, struct q2_error *);
static const operation operations[] = {
    write_unmapped,     write_much,    write_shared, write_without_table, write_compressed,
    zero_without_table, take_snapshot, preallocate,  save_state,
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

/* ---- what must hold ---- */

static uint8_t *
all_bytes(struct q2_file *file, uint64_t *ret_size)
{
    cr_assert_eq(q2_file_size(file, ret_size, NULL), 0);
    uint8_t *bytes = malloc(*ret_size);
    cr_assert_eq(q2_file_read(file, 0, bytes, *ret_size, NULL), 0);
    return bytes;
}

/* The file is what it was, but for the corrupt bit. */
static void
expect_untouched(struct q2_file *file, const uint8_t *before, uint64_t size, bool bit,
                 const char *when)
{
    uint64_t now_size;
    Q2_AUTOFREE uint8_t *now = all_bytes(file, &now_size);
    cr_assert_eq(now_size, size, "%s: the file has another size", when);
    for (uint64_t i = 0; i < size; i++) {
        uint8_t expected = bit && i == AT_CORRUPT ? before[i] | CORRUPT : before[i];
        cr_assert_eq(now[i], expected, "%s: byte 0x%llx is 0x%02x instead of 0x%02x", when,
                     (unsigned long long)i, now[i], expected);
    }
}

static void
expect_reads(struct q2_image *image, const uint8_t *disk, uint64_t size, const char *when)
{
    struct q2_error err = {0};
    Q2_AUTOFREE uint8_t *bytes = malloc(size);
    cr_assert_eq(q2_image_read(image, 0, bytes, size, &err), 0, "%s: %s", when, err.message);
    cr_assert_eq(memcmp(bytes, disk, size), 0, "%s: reads as something else", when);
}

/* `call` runs into metadata, and from then on the image can only be read. */
static void
expect_refused(const char *text, unsigned flags, operation call, const char *when)
{
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = build_image(text);
    uint64_t size, disk_size;
    Q2_AUTOFREE uint8_t *before = all_bytes(file, &size);
    Q2_AUTOFREE uint8_t *disk = read_state(file, -1, &disk_size);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE | flags), again;
    bool bit = q2_image_header(opened.image)->version >= 3;
    int rc = call(opened.image, &err);
    cr_assert_eq(rc, Q2_ERR_CORRUPT, "%s: %d, %s", when, rc, err.message);
    expect_untouched(file, before, size, bit, when);
    for (unsigned i = 0; i < OPERATIONS; i++)
        cr_assert_eq(operations[i](opened.image, &err), Q2_ERR_CORRUPT, "%s: then %u", when, i);
    cr_assert_eq(write_at(opened.image, IN_PLACE, 512, &err), Q2_ERR_CORRUPT, "%s", when);
    cr_assert_eq(q2_image_discard(opened.image, 0, CLUSTER, &err), Q2_ERR_CORRUPT, "%s", when);
    expect_reads(opened.image, disk, disk_size, when);
    q2_image_flush(opened.image, NULL);
    q2_image_close(opened.image, NULL);
    expect_untouched(file, before, size, bit, when);
    if (!bit)
        return;
    cr_assert_eq(open_image(file, Q2_IMAGE_WRITE, &again, &err), Q2_ERR_CORRUPT, "%s", when);
    again = must_open(file, 0);
    expect_reads(again.image, disk, disk_size, when);
    must_close(&again);
}

/* ---- refcounts ---- */

static void
lie(const char *base, const char *cluster)
{
    for (unsigned i = 0; i < OPERATIONS; i++) {
        char text[512], when[128];
        snprintf(text, sizeof text, "%srefcount[%s / cluster_size] = 0\n", base, cluster);
        snprintf(when, sizeof when, "operation %u with refcount 0 for %s", i, cluster);
        expect_refused(text, 0, operations[i], when);
    }
}

Test(overlap, refcount_of_the_header)
{
    lie(BASE, "0");
    lie(OLD, "0");
}

Test(overlap, refcount_of_the_refcount_table)
{
    lie(BASE, "header.refcount_table_offset");
    lie(OLD, "header.refcount_table_offset");
}

Test(overlap, refcount_of_a_refcount_block)
{
    lie(BASE, "refcount_table[0]");
}

Test(overlap, refcount_of_the_l1_table)
{
    lie(BASE, "header.l1_table_offset");
    lie(OLD, "header.l1_table_offset");
}

Test(overlap, refcount_of_the_snapshot_table)
{
    lie(BASE, "header.snapshots_offset");
}

Test(overlap, refcount_of_a_snapshots_l1_table)
{
    lie(BASE, "snapshot[0].l1_table_offset");
}

/* A snapshot needs no cluster before it counts: that is refused, but for another reason. */
Test(overlap, refcount_of_an_l2_table)
{
    for (unsigned i = 0; i < OPERATIONS; i++)
        expect_refused(BASE "refcount[l1[0].offset / cluster_size] = 0\n", 0, operations[i],
                       "an L2 table");
}

/* ---- mappings ---- */

static int
write_first(struct q2_image *image, struct q2_error *err)
{
    return write_at(image, 100, 1000, err);
}

/* Guest cluster 0 is a metadata cluster, to be written in place. */
Test(overlap, data_in_metadata)
{
    static const char *const places[] = {
        "header.refcount_table_offset", "refcount_table[0]",           "header.l1_table_offset",
        "header.snapshots_offset",      "snapshot[0].l1_table_offset", "l1[0].offset",
    };
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++)
        for (unsigned zero = 0; zero < 2; zero++) {
            char text[512];
            snprintf(text, sizeof text, "%sl2[0][0].offset = %s\nl2[0][0].zero = %u\n", BASE,
                     places[i], zero);
            expect_refused(text, 0, write_first, places[i]);
        }
}

/* An L2 table that is other metadata too. */
Test(overlap, table_in_metadata)
{
    static const char *const places[] = {
        "header.refcount_table_offset", "refcount_table[0]",           "header.l1_table_offset",
        "header.snapshots_offset",      "snapshot[0].l1_table_offset",
    };
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct q2_error err = {0};
        char text[512];
        snprintf(text, sizeof text, "%sl1[1] = %s + 0x8000000000000000\n", BASE, places[i]);
        Q2_AUTOCLOSE struct q2_file *file = build_image(text);
        uint64_t size;
        Q2_AUTOFREE uint8_t *before = all_bytes(file, &size), *after = NULL;
        struct opened opened = must_open(file, Q2_IMAGE_WRITE);
        const struct q2_header *header = q2_image_header(opened.image);
        /* Where there are blocks, they follow the table. */
        uint64_t refcounts = header->refcount_table_offset + CLUSTER;
        /* An entry far behind what the table holds. */
        int rc = write_at(opened.image, (2 << 20) + 500 * CLUSTER, CLUSTER, &err);
        rc = rc < 0 ? rc : q2_image_flush(opened.image, &err);
        cr_assert_eq(rc, Q2_ERR_CORRUPT, "%s: %d", places[i], rc);
        q2_image_close(opened.image, NULL);
        uint64_t now_size;
        after = all_bytes(file, &now_size);
        cr_assert_eq(after[AT_CORRUPT], before[AT_CORRUPT] | CORRUPT, "%s", places[i]);
        /* Nothing but the new refcounts, at most, has changed. */
        for (uint64_t at = CLUSTER; at < size; at += CLUSTER)
            if (at != refcounts)
                cr_assert_eq(memcmp(after + at, before + at, CLUSTER), 0, "%s: 0x%llx", places[i],
                             (unsigned long long)at);
    }
}

/* ---- what lets go of metadata ---- */

/* The metadata at the places stays, whatever becomes of an image whose entry leads there. */
static void
expect_kept(const char *lies, operation call)
{
    static const char *const places[] = {
        "header.refcount_table_offset", "header.l1_table_offset", "header.snapshots_offset",
        "snapshot[0].l1_table_offset",  "l1[0].offset",
    };
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++)
        for (unsigned flags = 0; flags < 2; flags++) {
            struct q2_error err = {0};
            char text[512], when[128];
            int length = snprintf(text, sizeof text, "%s", BASE);
            snprintf(text + length, sizeof text - (size_t)length, lies, places[i]);
            snprintf(when, sizeof when, "%s, %u", places[i], flags);
            Q2_AUTOCLOSE struct q2_file *file = build_image(text);
            uint64_t disk_size;
            Q2_AUTOFREE uint8_t *disk = read_state(file, 0, &disk_size);
            struct opened opened = must_open(file, Q2_IMAGE_WRITE | (flags ? Q2_IMAGE_DISCARD : 0));
            int rc = call(opened.image, &err);
            for (unsigned n = 0; n < 64 && rc == 0; n++) {
                rc = write_at(opened.image, UNMAPPED + n * CLUSTER, CLUSTER, &err);
                rc = rc < 0 ? rc : q2_image_flush(opened.image, &err);
            }
            q2_image_close(opened.image, NULL);
            cr_assert_eq(rc, Q2_ERR_CORRUPT, "%s: %d, %s", when, rc, err.message);
            uint64_t now_size;
            Q2_AUTOFREE uint8_t *now = all_bytes(file, &now_size);
            cr_assert(now[AT_CORRUPT] & CORRUPT, "%s", when);
            expect_state(file, 0, disk, disk_size, when);
        }
}

static int
write_over(struct q2_image *image, struct q2_error *err)
{
    return write_at(image, SHARED, CLUSTER, err);
}

Test(overlap, data_leaves_metadata)
{
    expect_kept("l2[0][4] = %s\n", write_over);
}

static int
make_empty(struct q2_image *image, struct q2_error *err)
{
    return q2_image_make_empty(image, err);
}

Test(overlap, metadata_behind_the_end)
{
    expect_refused("cluster-size 4K\nsize 4M\nsnapshot one\n"
                   "refcount[header.snapshots_offset / cluster_size] = 0\n",
                   0, make_empty, "cut");
}

/* ---- tables at their limits ---- */

/* A refcount table that is all but as large as it may be, and nothing free: the blocks that would
 * count a larger one have no room in it. */
Test(overlap, table_without_room)
{
    enum { SECTOR = 512, CLUSTERS = 16383 };
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 512\nsize 64K\n");
    Q2_AUTOFREE uint8_t *table = calloc(CLUSTERS, SECTOR);
    uint8_t full[SECTOR], number[8];
    uint64_t size, block;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    size = (size + SECTOR - 1) / SECTOR * SECTOR;
    cr_assert_eq(q2_file_read(file, 512, number, 8, NULL), 0);
    block = q2_load_be64(number);
    memset(full, 0x11, sizeof full);
    MUST(q2_file_write(file, block, full, SECTOR, &err), err);
    MUST(q2_file_write(file, size, full, SECTOR, &err), err);
    q2_store_be64(table, block);
    q2_store_be64(table + CLUSTERS * SECTOR - 8, size);
    MUST(q2_file_write(file, size + SECTOR, table, CLUSTERS * SECTOR, &err), err);
    q2_store_be64(number, size + SECTOR);
    MUST(q2_file_write(file, 48, number, 8, &err), err);
    q2_store_be32(number, CLUSTERS);
    MUST(q2_file_write(file, 56, number, 4, &err), err);
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    cr_assert_eq(write_at(opened.image, 0, SECTOR, &err), Q2_ERR_NOSPACE, "%s", err.message);
    cr_assert_eq(write_at(opened.image, 0, SECTOR, &err), Q2_ERR_NOSPACE, "%s", err.message);
    q2_image_close(opened.image, NULL);
}

/* ---- a file that others cut ---- */

/* Tables that are not there any more must not read as tables that say nothing is in use. */
Test(overlap, file_cut_behind_our_back)
{
    static const char text[] = "cluster-size 4K\nsize 4M\nwrite 0 8K random\n";
    for (unsigned write = 0; write < 2; write++) {
        struct q2_error err = {0};
        uint8_t bytes[CLUSTER];
        Q2_AUTOCLOSE struct q2_file *file = build_image(text);
        struct opened opened = must_open(file, write ? Q2_IMAGE_WRITE : 0);
        MUST(q2_file_truncate(file, CLUSTER, &err), err);
        int rc = write ? write_at(opened.image, NO_TABLE, CLUSTER, &err)
                       : q2_image_read(opened.image, 0, bytes, sizeof bytes, &err);
        cr_assert_eq(rc, Q2_ERR_EOF, "%u: %d, %s", write, rc, err.message);
        q2_image_close(opened.image, NULL);
    }
}

/* A block that counts two ranges would give away in one what the other lets go of. */
Test(overlap, refcount_block_twice)
{
    struct q2_error err = {0};
    struct opened opened;
    Q2_AUTOCLOSE struct q2_file *file = build_image(BASE "refcount_table[1] = refcount_table[0]\n");
    cr_assert_eq(open_image(file, Q2_IMAGE_WRITE, &opened, &err), Q2_ERR_FORMAT, "%s", err.message);
    opened = must_open(file, 0);
    must_close(&opened);
}
