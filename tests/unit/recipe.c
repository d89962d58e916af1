/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The recipe language: where its errors point, that what it builds is what core/format reads, that
 * it builds the same every time, and that every field it lists can be assigned. */

#include "corpus/recipe/recipe.h"
#include "core/base/cleanup.h"
#include "core/format/bitmap.h"
#include "core/format/entry.h"
#include "core/format/refcount.h"
#include "core/format/snapshot.h"
#include "core/io/memory.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- building ---- */

static int
build_into(const char *text, struct q2_recipe_target *target, struct q2_error *err)
{
    struct q2_recipe *recipe = NULL;
    int rc = q2_recipe_parse("t", text, strlen(text), &recipe, err);
    rc = rc ? rc : q2_file_new_memory("image", &target->image, err);
    rc = rc ? rc : q2_recipe_build(recipe, target, err);
    q2_recipe_free(recipe);
    return rc;
}

static struct q2_file *
build(const char *text)
{
    struct q2_recipe_target target = {0};
    struct q2_error err = {0};
    cr_assert_eq(build_into(text, &target, &err), 0, "%s", err.message);
    return target.image;
}

/* Build `text`, which must fail with this message. */
static void
expect_error(const char *text, const char *expected)
{
    struct q2_recipe_target target = {0};
    struct q2_error err = {0};
    int rc = build_into(text, &target, &err);
    q2_file_close(target.image);
    cr_expect_lt(rc, 0, "no error in:\n%s", text);
    cr_expect_str_eq(err.message, expected, "%s\nfor:\n%s", err.message, text);
}

static uint64_t
size_of(struct q2_file *file)
{
    uint64_t size = 0;
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    return size;
}

static uint64_t
load(struct q2_file *file, uint64_t offset, size_t width)
{
    uint8_t bytes[8] = {0};
    cr_assert_eq(q2_file_read_padded(file, offset, bytes + 8 - width, width, NULL), 0);
    return q2_load_be64(bytes);
}

static struct q2_header
header_of(struct q2_file *file, struct q2_geometry *ret_geometry)
{
    uint8_t bytes[512];
    struct q2_header header;
    cr_assert_eq(q2_file_read(file, 0, bytes, sizeof bytes, NULL), 0);
    q2_header_decode(bytes, sizeof bytes, &header);
    q2_geometry_init(ret_geometry, &header, size_of(file));
    return header;
}

/* ---- errors ---- */

Test(recipe, syntax_errors_have_positions)
{
    expect_error("size 1M\nwrit 0 1\n", "t:2:1: there is no statement 'writ'");
    expect_error("size 1M extra", "t:1:9: this does not belong to 'size'");
    expect_error("size", "t:1:5: expected a number or the name of a field");
    expect_error("\n\n  size 0xg", "t:3:8: a hexadecimal number needs digits");
    expect_error("size 12Q", "t:1:8: this does not belong to the number before it");
    expect_error("size 16E", "t:1:6: the number does not fit 64 bits");
    expect_error("size 99999999999999999999", "t:1:6: the number does not fit 64 bits");
    expect_error("size (1M", "t:1:9: expected ')'");
    expect_error("size 1 +", "t:1:9: expected a number or the name of a field");
    expect_error("size 1 < 2", "t:1:8: only << and >> are operators");
    expect_error("snapshot \"abc", "t:1:14: the text is not closed by a \" on its line");
    expect_error("snapshot \"a\\qc\"",
                 "t:1:12: unknown escape; there are \\\\ \\\" \\n \\t \\0 and \\xNN");
    expect_error("?", "t:1:1: unexpected character");
    expect_error("5", "t:1:1: a line begins with a statement or the name of a field");
    expect_error("l1[0] 5", "t:1:7: expected = |= &= ^= += or -= after the field");
    expect_error("l1[0] = 5 6", "t:1:11: expected the end of the line");
    expect_error("l1[0 = 5", "t:1:6: expected ']' after the index");
    expect_error("l1[0]. = 5", "t:1:8: expected the name of a field after '.'");
    expect_error("l1[0] |= \"x\"", "t:1:10: a text can only be assigned with =");
    expect_error("write 0 64K 256", "t:1:13: a pattern byte is at most 0xff");
    expect_error("a[0][0][0][0] = 1", "t:1:11: no field has that many indexes");
}

