/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Salvage of healthy images: everything, in both formats, all of it certain, and the source as it
 * was. */

#include "tests/unit/repair_salvage.h"

TestSuite(salvage, .init = make_folder, .fini = remove_folder);

/* Salvage "image" in one format and hold the result against strict reading. */
static void
expect_salvaged(const char *what, enum q2_disk_format format, bool keep,
                const struct q2_secret *secret)
{
    const char *out = format == Q2_DISK_RAW ? "out.raw" : "out.qcow2";
    const struct q2_salvage_options options = {.format = format,
                                               .keep_backing = keep,
                                               .secret = secret};
    struct q2_salvage_result result = {0};
    struct q2_error err = {0};
    char map[64];
    uint64_t before = digest("image");
    int rc = salvage(out, &options, &result, &err);
    cr_assert_eq(rc, 0, "%s: %s", what, err.message);
    cr_expect_eq(digest("image"), before, "%s: the source has changed", what);
    expect_all_same(out, format, secret, what);
    if (format == Q2_DISK_QCOW2)
        expect_clean(out, what);
    snprintf(map, sizeof map, "%s.map.json", out);
    struct tally tally = read_tally(map);
    cr_expect_arr_eq(tally.bytes, result.bytes, sizeof tally.bytes, "%s", what);
    for (int i = Q2_SALVAGE_LIKELY; i < Q2_SALVAGE_STATE_COUNT; i++)
        cr_expect_eq(result.bytes[i], 0, "%s: %" PRIu64 " bytes are not certain", what,
                     result.bytes[i]);
    snprintf(map, sizeof map, "%s.qcow2kit-salvage", out);
    cr_expect_neq(access(in_folder(map), F_OK), 0, "%s: the state file is still there", what);
}

/* Encrypted ones have a test of their own, and a file system no room for an exabyte. */
static bool
is_left_out(const char *name, enum q2_disk_format format)
{
    return strstr(name, "aes") || strstr(name, "luks") ||
           (format == Q2_DISK_RAW && strstr(name, "exabyte"));
}

static void
test_recipe(const char *name, const char *path)
{
    for (int i = 0; i < 2; i++) {
        enum q2_disk_format format = i ? Q2_DISK_QCOW2 : Q2_DISK_RAW;
        if (is_left_out(name, format))
            continue;
        build_from("image", path);
        expect_salvaged(name, format, false, NULL);
    }
    empty_folder();
}

Test(salvage, corpus)
{
    char path[8192];
    unsigned count = 0;
    DIR *directory = opendir(source_path("corpus/healthy"));
    cr_assert(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (!strstr(entry->d_name, ".recipe"))
            continue;
        snprintf(path, sizeof path, "%s/%s", source_path("corpus/healthy"), entry->d_name);
        test_recipe(entry->d_name, path);
        count++;
    }
    closedir(directory);
    cr_expect_geq(count, 30);
}

/* The recipes of backing files are beside the one of the image. */
static void
build_others(const char *path)
{
    DIR *directory = opendir(path);
    cr_assert(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char name[300], from[8192];
        size_t length = strlen(entry->d_name);
        if (length <= 7 || strcmp(entry->d_name + length - 7, ".recipe") != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(length - 7), entry->d_name);
        snprintf(from, sizeof from, "%s/%s", path, entry->d_name);
        build_from(name, from);
    }
    closedir(directory);
}

Test(salvage, clean_cases)
{
    char path[4096], recipe[8192];
    unsigned count = 0;
    DIR *directory = opendir(source_path("tests/cases"));
    cr_assert(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strncmp(entry->d_name, "clean-", 6) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", source_path("tests/cases"), entry->d_name);
        snprintf(recipe, sizeof recipe, "%s/recipe", path);
        build_others(path);
        test_recipe(entry->d_name, recipe);
        count++;
    }
    closedir(directory);
    cr_expect_geq(count, 30);
}

/* ---- over a backing file ---- */

