/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Persistent bitmaps of an open image: what they record, what the disk has at each time, and what
 * is left of them after a crash. */

#include "tests/unit/bitmap_images.h"

#include "core/format/bitmap.h"
#include "core/image/resize.h"
#include "core/image/snapshots.h"

/* Small clusters, so that bits take several. */
static const char recipe[] = "cluster-size 512\nsize 8M\nwrite 0 10K random\n"
                             "bitmap fine granularity 512 auto dirty 1M 3K dirty 8387584 1K\n"
                             "bitmap coarse granularity 64K dirty 3M 1M\n"
                             "bitmap full granularity 512 auto dirty 0 8M ones\n"
                             "bitmap open granularity 1M in-use auto dirty 2M 1M\n";

/* ---- reading ---- */

Test(bitmaps, are_read_as_they_are_on_the_disk)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, 0);
    cr_assert_eq(q2_bitmap_count(image), 4);
    struct q2_bitmap_info fine = info_of(image, "fine"), coarse = info_of(image, "coarse"),
                          full = info_of(image, "full"), open = info_of(image, "open");
    cr_assert_str_eq(fine.name, "fine");
    cr_assert_eq(fine.granularity, 512);
    cr_assert(fine.enabled && !fine.in_use);
    cr_assert_eq(fine.dirty_bytes, 4096);
    cr_assert_eq(coarse.granularity, 65536);
    cr_assert(!coarse.enabled && !coarse.in_use);
    cr_assert_eq(coarse.dirty_bytes, 1 << 20);
    cr_assert_eq(full.dirty_bytes, 8 << 20);
    cr_assert(open.enabled && open.in_use);
    cr_assert_eq(open.dirty_bytes, 0);
    cr_assert_str_eq(dirty_of(image, "fine"), "1024+3 8191+1");
    cr_assert_str_eq(dirty_of(image, "coarse"), "3072+1024");
    cr_assert_str_eq(dirty_of(image, "full"), "0+8192");
    close_image(image);
}

Test(bitmaps, that_are_not_there_or_not_consistent_are_refused)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    struct q2_bitmap_info info;
    bool dirty;
    uint64_t end;
    unsigned index;
    FAILS(Q2_ERR_NOT_FOUND, q2_bitmap_find(image, "fin", &index, &err));
    FAILS(Q2_ERR_NOT_FOUND, q2_bitmap_find(image, "fine ", &index, &err));
    FAILS(Q2_ERR_NOT_FOUND, q2_bitmap_info(image, 4, &info, &err));
    FAILS(Q2_ERR_NOT_FOUND, q2_bitmap_remove(image, 4, &err));
    FAILS(Q2_ERR_RANGE, q2_bitmap_extent(image, 0, 8 << 20, &dirty, &end, &err));
    unsigned open = index_of(image, "open"), fine = index_of(image, "fine");
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_extent(image, open, 0, &dirty, &end, &err));
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_clear(image, open, &err));
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_set_enabled(image, open, false, &err));
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_merge(image, open, image, fine, &err));
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_merge(image, fine, image, open, &err));
    close_image(image);
}

Test(bitmaps, of_a_read_only_image_do_not_change)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, 0);
    FAILS(Q2_ERR_READ_ONLY, q2_bitmap_add(image, "new", 0, true, &err));
    FAILS(Q2_ERR_READ_ONLY, q2_bitmap_remove(image, 0, &err));
    FAILS(Q2_ERR_READ_ONLY, q2_bitmap_clear(image, 0, &err));
    FAILS(Q2_ERR_READ_ONLY, q2_bitmap_set_enabled(image, 0, false, &err));
    FAILS(Q2_ERR_READ_ONLY, q2_bitmap_merge(image, 0, image, 1, &err));
    close_image(image);
}

/* ---- broken ones ---- */

static void
refused(enum q2_error_code code, const char *words, const char *line)
{
    char text[1024];
    struct q2_error err = {0};
    struct q2_image *image = NULL;
    snprintf(text, sizeof text, "%s%s\n", recipe, line);
    Q2_AUTOCLOSE struct q2_file *base = build_image(text);
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE};
    int rc = q2_image_open_file(borrowed(base), &options, &image, &err);
    cr_assert_eq(rc, code, "%s: %d, %s", line, rc, err.message);
    cr_assert(strstr(err.message, words), "%s: %s", line, err.message);
}