Test(recipe, deep_nesting_is_an_error)
{
    char text[2000] = "size ";
    struct q2_error err = {0};
    struct q2_recipe *recipe = NULL;
    memset(text + 5, '(', 1000);
    cr_expect_eq(q2_recipe_parse("t", text, strlen(text), &recipe, &err), Q2_ERR_FORMAT);
    memset(text + 5, '-', 1000);
    cr_expect_eq(q2_recipe_parse("t", text, strlen(text), &recipe, &err), Q2_ERR_FORMAT);
    cr_expect_null(recipe);
}

Test(recipe, settings_are_held_against_each_other)
{
    expect_error("version 4", "t:1:1: a healthy version is 2 or 3; damage header.version instead");
    expect_error("cluster-size 256", "t:1:1: a cluster size is a power of two from 512 to 2097152");
    expect_error("refcount-bits 24", "t:1:1: refcount-bits is a power of two from 1 to 64");
    expect_error("version 2\nextended-l2\nleak 1",
                 "t:3:1: version 2 has no features and refcounts of 16 bits");
    expect_error("extended-l2\ncluster-size 4K\nleak 1",
                 "t:3:1: extended-l2 needs clusters of at least 16K");
    expect_error("leak 1\nsize 5", "t:2:1: 'size' must come before the content");
    expect_error("truncate 0\nleak 1", "t:2:1: 'leak' must come before the damage");
    expect_error("size file.size", "t:1:6: fields have values only after the content: 'file.size'");
    expect_error("size 1 / 0", "t:1:8: division by zero");
    expect_error("size 1E\nleak 1", "t:2:1: the L1 table would have 2147483648 entries, more than "
                                    "32 MiB");
    expect_error("data-file \"a/b\"\nleak 1",
                 "t:2:1: a file beside the image has a name without '/'");
}

Test(recipe, content_is_held_against_the_image)
{
    expect_error("size 1M\nwrite 1M 1 0", "t:2:1: the range ends beyond the disk of 1048576 bytes");
    expect_error("size 1M\nzero 5 64K", "t:2:1: the range must be aligned to 65536 bytes");
    expect_error("version 2\nsize 1M\nzero 0 64K", "t:3:1: version 2 has no zero clusters");
    expect_error("size 1M\nsubclusters 0", "t:2:1: only images with extended-l2 have subclusters");
    expect_error("extended-l2\nsize 1M\nsubclusters 0 alloc 3 zero 1",
                 "t:3:1: a subcluster cannot be allocated and zero; damage the field "
                 "'map(OFFSET).bitmap' instead");
    expect_error("refcount-bits 1\nsize 1M\nwrite 0 1 1\nsnapshot s",
                 "t:4:1: a refcount would be 2; refcount-bits allows less");
    expect_error("data-file d\nsize 1M\nsnapshot s",
                 "t:3:1: an image with an external data file cannot have snapshots");
    expect_error("size 1M\nsnapshot s vm-state (0 - 1) 0",
                 "t:2:12: the VM state would end beyond 2^64");
    expect_error("size 1M\nbitmap b granularity 3",
                 "t:2:10: a granularity is a power of two from 512 to 2G");
    expect_error("size 1M\nbitmap b dirty 1M 1",
                 "t:2:10: the dirty range ends beyond the disk of 1048576 bytes");
}