static const char over_backing[] = "file \"base.raw\" 4M text 9\n"
                                   "backing \"base.raw\" format raw\n"
                                   "cluster-size 4K\n"
                                   "size 8M\n"
                                   "write 0 100K random\n"
                                   "snapshot one\n"
                                   "write 64K 64K random 2\n"
                                   "zero 1M 64K\n"
                                   "write 5M 64K random 3\n"
                                   "snapshot two\n"
                                   "write 2M 10K random 4\n";

/* What the image has itself is what the copy has itself. */
static void
expect_own_same(unsigned snapshot, uint64_t size)
{
    Q2_AUTODISK struct q2_disk *strict = open_disk("image", Q2_DISK_QCOW2, NULL);
    Q2_AUTODISK struct q2_disk *made = open_disk("out.qcow2", Q2_DISK_QCOW2, NULL);
    if (snapshot < 2) {
        cr_assert_eq(q2_snapshot_load(q2_disk_image(strict), snapshot, NULL), 0);
        cr_assert_eq(q2_snapshot_load(q2_disk_image(made), snapshot, NULL), 0);
    }
    for (uint64_t at = 0; at < size; at += 4096) {
        struct q2_extent a, b;
        cr_assert_eq(q2_image_map_own(q2_disk_image(strict), at, 4096, &a, NULL), 0);
        cr_assert_eq(q2_image_map_own(q2_disk_image(made), at, 4096, &b, NULL), 0);
        cr_expect_eq(a.present, b.present, "snapshot %u, 0x%" PRIx64, snapshot, at);
    }
}

Test(salvage, keeps_the_backing_file)
{
    build("image", over_backing);
    expect_salvaged("kept", Q2_DISK_QCOW2, true, NULL);
    for (unsigned i = 0; i < 3; i++)
        expect_own_same(i, 8 << 20);
    Q2_AUTODISK struct q2_disk *made = open_disk("out.qcow2", Q2_DISK_QCOW2, NULL);
    cr_expect_str_eq(q2_image_backing_name(q2_disk_image(made)), "base.raw");
    cr_expect_str_eq(q2_image_backing_format(q2_disk_image(made)), "raw");
}

Test(salvage, shares_what_was_shared)
{
    struct q2_error err = {0};
    struct q2_salvage_result result;
    build("image", "size 64M\nwrite 0 16M random\nsnapshot a\nwrite 0 64K random 2\n"
                   "snapshot b\nwrite 64K 64K random 3\n");
    cr_assert_eq(salvage("out.qcow2", &(struct q2_salvage_options){.format = Q2_DISK_QCOW2},
                         &result, &err),
                 0);
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    uint64_t size = 0;
    cr_assert_eq(q2_file_open(in_folder("out.qcow2"), 0, &file, &err), 0);
    cr_assert_eq(q2_file_size(file, &size, &err), 0);
    cr_expect_lt(size, 18 << 20);
}

/* The image may name any file of the system. */
Test(salvage, opens_no_file_that_only_the_image_names)
{
    struct q2_error err = {0};
    struct q2_salvage_result result;
    build("image", over_backing);
    struct q2_salvage_options how = {.given_names_only = true};
    cr_assert_eq(salvage("out.raw", &how, &result, &err), 0, "%s", err.message);
    cr_expect(result.backing_missing);
    cr_expect_gt(result.bytes[Q2_SALVAGE_LOST], 0);
    how.backing_file = in_folder("base.raw");
    how.restart = true;
    cr_assert_eq(salvage("out.raw", &how, &result, &err), 0, "%s", err.message);
    cr_expect_not(result.backing_missing);
    cr_expect_eq(result.bytes[Q2_SALVAGE_LOST], 0);
    how = (struct q2_salvage_options){.format = Q2_DISK_QCOW2,
                                      .keep_backing = true,
                                      .given_names_only = true};
    cr_assert_eq(salvage("out.qcow2", &how, &result, &err), 0, "%s", err.message);
    cr_expect_not(result.backing_missing, "it is left to it");
}

