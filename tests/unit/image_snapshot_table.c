/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The snapshot table: read strictly, kept byte for byte, replaced as a whole, and never larger than
 * the format allows. */

#include "tests/unit/image_states.h"

#include "core/image/snapshot_table.h"

#include <limits.h>

#define RECIPE "cluster-size 4K\nsize 1M\nwrite 0 8K 1\nsnapshot one\n"

static void
expect_not_opened(const char *recipe, const char *words)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(recipe);
    struct opened opened;
    struct q2_error err = {0};
    cr_expect_eq(open_image(file, 0, &opened, &err), Q2_ERR_FORMAT, "%s opens", recipe);
    cr_expect_not_null(strstr(err.message, words), "%s", err.message);
}

Test(snapshot_table, a_table_that_breaks_a_rule_is_refused)
{
    expect_not_opened(RECIPE "snapshot[0].l1_table_offset += 512\n", "snapshot-l1-unaligned");
    expect_not_opened(RECIPE "snapshot[0].l1_table_offset = 1 << 40\n", "snapshot-l1-past-end");
    expect_not_opened(RECIPE "snapshot[0].l1_size = 5 << 20\n", "snapshot-l1-too-big");
    expect_not_opened(RECIPE "snapshot[0].l1_size = 0\n", "snapshot-l1-too-small");
    expect_not_opened(RECIPE "snapshot[0].extra_size = 1025\n", "snapshot-extra-big");
    expect_not_opened(RECIPE "snapshot[0].extra_size = 0xffffffff\n", "snapshot-extra-big");
    expect_not_opened(RECIPE "snapshot[0].vm_state_size = 1\n", "snapshot-vm-state");
}

Test(snapshot_table, a_table_that_leaves_the_file_is_refused)
{
    expect_not_opened(RECIPE "header.nb_snapshots = 3\ntruncate offset(snapshot[0]) + 80\n",
                      "ends past the end of the file");
    expect_not_opened(RECIPE "snapshot[0].name_size = 0xffff\ntruncate offset(snapshot[0]) + 100\n",
                      "ends past the end of the file");
    expect_not_opened(RECIPE "header.snapshots_offset = 1 << 40\n", "offset");
    expect_not_opened(RECIPE "header.nb_snapshots = 65537\n", "snapshots-too-many");
}

Test(snapshot_table, extra_data_and_odd_texts_are_kept_byte_for_byte)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nsnapshot a id=\"x\\0y\" extra \"12345678abc\"\n"
                    "snapshot \"b\\0\\xff\" vm-clock 77\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    uint8_t before[4096], after[4096];
    uint64_t at = opened.image->header.snapshots_offset, old = opened.image->snapshots->length;
    MUST(q2_file_read(file, at, before, sizeof before, &err), err);
    MUST(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = "c"}, &err), err);
    cr_assert_neq(opened.image->header.snapshots_offset, at, "the table changed in place");
    MUST(q2_file_read(file, opened.image->header.snapshots_offset, after, sizeof after, &err), err);
    cr_expect_arr_eq(before, after, old);
    MUST(q2_snapshot_delete(opened.image, 2, &err), err);
    MUST(q2_file_read(file, opened.image->header.snapshots_offset, after, sizeof after, &err), err);
    cr_expect_arr_eq(before, after, old);
    cr_expect_eq(opened.image->snapshots->length, old);
    must_close(&opened);
}

/* Old software left these behind when it made a version 3 image of one of version 2. */
Test(snapshot_table, short_entries_of_version_3_are_read)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nsnapshot a\n"
                    "snapshot[0].extra_size = 0\nsnapshot[0].id_size = 17\n"
                    "snapshot[0].vm_state_size = 0x3132333435363738\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_snapshot_info info;
    q2_snapshot_info(opened.image, 0, &info);
    cr_expect_eq(info.disk_size, 1 << 20);
    must_close(&opened);
}

Test(snapshot_table, short_entries_of_version_2_stay_short_and_forbid_another_size)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("version 2\ncluster-size 4K\nsize 1M\nsnapshot a\nsnapshot b\n"
                    "snapshot[0].extra_size = 0\nsnapshot[0].id_size = 17\n"
                    "snapshot[0].vm_state_size = 0x3132333435363738\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    struct q2_snapshot_info info;
    q2_snapshot_info(opened.image, 0, &info);
    cr_expect_str_eq(info.id, "12345678");
    cr_expect_eq(info.disk_size, 1 << 20);
    cr_expect_eq(info.vm_state_size, 0);
    MUST(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = "c"}, &err), err);
    cr_expect_eq(opened.image->snapshots->entries[0].fixed.extra_length, 0);
    cr_expect_eq(opened.image->snapshots->entries[2].fixed.extra_length, 24);
    opened.image->snapshots->entries[1].fixed.disk_size = 512 << 10;
    cr_expect_eq(q2_snapshot_goto(opened.image, 1, &err), Q2_ERR_UNSUPPORTED);
    must_close(&opened);
    opened = must_open(file, 0);
    q2_snapshot_info(opened.image, 0, &info);
    cr_expect_str_eq(info.id, "12345678");
    must_close(&opened);
}

