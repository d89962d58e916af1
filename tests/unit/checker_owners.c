/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Who owns a cluster: one image with every kind of owner, asked about each of them by the names
 * that the recipe language has for its structures. */

#include "checker/check.h"
#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "tests/unit/images.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- images, with the fields that are asked for ---- */

enum { MAX_FIELDS = 4096 };

struct field {
    char name[48];
    uint64_t offset;
    uint64_t value;
};

struct image {
    struct q2_file *file;
    struct q2_check *check;
    struct field *fields;
    size_t field_count;
};

static void
keep_field(void *data, const struct q2_recipe_field *field)
{
    struct image *image = data;
    cr_assert_lt(image->field_count, MAX_FIELDS);
    struct field *kept = &image->fields[image->field_count++];
    snprintf(kept->name, sizeof kept->name, "%s", field->name);
    kept->offset = field->offset;
    kept->value = field->value;
}

static struct image
open_image(const char *text)
{
    struct image image = {.fields = calloc(MAX_FIELDS, sizeof *image.fields)};
    struct q2_error err = {0};
    image.file = build_listed(text, keep_field, &image);
    cr_assert_eq(q2_check_run(image.file, &(struct q2_check_options){0}, &image.check, &err), 0,
                 "%s", err.message);
    return image;
}

static void
close_image(struct image *image)
{
    q2_check_free(image->check);
    q2_file_close(image->file);
    free(image->fields);
}

static const struct field *
field(const struct image *image, const char *name)
{
    for (size_t i = 0; i < image->field_count; i++)
        if (strcmp(image->fields[i].name, name) == 0)
            return &image->fields[i];
    cr_assert(false, "the image has no %s", name);
    return NULL;
}

/* ---- asking ---- */

struct answer {
    struct q2_owner owners[8];
    size_t count;
    uint64_t refcount;
};

static void
note_owner(void *data, const struct q2_owner *owner)
{
    struct answer *answer = data;
    cr_assert_lt(answer->count, 8);
    answer->owners[answer->count++] = *owner;
}