Test(recipe, damage_is_held_against_the_fields)
{
    expect_error("header.nothing = 1", "t:1:1: there is no field 'header.nothing'");
    expect_error("header.magic[0] = 1", "t:1:1: there is no field 'header.magic[]'");
    expect_error("header.version = 1 << 32",
                 "t:1:1: 0x100000000 does not fit the field, whose bits are 0xffffffff");
    expect_error("header.version = \"3\"",
                 "t:1:1: a text can only be assigned to a text or to byte[OFFSET]");
    expect_error("size 1M\nl1[0].copied = 2",
                 "t:2:1: 0x2 does not fit the field, whose bits are 0x1");
    expect_error("size 1M\nl1[1] = 0", "t:2:1: the image has no 'l1[]' with index 1");
    expect_error("size 1M\nl2[0][0] = 0", "t:2:1: the image has no 'l2[][]' there");
    expect_error("size 1M\nl1[0] = l2[3]", "t:2:9: the image has no 'l2[]' there");
    expect_error("snapshot[0].l1_size = 0",
                 "t:1:1: the image has no 'snapshot[].l1_size' with index 0");
    expect_error("snapshot abc\nsnapshot[0].name = \"abcd\"",
                 "t:2:1: the text of 4 bytes does not fit the field of 3");
    expect_error("snapshot abc\nsnapshot[0].name[3] = 1",
                 "t:2:1: byte 3 of 'snapshot[].name' is past its end");
    expect_error("snapshot abc\nsnapshot[0].name = 1",
                 "t:2:1: this is no number; a text in quotes can be assigned to a text");
    expect_error("extension[bitmaps].length = 1",
                 "t:1:1: the image has no 'extension[].length' there");
    expect_error("copy 0 4K 8K", "t:1:1: the ranges overlap");
    expect_error("size 1M\nwrite 0 1 1\nmap(0).bitmap = 1",
                 "t:3:1: the image has no 'map().bitmap' there");
}

/* ---- what is built ---- */

Test(recipe, header_fields_are_what_the_settings_say)
{
    Q2_AUTOCLOSE struct q2_file *file = build("version 3\ncluster-size 4K\nsize 1G + 512\n"
                                              "refcount-bits 64\ncompression zstd\n"
                                              "lazy-refcounts\nl1-entries 1000\n");
    struct q2_geometry geometry;
    struct q2_header header = header_of(file, &geometry);
    cr_expect_eq(header.magic, Q2_MAGIC);
    cr_expect_eq(header.version, 3);
    cr_expect_eq(header.cluster_bits, 12);
    cr_expect_eq(header.size, (UINT64_C(1) << 30) + 512);
    cr_expect_eq(header.refcount_order, 6);
    cr_expect_eq(header.compression_type, 1);
    cr_expect_eq(header.incompatible_features, Q2_INCOMPATIBLE_COMPRESSION);
    cr_expect_eq(header.compatible_features, Q2_COMPATIBLE_LAZY_REFCOUNTS);
    cr_expect_eq(header.l1_size, 1000);
}