Test(snapshot_table, the_count_of_instructions_is_read_where_there_is_one)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nsnapshot a extra \"\\0\\0\\0\\0\\0\\0\\x01\\x02\"\n"
                    "snapshot b extra \"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\"\nsnapshot c "
                    "extra \"1234567\"\n");
    struct opened opened = must_open(file, 0);
    struct q2_snapshot_info info;
    q2_snapshot_info(opened.image, 0, &info);
    cr_expect(info.has_icount);
    cr_expect_eq(info.icount, 0x102);
    q2_snapshot_info(opened.image, 1, &info);
    cr_expect_not(info.has_icount);
    q2_snapshot_info(opened.image, 2, &info);
    cr_expect_not(info.has_icount);
    must_close(&opened);
}

/* ---- limits ---- */

static struct q2_snapshots *
many(unsigned count, uint16_t name_length)
{
    struct q2_snapshots *snapshots = calloc(1, sizeof *snapshots);
    snapshots->entries = calloc(count, sizeof *snapshots->entries);
    snapshots->count = count;
    for (unsigned i = 0; i < count; i++) {
        struct q2_snapshot_entry *entry = &snapshots->entries[i];
        entry->fixed.id_length = 5;
        entry->fixed.name_length = name_length;
        entry->id = calloc(1, 24);
        snprintf(entry->id, 24, "%05u", i);
        entry->name = calloc(1, name_length + 1U);
    }
    return snapshots;
}

Test(snapshot_table, there_are_no_more_than_the_format_allows)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\n");
    struct opened opened = must_open(file, 0);
    struct q2_snapshots *full = many(Q2_MAX_SNAPSHOTS, 1), *next = NULL;
    struct q2_snapshot_entry added = {.id = "", .name = ""};
    struct q2_error err = {0};
    cr_expect_eq(q2_snapshots_successor(opened.image, full, UINT_MAX, &added, &next, &err),
                 Q2_ERR_RANGE);
    cr_expect_not_null(strstr(err.message, "65536 snapshots"), "%s", err.message);
    MUST(q2_snapshots_successor(opened.image, full, 7, NULL, &next, &err), err);
    cr_expect_eq(next->count, Q2_MAX_SNAPSHOTS - 1);
    cr_expect_str_eq(next->entries[7].id, "00008");
    q2_snapshots_free(next);
    q2_snapshots_free(full);
    must_close(&opened);
}

Test(snapshot_table, it_is_no_longer_than_can_be_read)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\n");
    struct opened opened = must_open(file, 0);
    /* 1024 entries of 65536 bytes are 64 MiB exactly. */
    struct q2_snapshots *full = many(1024, 65536 - 40 - 5 - 1), *next = NULL;
    struct q2_snapshot_entry added = {.id = "", .name = ""};
    struct q2_error err = {0};
    cr_assert_eq(q2_snapshots_length(full), Q2_MAX_SNAPSHOT_TABLE_BYTES);
    cr_expect_eq(q2_snapshots_successor(opened.image, full, UINT_MAX, &added, &next, &err),
                 Q2_ERR_RANGE);
    cr_expect_not_null(strstr(err.message, "67108904 bytes"), "%s", err.message);
    q2_snapshots_free(full);
    must_close(&opened);
}

/* As many as can be, on the disk. */
Test(snapshot_table, the_largest_number_of_snapshots_is_stored_and_read)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 64K\nsize 64K\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_snapshots *full = many(Q2_MAX_SNAPSHOTS - 1, 3);
    struct q2_error err = {0};
    for (unsigned i = 0; i < full->count; i++) {
        full->entries[i].fixed.extra_length = 16;
        full->entries[i].extra = calloc(1, 16);
    }
    MUST(q2_snapshots_store(opened.image, full, &err), err);
    MUST(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = "last"}, &err),
         err);
    cr_expect_eq(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = "more"},
                                    &err),
                 Q2_ERR_RANGE);
    must_close(&opened);
    opened = must_open(file, 0);
    cr_expect_eq(q2_snapshot_count(opened.image), Q2_MAX_SNAPSHOTS);
    unsigned index = 0;
    MUST(q2_snapshot_find(opened.image, "65535", &index, &err), err);
    cr_expect_eq(index, 65535);
    cr_expect_str_eq(opened.image->snapshots->entries[index].name, "last");
    must_close(&opened);
}