static struct answer
ask(struct image *image, uint64_t offset)
{
    struct answer answer = {0};
    struct q2_error err = {0};
    int rc = q2_check_owners(image->check, image->file, offset, note_owner, &answer,
                             &answer.refcount, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    return answer;
}

/* Expect one owner of the cluster at `offset`. */
static struct q2_owner
expect_one(struct image *image, uint64_t offset, enum q2_owner_kind kind)
{
    struct answer answer = ask(image, offset);
    cr_assert_eq(answer.count, 1, "%zu owners at 0x%" PRIx64, answer.count, offset);
    cr_expect_eq(answer.owners[0].kind, kind, "kind %d at 0x%" PRIx64, answer.owners[0].kind,
                 offset);
    cr_expect_geq(answer.refcount, 1);
    return answer.owners[0];
}

static void
expect_maps(const struct image *image, q2_map_set set, size_t count, uint32_t first)
{
    const uint32_t *members = NULL;
    cr_assert_eq(q2_check_maps(image->check, set, &members), count);
    cr_expect(count == 0 || members[0] == first);
}

static const char everything[] =
    "cluster-size 4K\nsize 8M\nwrite 0 64K random\nsnapshot one\nsnapshot two\n"
    "write 8K 16K 0x11\nwrite-compressed 2M 16K text\n"
    "bitmap b granularity 4K dirty 0 1M\nbitmap c granularity 4K dirty 0 1M\nleak 1\n";

/* ---- one kind after the other ---- */

Test(owners, header_and_tables)
{
    struct image image = open_image(everything);
    expect_one(&image, 0, Q2_OWNER_HEADER);
    expect_one(&image, 104, Q2_OWNER_HEADER);
    expect_one(&image, field(&image, "refcount_table")->offset, Q2_OWNER_REFCOUNT_TABLE);
    expect_one(&image, field(&image, "snapshot_table")->offset, Q2_OWNER_SNAPSHOT_TABLE);
    uint64_t block = field(&image, "refcount_block[0]")->offset;
    struct q2_owner owner = expect_one(&image, block, Q2_OWNER_REFCOUNT_BLOCK);
    cr_expect_eq(owner.index, 0);
    cr_expect_eq(owner.at, field(&image, "refcount_table[0]")->offset);
    close_image(&image);
}

Test(owners, l1_tables_say_whose_they_are)
{
    struct image image = open_image(everything);
    uint64_t active = field(&image, "l1")->offset;
    uint64_t second = field(&image, "snapshot[1].l1")->offset;
    struct q2_owner owner = expect_one(&image, active, Q2_OWNER_L1_TABLE);
    expect_maps(&image, owner.maps, 1, 0);
    owner = expect_one(&image, second, Q2_OWNER_L1_TABLE);
    expect_maps(&image, owner.maps, 1, 2);
    close_image(&image);
}

Test(owners, l2_tables_say_what_they_map)
{
    struct image image = open_image(everything);
    uint64_t active = field(&image, "l2_table[1]")->offset;
    uint64_t shared = field(&image, "snapshot[0].l2_table[0]")->offset;
    struct q2_owner owner = expect_one(&image, active, Q2_OWNER_L2_TABLE);
    expect_maps(&image, owner.maps, 1, 0);
    cr_expect_eq(owner.guest, 2 << 20);
    cr_expect_eq(owner.guest_length, 2 << 20);
    cr_expect_eq(owner.index, 1);
    cr_expect_eq(owner.at, field(&image, "l1[1]")->offset);
    owner = expect_one(&image, shared, Q2_OWNER_L2_TABLE);
    expect_maps(&image, owner.maps, 2, 1);
    cr_expect_eq(ask(&image, shared).refcount, 2);
    close_image(&image);
}

Test(owners, guest_data)
{
    struct image image = open_image(everything);
    uint64_t shared = field(&image, "l2[0][0].offset")->value;
    uint64_t kept = field(&image, "snapshot[0].l2[0][2].offset")->value;
    struct q2_owner owner = expect_one(&image, shared + 4095, Q2_OWNER_DATA);
    expect_maps(&image, owner.maps, 3, 0);
    cr_expect_eq(owner.guest, 0);
    cr_expect_eq(owner.guest_length, 4096);
    cr_expect_eq(owner.at, field(&image, "l2[0][0]")->offset, "the active map's entry");
    owner = expect_one(&image, kept, Q2_OWNER_DATA);
    expect_maps(&image, owner.maps, 2, 1);
    cr_expect_eq(owner.guest, 8192);
    cr_expect_eq(owner.index, 2);
    close_image(&image);
}

Test(owners, compressed_clusters_share)
{
    struct image image = open_image(everything);
    uint64_t packed = field(&image, "l2[1][0].offset")->value;
    struct answer answer = ask(&image, packed);
    cr_assert_eq(answer.count, 4);
    cr_expect_eq(answer.refcount, 4);
    for (size_t i = 0; i < 4; i++) {
        cr_expect_eq(answer.owners[i].kind, Q2_OWNER_COMPRESSED);
        cr_expect_eq(answer.owners[i].guest, (2 << 20) + i * 4096);
    }
    close_image(&image);
}

Test(owners, bitmaps)
{
    struct image image = open_image(everything);
    expect_one(&image, field(&image, "bitmap_directory")->offset, Q2_OWNER_BITMAP_DIRECTORY);
    uint64_t table = field(&image, "bitmap[1].table")->offset;
    struct q2_owner owner = expect_one(&image, table, Q2_OWNER_BITMAP_TABLE);
    cr_expect_eq(owner.index, 1);
    uint64_t bits = field(&image, "bitmap[0].table[0].offset")->value;
    owner = expect_one(&image, bits, Q2_OWNER_BITMAP_DATA);
    cr_expect_eq(owner.index, 0);
    cr_expect_eq(owner.at, field(&image, "bitmap[0].table[0]")->offset);
    close_image(&image);
}

Test(owners, luks_header)
{
    struct image image = open_image("encryption luks\nsize 1M\nwrite 0 64K random\n");
    uint64_t at = field(&image, "luks.key_material[7]")->offset;
    expect_one(&image, field(&image, "luks.version")->offset, Q2_OWNER_LUKS_HEADER);
    expect_one(&image, at, Q2_OWNER_LUKS_HEADER);
    close_image(&image);
}

Test(owners, extended_and_zero_clusters)
{
    struct image image = open_image("extended-l2\nsize 1M\nsubclusters 0 alloc=1 pattern 0x11\n"
                                    "write 64K 64K 0x22\nzero 64K 64K allocated\n");
    uint64_t kept = field(&image, "l2[0][1].offset")->value;
    struct q2_owner owner = expect_one(&image, kept, Q2_OWNER_DATA);
    cr_expect_eq(owner.guest, 65536);
    cr_expect_eq(owner.at, field(&image, "l2[0][1]")->offset);
    close_image(&image);
}

/* ---- none, several, and errors ---- */

Test(owners, leaked_clusters_have_none)
{
    struct image image = open_image("size 1M\nwrite 0 64K 1\nleak 1\n");
    uint64_t size;
    cr_assert_eq(q2_file_size(image.file, &size, NULL), 0);
    struct answer answer = ask(&image, size - 1);
    cr_expect_eq(answer.count, 0);
    cr_expect_eq(answer.refcount, 1);
    close_image(&image);
}

Test(owners, overlaps_have_several_in_order)
{
    struct image image = open_image("cluster-size 4K\nsize 4M\nwrite 0 16K random\n"
                                    "map(4K).offset = offset(l1)\nmap(8K).offset = offset(l1)\n"
                                    "map(12K).offset = 1 << 40\n");
    struct answer answer = ask(&image, field(&image, "l1")->offset);
    cr_assert_eq(answer.count, 3);
    cr_expect_eq(answer.owners[0].kind, Q2_OWNER_L1_TABLE);
    cr_expect_eq(answer.owners[1].kind, Q2_OWNER_DATA);
    cr_expect_eq(answer.owners[1].guest, 4096);
    cr_expect_eq(answer.owners[2].guest, 8192);
    cr_expect_eq(answer.refcount, 1);
    close_image(&image);
}

Test(owners, asking_changes_nothing)
{
    struct image image = open_image(everything);
    size_t findings = q2_check_finding_count(image.check);
    uint64_t at = field(&image, "l2[0][0].offset")->value;
    struct answer first = ask(&image, at);
    ask(&image, 0);
    struct answer again = ask(&image, at);
    cr_expect_eq(first.count, again.count);
    cr_expect_eq(first.owners[0].maps, again.owners[0].maps);
    cr_expect_eq(first.refcount, again.refcount);
    cr_expect_eq(q2_check_finding_count(image.check), findings);
    close_image(&image);
}

Test(owners, what_cannot_be_answered)
{
    struct image image = open_image(everything);
    struct answer answer = {.refcount = 77};
    struct q2_error err = {0};
    uint64_t size;
    cr_assert_eq(q2_file_size(image.file, &size, NULL), 0);
    int rc =
        q2_check_owners(image.check, image.file, size, note_owner, &answer, &answer.refcount, &err);
    cr_expect_eq(rc, Q2_ERR_RANGE);
    cr_expect_not_null(strstr(err.message, "past the end"), "%s", err.message);
    cr_expect_eq(answer.refcount, 77, "untouched");
    close_image(&image);

    image = open_image("size 1M\nwrite 0 64K 1\nheader.cluster_bits = 3\n");
    rc = q2_check_owners(image.check, image.file, 0, note_owner, &answer, &answer.refcount, &err);
    cr_expect_eq(rc, Q2_ERR_FORMAT);
    cr_expect_eq(answer.count, 0);
    close_image(&image);
}