Test(bitmaps, that_break_a_rule_are_refused)
{
    refused(Q2_ERR_FORMAT, "bitmap-granularity", "bitmap[0].granularity_bits = 32");
    refused(Q2_ERR_FORMAT, "bitmap-type", "bitmap[1].type = 2");
    refused(Q2_ERR_FORMAT, "bitmap-flags", "bitmap[1].flags = 8");
    refused(Q2_ERR_FORMAT, "bitmap-table-size", "bitmap[0].table_size = 3");
    refused(Q2_ERR_FORMAT, "bitmap-table-past-end", "bitmap[0].table_offset = 1 << 40");
    refused(Q2_ERR_FORMAT, "bitmap-directory-size", "bitmaps.nb_bitmaps = 5");
    refused(Q2_ERR_FORMAT, "bitmap-directory-size", "bitmaps.nb_bitmaps = 3");
    refused(Q2_ERR_FORMAT, "bitmap-directory-size", "bitmap[3].name_size = 60000");
    refused(Q2_ERR_FORMAT, "bitmap-name-duplicate", "bitmap[3].name = \"fine\"");
    refused(Q2_ERR_FORMAT, "overlaps", "bitmap[0].table_offset = bitmap[2].table_offset");
    refused(Q2_ERR_FORMAT, "overlaps the L1 table", "bitmap[0].table_offset = offset(l1)");
}

Test(bitmaps, with_a_broken_table_refuse_to_be_used_and_the_image_to_be_written)
{
    static const char more[] = "bitmap[0].table[3].offset = 1 << 40\n";
    char text[1024];
    snprintf(text, sizeof text, "%s%s", recipe, more);
    Q2_AUTOCLOSE struct q2_file *base = build_image(text);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    struct q2_bitmap_info info;
    FAILS(Q2_ERR_FORMAT, q2_bitmap_info(image, 0, &info, &err));
    FAILS(Q2_ERR_FORMAT, q2_image_write(image, 0, "x", 1, &err));
    close_image(image);
}

/* ---- recording ---- */

Test(bitmaps, record_writes_and_are_consistent_after_closing)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    write_bytes(image, 100, 1, 1);
    write_bytes(image, 5 * 1024 - 1, 2, 2);
    OK(q2_image_zero(image, 2 << 20, 1024, 0, &err));
    OK(q2_image_discard(image, 0, 1024, &err));
    cr_assert_str_eq(dirty_of(image, "fine"), "0+1 4.5+1 1024+3 2048+1 8191+1");
    close_image(image);

    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    image = open_image(base, 0);
    cr_assert_eq(q2_bitmap_count(image), 4);
    cr_assert(!info_of(image, "fine").in_use && info_of(image, "fine").enabled);
    cr_assert(!info_of(image, "full").in_use);
    cr_assert(info_of(image, "open").in_use && info_of(image, "open").enabled);
    cr_assert_str_eq(dirty_of(image, "fine"), "0+1 4.5+1 1024+3 2048+1 8191+1");
    cr_assert_str_eq(dirty_of(image, "coarse"), "3072+1024");
    cr_assert_str_eq(dirty_of(image, "full"), "0+8192");
    close_image(image);
}

Test(bitmaps, are_in_use_on_the_disk_from_the_first_write_on)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    Q2_AUTOCLOSE struct q2_file *before = copy_of(base);
    write_bytes(image, 0, 1, 1);
    Q2_AUTOCLOSE struct q2_file *after = copy_of(base);
    close_image(image);

    image = open_image(before, 0);
    cr_assert(!info_of(image, "fine").in_use);
    close_image(image);
    image = open_image(after, Q2_IMAGE_WRITE);
    cr_assert(info_of(image, "fine").in_use);
    cr_assert(info_of(image, "full").in_use);
    cr_assert(!info_of(image, "coarse").in_use);
    cr_assert_str_eq(dirty_of(image, "coarse"), "3072+1024");
    /* And they stay so, whatever is written. */
    write_bytes(image, 0, 1, 2);
    close_image(image);
    image = open_image(after, 0);
    cr_assert(info_of(image, "fine").in_use);
    close_image(image);
}

