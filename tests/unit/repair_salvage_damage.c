/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Salvage where something is wrong: what cannot be read is lost and nothing else is, an interrupted
 * salvage goes on, and arbitrary bytes end in an error or a result. */

#include "tests/unit/repair_salvage.h"

#include "core/base/endian.h"
#include "core/base/zeros.h"

TestSuite(salvage_damage, .init = make_folder, .fini = remove_folder);

static const char plain[] = "cluster-size 4K\n"
                            "size 6M\n"
                            "write 0 2M random\n"
                            "snapshot one vm-state 100K random 5\n"
                            "write 1M 1M random 2\n"
                            "zero 300K 64K\n"
                            "write-compressed 3M 256K text 3\n"
                            "snapshot two\n"
                            "write 4M 700K random 4\n";

/* ---- bad sectors ---- */

/* Salvage "image" where bytes [offset, offset + length) cannot be read. */
static struct q2_salvage_result
salvage_faulty(const char *out, enum q2_disk_format format, uint64_t offset, uint64_t length)
{
    const struct q2_fault_plan plan = {.kind = Q2_FAULT_EIO,
                                       .ops = Q2_FAULT_READ,
                                       .offset = offset,
                                       .length = length};
    const struct q2_salvage_options options = {.format = format, .overwrite = true};
    struct q2_salvage_result result = {0};
    struct q2_error err = {0};
    Q2_AUTOCLOSE struct q2_file *base = open_source();
    Q2_AUTOCLOSE struct q2_file *file = NULL;
    cr_assert_eq(q2_file_new_fault(base, &plan, &file, &err), 0);
    int rc = q2_salvage_run(file, in_folder(out), &options, &result, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    return result;
}

/* Outside of the ranges that the map calls lost, the active disk reads the same. */
static void
expect_rest_same(const char *out, enum q2_disk_format format, const struct tally *tally)
{
    Q2_AUTODISK struct q2_disk *strict = open_disk("image", Q2_DISK_QCOW2, NULL);
    Q2_AUTODISK struct q2_disk *made = open_disk(out, format, NULL);
    uint64_t at = 0;
    for (unsigned i = 0; i < tally->lost_count; i++) {
        const struct q2_salvage_range *lost = &tally->lost[i];
        if (lost->map != 0)
            continue;
        cr_expect(same_bytes(strict, made, at, lost->offset - at));
        at = lost->offset + lost->length;
    }
    cr_expect(same_bytes(strict, made, at, q2_disk_size(strict) - at));
}

/* Where the active disk has guest offset `guest`, in the file. */
static uint64_t
host_of(uint64_t guest)
{
    Q2_AUTODISK struct q2_disk *strict = open_disk("image", Q2_DISK_QCOW2, NULL);
    struct q2_extent extent;
    cr_assert_eq(q2_disk_map(strict, guest, 512, &extent, NULL), 0);
    cr_assert(extent.has_host);
    return extent.host;
}

Test(salvage_damage, loses_only_sectors_that_cannot_be_read)
{
    static const uint64_t guests[] = {0, 4096 + 512, 1 << 20, (4 << 20) + 300 * 1024 + 3584};
    build("image", plain);
    for (size_t i = 0; i < sizeof guests / sizeof guests[0]; i++) {
        for (int f = 0; f < 2; f++) {
            enum q2_disk_format format = f ? Q2_DISK_QCOW2 : Q2_DISK_RAW;
            /* A byte spoils its sector, in each state that shares it. */
            struct q2_salvage_result result =
                salvage_faulty("out", format, host_of(guests[i]) + 7, 1);
            uint64_t sharers = guests[i] < 1 << 20 ? 3 : guests[i] < 2 << 20 ? 2 : 1;
            cr_expect_eq(result.bytes[Q2_SALVAGE_LOST], 512 * sharers, "0x%" PRIx64 ": %" PRIu64,
                         guests[i], result.bytes[Q2_SALVAGE_LOST]);
            struct tally tally = read_tally("out.map.json");
            cr_assert_eq(tally.lost_count, sharers);
            for (unsigned j = 0; j < tally.lost_count; j++)
                cr_expect_eq(tally.lost[j].offset, guests[i]);
            expect_rest_same("out", format, &tally);
        }
    }
}

Test(salvage_damage, loses_one_compressed_cluster)
{
    uint64_t size = 0;
    unsigned found = 0;
    build("image",
          "cluster-size 4K\nsize 1M\nwrite-compressed 0 64K text 3\nwrite 64K 8K random\n");
    Q2_AUTOCLOSE struct q2_file *file = open_source();
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    /* Wherever the streams are: spoiling a sector costs one cluster, or two that share it. */
    for (uint64_t at = 4096; at < size; at += 2048) {
        salvage_faulty("out", Q2_DISK_RAW, at, 512);
        struct tally tally = read_tally("out.map.json");
        uint64_t lost = tally.bytes[Q2_SALVAGE_LOST];
        if (lost == 0 || lost == 512 || lost > 3 * 4096)
            continue; /* a table, or what is plain */
        cr_expect_eq(lost % 4096, 0);
        cr_expect_lt(tally.lost[0].offset, 64 << 10);
        expect_rest_same("out", Q2_DISK_RAW, &tally);
        found++;
    }
    cr_expect_geq(found, 2);
}

/* Of each sector of the file: what is lost is named, the rest is there. */
Test(salvage_damage, survives_any_bad_sector)
{
    uint64_t size = 0;
    build("image", "cluster-size 512\nsize 256K\nwrite 0 20K random\nsnapshot s\n"
                   "write 10K 30K random 2\n");
    Q2_AUTOCLOSE struct q2_file *file = open_source();
    cr_assert_eq(q2_file_size(file, &size, NULL), 0);
    /* Without the first there is no header. */
    for (uint64_t at = 512; at < size; at += 512) {
        salvage_faulty("out", Q2_DISK_QCOW2, at, 512);
        expect_clean("out", "after a bad sector");
        struct tally tally = read_tally("out.map.json");
        if (tally.bytes[Q2_SALVAGE_GUESS] + tally.bytes[Q2_SALVAGE_LIKELY] == 0)
            expect_rest_same("out", Q2_DISK_QCOW2, &tally);
    }
}

/* ---- interruptions ---- */

struct fuse {
    unsigned left;
};

static bool
burn(void *data)
{
    struct fuse *fuse = data;
    return fuse->left-- == 0;
}

static char *
read_all(const char *name)
{
    FILE *stream = fopen(in_folder(name), "r");
    char *text = NULL;
    size_t room = 0;
    cr_assert(stream);
    cr_assert_geq(getdelim(&text, &room, '\0', stream), 0);
    fclose(stream);
    return text;
}

static void
test_resume(enum q2_disk_format format, uint64_t checkpoint_bytes)
{
    struct q2_salvage_result result, whole;
    struct q2_error err = {0};
    struct q2_salvage_options options = {.format = format,
                                         .checkpoint_bytes = checkpoint_bytes,
                                         .threads = 1};
    unsigned stops = 0;
    build("image", plain);
    cr_assert_eq(salvage("whole", &options, &whole, &err), 0, "%s", err.message);
    Q2_AUTOFREE char *want = read_all("whole.map.json");
    for (unsigned n = 0;; n++) {
        struct fuse fuse = {.left = n};
        options.stop = burn;
        options.stop_data = &fuse;
        int rc = salvage("out", &options, &result, &err);
        if (rc == 0)
            break;
        cr_assert_eq(rc, Q2_ERR_STOPPED, "%s", err.message);
        options.stop = NULL;
        cr_assert_eq(salvage("out", &options, &result, &err), 0, "%s", err.message);
        cr_expect(result.resumed);
        cr_expect_arr_eq(result.bytes, whole.bytes, sizeof whole.bytes);
        expect_all_same("out", format, NULL, "resumed");
        Q2_AUTOFREE char *got = read_all("out.map.json");
        /* But for the names of the files, the maps are the same. */
        cr_expect_str_eq(strstr(got, "\"offset\""), strstr(want, "\"offset\""));
        if (format == Q2_DISK_QCOW2)
            expect_clean("out", "resumed");
        stops++;
        options.overwrite = true;
    }
    cr_expect_geq(stops, 6);
}

Test(salvage_damage, goes_on_with_a_raw_file)
{
    test_resume(Q2_DISK_RAW, 1);
    empty_folder();
    test_resume(Q2_DISK_RAW, 0);
}

Test(salvage_damage, goes_on_with_an_image)
{
    test_resume(Q2_DISK_QCOW2, 1);
    empty_folder();
    test_resume(Q2_DISK_QCOW2, 0);
}

Test(salvage_damage, does_not_go_on_with_another)
{
    struct q2_salvage_result result;
    struct q2_error err = {0};
    struct fuse fuse = {.left = 2};
    struct q2_salvage_options options = {.stop = burn, .stop_data = &fuse, .checkpoint_bytes = 1};
    build("image", plain);
    cr_assert_eq(salvage("out", &options, &result, &err), Q2_ERR_STOPPED);
    build("image", "size 3M\n");
    options.stop = NULL;
    cr_expect_eq(salvage("out", &options, &result, &err), Q2_ERR_EXISTS);
    options.restart = true;
    cr_expect_eq(salvage("out", &options, &result, &err), 0, "%s", err.message);
    expect_all_same("out", Q2_DISK_RAW, NULL, "begun anew");
}

/* ---- damaged images ---- */

enum { LOOKED_AT = 64 << 20, BLOCK = 4096 };

static uint8_t doubtful[LOOKED_AT / BLOCK]; /* blocks of the active disk */

static void
note_doubt(void *data, const struct q2_salvage_range *range)
{
    (void)data;
    if (range->map != 0 || range->state == Q2_SALVAGE_CERTAIN)
        return;
    for (uint64_t at = range->offset / BLOCK;
         at < LOOKED_AT / BLOCK && at * BLOCK < range->offset + range->length; at++)
        doubtful[at] = 1;
}

/* What strict reading reads, and what the map says is certain, is the same. */
static void
expect_certain_same(const char *what, struct q2_disk *strict, struct q2_disk *made)
{
    static char left[BLOCK], right[BLOCK];
    uint64_t size = q2_min(q2_disk_size(strict), q2_disk_size(made));
    memset(doubtful, 0, sizeof doubtful);
    cr_assert_eq(q2_salvage_read_map(in_folder("out.map.json"), NULL, note_doubt, NULL, NULL), 0);
    size = q2_min(size, LOOKED_AT);
    for (uint64_t at = 0; at < size; at += BLOCK) {
        size_t now = (size_t)q2_min(size - at, BLOCK);
        if (doubtful[at / BLOCK] || q2_disk_read(strict, at, left, now, NULL) < 0)
            continue;
        cr_assert_eq(q2_disk_read(made, at, right, now, NULL), 0, "%s", what);
        bool found_again = strstr(what, "orphan-") && q2_is_zero(left, now);
        if (found_again || memcmp(left, right, now) == 0)
            continue;
        cr_expect_fail("%s: differs at 0x%" PRIx64, what, at);
        return;
    }
}

/* Cases in which the repair rightly gives a guest range other bytes than strict reading does. */
static bool
is_mended(const char *name)
{
    static const char *const names[] = {"overlap-",    "backing-",
                                        "data-file",   "header-crypt",
                                        "compressed-", "crypto-",
                                        "luks",        "encrypt",
                                        "aes",         "l2-entry-into-refcount-table"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strstr(name, names[i]))
            return true;
    return false;
}

static bool
test_damaged(const char *name, const char *path)
{
    const struct q2_image_options strict_options = {.format = Q2_DISK_QCOW2};
    struct q2_salvage_result result = {0};
    struct q2_disk *strict = NULL;
    struct q2_error err = {0};
    build_from("image", path);
    uint64_t before = digest("image");
    int rc = salvage("out", &(struct q2_salvage_options){.format = Q2_DISK_QCOW2}, &result, &err);
    cr_expect_eq(digest("image"), before, "%s: the source has changed", name);
    if (q2_disk_open(in_folder("image"), &strict_options, &strict, NULL) < 0)
        strict = NULL;
    cr_expect(rc == 0 || !strict || is_mended(name), "%s: strict reading can, %s", name,
              err.message);
    if (rc == 0) {
        expect_clean("out", name);
        Q2_AUTODISK struct q2_disk *made = open_disk("out", Q2_DISK_QCOW2, NULL);
        if (strict && !is_mended(name))
            expect_certain_same(name, strict, made);
    }
    q2_disk_close(strict, NULL);
    return rc == 0;
}

/* Every fifth: fuzz/salvage has all of them, in memory. Huge ones have a benchmark. */
Test(salvage_damage, cases)
{
    char path[8192];
    struct dirent **entries;
    unsigned salvaged = 0;
    int count = scandir(source_path("tests/cases"), &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        snprintf(path, sizeof path, "%s/%s/recipe", source_path("tests/cases"), name);
        bool wanted = i % 5 == 0 && strncmp(name, "clean-", 6) != 0 && !strstr(name, "15t") &&
                      !strstr(name, "32m") && !strstr(name, "disk-of") && !strstr(name, "many") &&
                      !strstr(name, "65536") && access(path, F_OK) == 0;
        if (wanted)
            salvaged += test_damaged(name, path);
        if (wanted)
            empty_folder();
        free(entries[i]);
    }
    free(entries);
    cr_expect_geq(salvaged, 30, "%u", salvaged);
}

/* ---- arbitrary bytes ---- */

static uint64_t
next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

Test(salvage_damage, survives_arbitrary_bytes)
{
    struct q2_error err = {0};
    uint64_t random = 88172645463325252u;
    build("image", plain);
    Q2_AUTOFREE uint8_t *good = malloc(1 << 20), *bytes = malloc(1 << 20);
    {
        Q2_AUTOCLOSE struct q2_file *file = open_source();
        cr_assert_eq(q2_file_read_padded(file, 0, good, 1 << 20, NULL), 0);
    }
    for (unsigned round = 0; round < 30; round++) {
        size_t length = (size_t)(next_random(&random) % (1 << 20));
        memcpy(bytes, good, 1 << 20);
        /* From a few bytes of the tables to all of it. */
        size_t hits = round < 20 ? 1 + 2 * round : length / 8;
        for (size_t i = 0; i < hits && length > 8; i++) {
            size_t at =
                (size_t)(next_random(&random) % (round % 2 ? length : q2_min(length, 65536)));
            bytes[at] = (uint8_t)next_random(&random);
        }
        if (round % 3 == 0)
            q2_store_be32(bytes, Q2_MAGIC);
        unlink(in_folder("image"));
        Q2_AUTOCLOSE struct q2_file *file = NULL;
        cr_assert_eq(q2_file_open(in_folder("image"), Q2_OPEN_CREATE | Q2_OPEN_WRITE, &file, NULL),
                     0);
        cr_assert_eq(q2_file_write(file, 0, bytes, length + 1, NULL), 0);
        q2_file_close(Q2_STEAL(file));
        struct q2_salvage_result result;
        const struct q2_salvage_options options = {.format =
                                                       round % 2 ? Q2_DISK_RAW : Q2_DISK_QCOW2,
                                                   .overwrite = true,
                                                   .restart = true};
        if (salvage("out", &options, &result, &err) == 0)
            read_tally("out.map.json");
        empty_folder();
    }
}