Test(salvage, bounds_the_number_of_snapshots)
{
    struct q2_error err = {0};
    struct q2_salvage_result result;
    build("image", "cluster-size 4K\nsize 1M\nwrite 0 64K random\nsnapshot a\n"
                   "write 0 8K random 2\nsnapshot b\nwrite 0 8K random 3\nsnapshot c\n");
    for (int i = 0; i < 2; i++) {
        const struct q2_salvage_options how = {.format = i ? Q2_DISK_QCOW2 : Q2_DISK_RAW,
                                               .max_snapshots = 2};
        cr_assert_eq(salvage(i ? "out.qcow2" : "out.raw", &how, &result, &err), 0, "%s",
                     err.message);
        cr_expect_eq(result.maps, 3);
        cr_expect_eq(result.maps_lost, 1);
        cr_expect_eq(result.bytes[Q2_SALVAGE_LOST], 1 << 20);
        cr_expect_eq(result.bytes[Q2_SALVAGE_CERTAIN], 3 << 20);
    }
}

Test(salvage, names_what_a_missing_backing_file_had)
{
    struct q2_error err = {0};
    struct q2_salvage_result result;
    build("image", over_backing);
    unlink(in_folder("base.raw"));
    cr_assert_eq(salvage("out.raw", &(struct q2_salvage_options){0}, &result, &err), 0, "%s",
                 err.message);
    cr_expect(result.backing_missing);
    struct tally tally = read_tally("out.raw.map.json");
    /* Of the first state all but 100 KiB, which its last cluster makes full. */
    cr_expect_geq(tally.bytes[Q2_SALVAGE_LOST], 3 * ((8 << 20) - (512 << 10)));
    cr_expect_gt(tally.bytes[Q2_SALVAGE_CERTAIN], 3 * (100 << 10));
    const struct q2_salvage_options keep = {.format = Q2_DISK_QCOW2, .keep_backing = true};
    cr_assert_eq(salvage("out.qcow2", &keep, &result, &err), 0, "%s", err.message);
    cr_expect(result.backing_missing);
    cr_expect_eq(result.bytes[Q2_SALVAGE_LOST], 0);
    build("other", over_backing); /* puts the backing file back in its place */
    for (unsigned i = 0; i < 3; i++)
        expect_own_same(i, 8 << 20);
    expect_all_same("out.qcow2", Q2_DISK_QCOW2, NULL, "kept");
}

/* ---- disks of different sizes ---- */

static void
take_snapshot(struct q2_disk *disk, const char *name, uint64_t date)
{
    const struct q2_snapshot_options options = {.name = name, .date_seconds = (uint32_t)date};
    cr_assert_eq(q2_snapshot_create(q2_disk_image(disk), &options, NULL), 0);
}

/* States whose disks shrink and grow, which only reverting can do. */
Test(salvage, follows_disks_that_shrink)
{
    const struct q2_create_options create = {.size = 8 << 20, .cluster_size = 4096};
    const struct q2_image_options write = {.flags = Q2_IMAGE_WRITE};
    struct q2_disk *disk = NULL;
    Q2_AUTOFREE char *bytes = malloc(1 << 20);
    memset(bytes, 0x5a, 1 << 20);
    cr_assert_eq(q2_image_create(in_folder("image"), &create, NULL), 0);
    cr_assert_eq(q2_disk_open(in_folder("image"), &write, &disk, NULL), 0);
    struct q2_image *image = q2_disk_image(disk);
    cr_assert_eq(q2_disk_write(disk, 1 << 20, bytes, 1 << 20, NULL), 0);
    take_snapshot(disk, "small", 1000);
    cr_assert_eq(q2_image_resize(image, 16 << 20, Q2_PREALLOCATION_OFF, NULL), 0);
    cr_assert_eq(q2_disk_write(disk, 12 << 20, bytes, 1 << 20, NULL), 0);
    take_snapshot(disk, "large", 2000);
    cr_assert_eq(q2_snapshot_goto(image, 0, NULL), 0);
    cr_assert_eq(q2_disk_write(disk, 3 << 20, bytes, 1 << 20, NULL), 0);
    take_snapshot(disk, "small again", 3000);
    /* Now none that small is before the others. */
    cr_assert_eq(q2_snapshot_delete(image, 0, NULL), 0);
    cr_assert_eq(q2_disk_write(disk, 5 << 20, bytes, 1 << 20, NULL), 0);
    cr_assert_eq(q2_disk_close(disk, NULL), 0);
    expect_salvaged("shrinking", Q2_DISK_QCOW2, false, NULL);
    expect_salvaged("shrinking", Q2_DISK_RAW, false, NULL);
}