Test(recipe, entries_refcounts_and_flags_follow_a_snapshot)
{
    Q2_AUTOCLOSE struct q2_file *file = build("size 1G\nwrite 0 128K 0x11\nsnapshot s date 77 5\n"
                                              "write 64K 64K 0x22\n");
    struct q2_geometry geometry;
    struct q2_header header = header_of(file, &geometry);
    uint8_t bytes[Q2_SNAPSHOT_FIXED_LENGTH + Q2_SNAPSHOT_EXTRA_LENGTH];
    cr_assert_eq(q2_file_read(file, header.snapshots_offset, bytes, sizeof bytes, NULL), 0);
    struct q2_snapshot snapshot;
    q2_snapshot_decode(&geometry, bytes, header.snapshots_offset, &snapshot);
    cr_expect_eq(snapshot.date_seconds, 77);
    cr_expect_eq(snapshot.date_nanoseconds, 5);
    cr_expect_eq(snapshot.disk_size, UINT64_C(1) << 30);

    uint64_t l1 = load(file, header.l1_table_offset, 8);
    uint64_t old_l1 = load(file, snapshot.l1_table_offset, 8);
    cr_expect(l1 & Q2_ENTRY_COPIED);
    cr_expect_neq(q2_entry_offset(l1), q2_entry_offset(old_l1));
    uint64_t shared = load(file, q2_entry_offset(l1), 8);
    uint64_t own = load(file, q2_entry_offset(l1) + 8, 8);
    cr_expect_eq(shared & Q2_ENTRY_COPIED, 0);
    cr_expect_eq(shared, load(file, q2_entry_offset(old_l1), 8));
    cr_expect(own & Q2_ENTRY_COPIED);
    cr_expect_eq(load(file, q2_entry_offset(own), 1), 0x22);
    cr_expect_eq(load(file, q2_entry_offset(load(file, q2_entry_offset(old_l1) + 8, 8)), 1), 0x11);

    uint64_t block = load(file, header.refcount_table_offset, 8);
    cr_expect_eq(load(file, block + 2 * (shared >> 16), 2), 2);
    cr_expect_eq(load(file, block + 2 * (q2_entry_offset(own) >> 16), 2), 1);
}

Test(recipe, compressed_clusters_are_packed)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("size 1M\nwrite-compressed 0 128K text\n"
              "u64[0x100] = map(0)\nu64[0x108] = map(64K)\n"
              "u64[0x110] = map(0).offset\nu64[0x118] = map(0).sectors\n"
              "u64[0x120] = refcount(map(0).offset)\n");
    struct q2_geometry geometry;
    header_of(file, &geometry);
    struct q2_compressed_range first = q2_compressed_decode(&geometry, load(file, 0x100, 8));
    struct q2_compressed_range second = q2_compressed_decode(&geometry, load(file, 0x108, 8));
    cr_expect_eq(first.offset, load(file, 0x110, 8));
    cr_expect_eq(first.offset >> 16, second.offset >> 16);
    cr_expect_gt(second.offset, first.offset);
    cr_expect_leq(second.offset, first.offset + first.length);
    cr_expect_eq(load(file, 0x118, 8), (first.offset % 512 + first.length) / 512 - 1);
    cr_expect_eq(load(file, 0x120, 8), 2);
}

Test(recipe, bitmaps_have_the_bits_of_their_ranges)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("size 1G\nbitmap b granularity 64K auto dirty 128K 64K dirty 1M 1\n"
              "bitmap full ones granularity 2M dirty 0 1G\n"
              "u64[0x200] = bitmap[0].table[0]\nu64[0x208] = bitmap[1].table[0]\n");
    uint64_t entry = load(file, 0x200, 8);
    cr_expect_eq(load(file, entry, 1), 1 << 2);
    cr_expect_eq(load(file, entry + 2, 1), 1);
    cr_expect_eq(load(file, 0x208, 8), Q2_BITMAP_ENTRY_ONES);
}

/* ---- damage ---- */