Test(bitmaps, survive_an_open_that_changes_nothing_byte_for_byte)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    Q2_AUTOCLOSE struct q2_file *before = copy_of(base);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    close_image(image);
    Q2_AUTOCLOSE struct q2_file *after = copy_of(base);
    uint64_t size = 0, size_after = 0;
    OK(q2_file_size(before, &size, &err));
    OK(q2_file_size(after, &size_after, &err));
    cr_assert_eq(size, size_after);
    char *bytes = malloc(2 * size);
    OK(q2_file_read(before, 0, bytes, size, &err));
    OK(q2_file_read(after, 0, bytes + size, size, &err));
    cr_assert_eq(memcmp(bytes, bytes + size, size), 0);
    free(bytes);
}

Test(bitmaps, go_on_recording_after_the_image_was_invalidated)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    write_bytes(image, 0, 1, 1);
    OK(q2_image_invalidate(image, &err));
    cr_assert_str_eq(dirty_of(image, "fine"), "0+0.5 1024+3 8191+1");
    write_bytes(image, 1024, 1, 1);
    Q2_AUTOCLOSE struct q2_file *crashed = copy_of(base);
    close_image(image);
    image = open_image(base, 0);
    cr_assert_str_eq(dirty_of(image, "fine"), "0+0.5 1+0.5 1024+3 8191+1");
    close_image(image);
    image = open_image(crashed, 0);
    cr_assert(info_of(image, "fine").in_use);
    close_image(image);
}

Test(bitmaps, that_memory_has_no_room_for_become_inconsistent)
{
    /* 256 MiB of bits each: the first one is all that is allowed. */
    Q2_AUTOCLOSE struct q2_file *base =
        build_image("cluster-size 2M\nsize 1T\nbitmap one granularity 512 auto\n"
                    "bitmap two granularity 512 auto\n");
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    write_bytes(image, 4096, 512, 1);
    cr_assert(info_of(image, "two").in_use);
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    image = open_image(base, 0);
    cr_assert(info_of(image, "two").in_use);
    cr_assert_str_eq(dirty_of(image, "one"), "4+0.5");
    close_image(image);
}

Test(bitmaps, with_extra_data_that_must_be_understood_are_kept_and_not_used)
{
    Q2_AUTOCLOSE struct q2_file *base =
        build_image("size 8M\nbitmap other auto granularity 64K extra \"0123456789\"\n"
                    "bitmap plain granularity 64K extra \"abc\"\nbitmap[1].flags = 6\n");
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_clear(image, index_of(image, "other"), &err));
    cr_assert_eq(info_of(image, "plain").dirty_bytes, 0);
    write_bytes(image, 1 << 20, 1, 1);
    close_image(image);
    image = open_image(base, 0);
    cr_assert(info_of(image, "other").in_use);
    cr_assert_str_eq(dirty_of(image, "plain"), "1024+64");
    close_image(image);
    struct q2_check *check = NULL;
    OK(q2_check_run(base, &(struct q2_check_options){.threads = 1}, &check, &err));
    cr_assert_eq(q2_check_problem_count(check, Q2_PROBLEM_BITMAP_EXTRA_DATA).count, 2);
    cr_assert_eq(q2_check_counts(check)->corruptions, 0);
    cr_assert_eq(q2_check_counts(check)->leaks, 0);
    q2_check_free(check);
}

/* ---- changing ---- */

Test(bitmaps, can_be_added_to_an_image_without)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image("size 8M\ncluster-size 4K\n");
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    cr_assert_eq(q2_bitmap_count(image), 0);
    write_bytes(image, 0, 4096, 1);
    OK(q2_bitmap_add(image, "on", 0, true, &err));
    OK(q2_bitmap_add(image, "off", 512, false, &err));
    write_bytes(image, 8192, 4096, 1);
    cr_assert_str_eq(dirty_of(image, "on"), "8+4");
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);

    image = open_image(base, 0);
    cr_assert_eq(q2_bitmap_count(image), 2);
    cr_assert_str_eq(dirty_of(image, "on"), "8+4");
    cr_assert_str_eq(dirty_of(image, "off"), "");
    cr_assert_eq(info_of(image, "on").granularity, 4096);
    cr_assert(info_of(image, "on").enabled && !info_of(image, "off").enabled);
    close_image(image);
}