/* ---- encryption ---- */

static void
test_encrypted(enum q2_crypt_method method)
{
    struct q2_secret secret = {.bytes = (uint8_t *)(uintptr_t) "sesame", .length = 6};
    const struct q2_create_options create = {.size = 8 << 20,
                                             .cluster_size = 4096,
                                             .crypt = method,
                                             .secret = &secret,
                                             .iterations = 1000};
    const struct q2_image_options write = {.flags = Q2_IMAGE_WRITE, .secret = &secret};
    struct q2_disk *disk = NULL;
    struct q2_error err = {0};
    Q2_AUTOFREE char *bytes = malloc(1 << 20);
    for (size_t i = 0; i < 1 << 20; i++)
        bytes[i] = (char)(i * 7 + i / 4096);
    cr_assert_eq(q2_image_create(in_folder("image"), &create, &err), 0, "%s", err.message);
    cr_assert_eq(q2_disk_open(in_folder("image"), &write, &disk, NULL), 0);
    cr_assert_eq(q2_disk_write(disk, 1 << 20, bytes, 1 << 20, NULL), 0);
    take_snapshot(disk, "one", 1000);
    cr_assert_eq(q2_disk_write(disk, 1000, bytes, 100000, NULL), 0);
    cr_assert_eq(q2_disk_close(disk, NULL), 0);
    expect_salvaged("encrypted", Q2_DISK_RAW, false, &secret);
    expect_salvaged("encrypted", Q2_DISK_QCOW2, false, &secret);
    struct q2_salvage_result result;
    cr_expect_eq(salvage("other", &(struct q2_salvage_options){0}, &result, &err),
                 Q2_ERR_PASSPHRASE);
    cr_expect_neq(access(in_folder("other"), F_OK), 0);
}

Test(salvage, aes)
{
    test_encrypted(Q2_CRYPT_AES);
}

Test(salvage, luks)
{
    test_encrypted(Q2_CRYPT_LUKS);
}

/* ---- what is refused ---- */

Test(salvage, writes_over_nothing_unasked)
{
    struct q2_error err = {0};
    struct q2_salvage_result result;
    build("image", "size 1M\nwrite 0 64K random\nsnapshot s\n");
    build("out.raw", "size 1M\n");
    const struct q2_salvage_options force = {.overwrite = true};
    cr_expect_eq(salvage("out.raw", &(struct q2_salvage_options){0}, &result, &err), Q2_ERR_EXISTS);
    cr_expect_eq(salvage("image", &force, &result, &err), Q2_ERR_OPEN);
    cr_expect_eq(salvage("out.raw", &force, &result, &err), 0, "%s", err.message);
    expect_all_same("out.raw", Q2_DISK_RAW, NULL, "forced");
    /* A snapshot's file is in the way. */
    unlink(in_folder("out.raw"));
    cr_expect_eq(salvage("out.raw", &(struct q2_salvage_options){0}, &result, &err), Q2_ERR_EXISTS);
    cr_expect_neq(access(in_folder("out.raw"), F_OK), 0);
}