Test(recipe, assignments_change_what_they_name)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("size 1G\nwrite 0 256K 1\nsnapshot abc\n"
              "l2[3].offset = 0x1234\n"
              "l2[0][2].offset = l2[0][1].offset + cluster_size\n"
              "map(64K).copied = 1\n"
              "l1[0] |= 1 << 56\nheader.l1_size -= 1\nheader.size ^= 0xff\n"
              "refcount[3] += 6\nrefcount(4 * cluster_size) = ~0 & 0xffff\n"
              "snapshot[0].name = \"x\"\nsnapshot[0].name[2] = 0x7a\n"
              "byte[0x300] = \"\\x01\\0\\\"\"\nu16[0x308] = offset(l1) >> 16\n"
              "u32[0x310] = offset(snapshot[0].l1_size) - offset(snapshot_table)\n"
              "u64[0x318] = snapshot[0].map(0).offset\n");
    struct q2_geometry geometry;
    struct q2_header header = header_of(file, &geometry);
    uint64_t l1 = load(file, header.l1_table_offset, 8);
    uint64_t table = q2_entry_offset(l1) & 0xffffffffff;
    cr_expect_eq(l1 >> 56, 1);
    cr_expect_eq(header.l1_size, 1);
    cr_expect_eq(header.size, (UINT64_C(1) << 30) + 0xff);
    cr_expect_eq(load(file, table + 24, 8), 0x1234);
    cr_expect_eq(load(file, table + 16, 8),
                 (load(file, table + 8, 8) & ~Q2_ENTRY_COPIED) + 0x10000);
    cr_expect(load(file, table + 8, 8) & Q2_ENTRY_COPIED);
    uint64_t block = load(file, header.refcount_table_offset, 8);
    cr_expect_eq(load(file, block + 6, 2), 7);
    cr_expect_eq(load(file, block + 8, 2), 0xffff);
    cr_expect_eq(load(file, header.snapshots_offset + 57, 3), 0x78627a); /* xbz */
    cr_expect_eq(load(file, 0x300, 4), 0x01002200);
    cr_expect_eq(load(file, 0x308, 2), header.l1_table_offset >> 16);
    cr_expect_eq(load(file, 0x310, 4), 8);
    cr_expect_eq(load(file, 0x318, 8), q2_entry_offset(load(file, table, 8)));
}

Test(recipe, names_mean_the_healthy_image_whatever_the_damage)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("size 1M\nwrite 0 64K 1\nl1[0] = 0\nheader.l1_table_offset = 0\n"
              "header.cluster_bits = 99\nl2[0].offset = 0\nu64[0x200] = offset(l2[0])\n");
    cr_expect_eq(load(file, load(file, 0x200, 8), 8), Q2_ENTRY_COPIED);
}

Test(recipe, narrow_refcounts_are_fields)
{
    for (unsigned order = 0; order < 3; order++) {
        char text[200];
        snprintf(text, sizeof text,
                 "refcount-bits %u\nsize 1M\nrefcount[9] = 1\nrefcount[1] = 0\n"
                 "u64[0x200] = offset(refcount_block[0])\n",
                 1U << order);
        Q2_AUTOCLOSE struct q2_file *file = build(text);
        uint8_t block[512];
        cr_assert_eq(q2_file_read(file, load(file, 0x200, 8), block, sizeof block, NULL), 0);
        const uint64_t expected[] = {1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0};
        for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)
            cr_expect_eq(q2_refcount_get(block, order, i), expected[i], "%u of order %u", i, order);
    }
}

Test(recipe, files_of_exabytes_stay_sparse)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("size 1M\ntruncate 1E\nfill (1E - 4K) 16 0x41\nzero-fill 1M (1E - 2M)\n");
    uint64_t bytes;
    cr_expect_eq(size_of(file), UINT64_C(1) << 60);
    cr_expect_eq(load(file, (UINT64_C(1) << 60) - 4096, 2), 0x4141);
    cr_assert_eq(q2_file_allocated(file, &bytes, NULL), 0);
    cr_expect_lt(bytes, 1 << 20);
}

Test(recipe, leaks_have_names)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("size 1M\nleak 2 0x41\nleak 1 \"xy\"\nu64[0x200] = offset(leak[0])\n"
              "u64[0x208] = offset(leak[1])\n");
    cr_expect_eq(load(file, load(file, 0x200, 8) + 0x10000, 1), 0x41);
    cr_expect_eq(load(file, load(file, 0x208, 8), 2), 0x7879);
}

Test(recipe, bytes_can_be_appended_copied_and_cut)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build("append 4 \"ab\"\ncopy (file.size - 4) 0x200 4\ntruncate (file.size - 3)\n");
    cr_expect_eq(load(file, 0x200, 4), 0x61626162);
    cr_expect_eq(load(file, size_of(file) - 1, 1), 0x61);
}