Test(bitmaps, have_a_default_granularity_between_4_and_64_KiB)
{
    static const struct {
        const char *text;
        uint64_t granularity;
    } cases[] = {{"size 8M\ncluster-size 512\n", 4096},
                 {"size 8M\ncluster-size 32K\n", 32768},
                 {"size 8M\ncluster-size 2M\n", 65536}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Q2_AUTOCLOSE struct q2_file *base = build_image(cases[i].text);
        struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
        OK(q2_bitmap_add(image, "b", 0, true, &err));
        cr_assert_eq(info_of(image, "b").granularity, cases[i].granularity);
        close_image(image);
    }
}

Test(bitmaps, that_cannot_be_added)
{
    char name[1025];
    memset(name, 'n', sizeof name);
    name[1024] = '\0';
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    FAILS(Q2_ERR_EXISTS, q2_bitmap_add(image, "open", 0, true, &err));
    FAILS(Q2_ERR_RANGE, q2_bitmap_add(image, "", 0, true, &err));
    FAILS(Q2_ERR_RANGE, q2_bitmap_add(image, name, 0, true, &err));
    FAILS(Q2_ERR_RANGE, q2_bitmap_add(image, "b", 256, true, &err));
    FAILS(Q2_ERR_RANGE, q2_bitmap_add(image, "b", 1000, true, &err));
    FAILS(Q2_ERR_RANGE, q2_bitmap_add(image, "b", UINT64_C(1) << 32, true, &err));
    OK(q2_bitmap_add(image, "b", UINT64_C(1) << 31, true, &err));
    name[100] = '\0';
    OK(q2_bitmap_add(image, name, 512, true, &err));
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);

    Q2_AUTOCLOSE struct q2_file *old = build_image("version 2\nsize 8M\n");
    image = open_image(old, Q2_IMAGE_WRITE);
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_add(image, "b", 0, true, &err));
    close_image(image);
    Q2_AUTOCLOSE struct q2_file *huge = build_image("size 4T\n");
    image = open_image(huge, Q2_IMAGE_WRITE);
    FAILS(Q2_ERR_UNSUPPORTED, q2_bitmap_add(image, "b", 512, true, &err));
    cr_assert_eq(q2_bitmap_count(image), 0);
    close_image(image);
}

Test(bitmaps, that_are_removed_give_back_their_clusters)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    OK(q2_bitmap_remove(image, index_of(image, "open"), &err));
    OK(q2_bitmap_remove(image, index_of(image, "fine"), &err));
    cr_assert_eq(q2_bitmap_count(image), 2);
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    image = open_image(base, Q2_IMAGE_WRITE);
    cr_assert_eq(q2_bitmap_count(image), 2);
    cr_assert_str_eq(dirty_of(image, "full"), "0+8192");
    OK(q2_bitmap_remove(image, 0, &err));
    OK(q2_bitmap_remove(image, 0, &err));
    close_image(image);

    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    image = open_image(base, 0);
    cr_assert_eq(q2_bitmap_count(image), 0);
    cr_assert_eq(q2_image_header(image)->autoclear_features & Q2_AUTOCLEAR_BITMAPS, 0);
    close_image(image);
}

Test(bitmaps, can_be_cleared_enabled_and_disabled)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    OK(q2_bitmap_clear(image, index_of(image, "full"), &err));
    OK(q2_bitmap_set_enabled(image, index_of(image, "coarse"), true, &err));
    OK(q2_bitmap_set_enabled(image, index_of(image, "fine"), false, &err));
    Q2_AUTOCLOSE struct q2_file *crashed = copy_of(base);
    write_bytes(image, 0, 1, 1);
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);

    image = open_image(base, 0);
    cr_assert_str_eq(dirty_of(image, "full"), "0+0.5");
    cr_assert_str_eq(dirty_of(image, "coarse"), "0+64 3072+1024");
    cr_assert_str_eq(dirty_of(image, "fine"), "1024+3 8191+1");
    cr_assert(info_of(image, "coarse").enabled && !info_of(image, "fine").enabled);
    close_image(image);
    image = open_image(crashed, 0);
    cr_assert(info_of(image, "coarse").in_use && info_of(image, "fine").in_use);
    close_image(image);
}

Test(bitmaps, merge_into_coarser_and_finer_ones)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    OK(q2_bitmap_merge(image, index_of(image, "coarse"), image, index_of(image, "fine"), &err));
    cr_assert_str_eq(dirty_of(image, "coarse"), "1024+64 3072+1024 8128+64");
    OK(q2_bitmap_merge(image, index_of(image, "fine"), image, index_of(image, "coarse"), &err));
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    image = open_image(base, 0);
    cr_assert_str_eq(dirty_of(image, "fine"), "1024+64 3072+1024 8128+64");
    close_image(image);
}

Test(bitmaps, merge_from_another_image_of_the_same_size)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    Q2_AUTOCLOSE struct q2_file *other =
        build_image("size 8M\nbitmap o granularity 4K dirty 4M 4K\n");
    Q2_AUTOCLOSE struct q2_file *larger =
        build_image("size 9M\nbitmap o granularity 4K dirty 4M 4K\n");
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE), *source = open_image(other, 0);
    OK(q2_bitmap_merge(image, index_of(image, "coarse"), source, 0, &err));
    cr_assert_str_eq(dirty_of(image, "coarse"), "3072+1088");
    close_image(source);
    source = open_image(larger, 0);
    FAILS(Q2_ERR_RANGE, q2_bitmap_merge(image, 0, source, 0, &err));
    close_image(source);
    close_image(image);
}

Test(bitmaps, that_were_left_behind_are_not_believed)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(
        "size 8M\nbitmap b granularity 64K dirty 0 1M\nheader.autoclear_features = 0\n");
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    cr_assert_eq(q2_bitmap_count(image), 0);
    write_bytes(image, 0, 1, 1);
    close_image(image);
    image = open_image(base, Q2_IMAGE_WRITE);
    cr_assert_eq(q2_bitmap_count(image), 0);
    OK(q2_bitmap_add(image, "b", 0, true, &err));
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_LEAKS);
    image = open_image(base, 0);
    cr_assert_str_eq(dirty_of(image, "b"), "");
    close_image(image);
}

/* ---- resizing ---- */

Test(bitmaps, follow_the_size_of_the_disk)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    OK(q2_image_resize(image, 16 << 20, Q2_PREALLOCATION_OFF, &err));
    write_bytes(image, (16 << 20) - 1, 1, 1);
    cr_assert_str_eq(dirty_of(image, "full"), "0+8192 16383.5+0.5");
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);

    image = open_image(base, Q2_IMAGE_WRITE);
    cr_assert_str_eq(dirty_of(image, "full"), "0+8192 16383.5+0.5");
    cr_assert_str_eq(dirty_of(image, "coarse"), "3072+1024");
    cr_assert(info_of(image, "open").in_use);
    OK(q2_image_resize(image, 3 << 20, Q2_PREALLOCATION_OFF, &err));
    close_image(image);
    cr_assert_eq(check_exit(base), Q2_EXIT_CLEAN);
    image = open_image(base, 0);
    cr_assert_str_eq(dirty_of(image, "full"), "0+3072");
    cr_assert_str_eq(dirty_of(image, "coarse"), "");
    close_image(image);
}

Test(bitmaps, cannot_follow_a_disk_to_nothing)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    FAILS(Q2_ERR_UNSUPPORTED, q2_image_resize(image, 0, Q2_PREALLOCATION_OFF, &err));
    cr_assert_eq(q2_image_size(image), 8 << 20);
    close_image(image);
}

Test(bitmaps, forget_what_was_cut_off_on_the_safe_side)
{
    Q2_AUTOCLOSE struct q2_file *base = build_image(recipe);
    struct q2_image *image = open_image(base, Q2_IMAGE_WRITE);
    OK(q2_image_resize(image, 6 << 20, Q2_PREALLOCATION_OFF, &err));
    OK(q2_image_resize(image, 9 << 20, Q2_PREALLOCATION_OFF, &err));
    close_image(image);
    image = open_image(base, 0);
    cr_assert_str_eq(dirty_of(image, "fine"), "1024+3 6144+2048");
    close_image(image);
}
