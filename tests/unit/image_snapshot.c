/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Taking, applying and deleting snapshots: by chance against a model in plain memory, with the
 * checker's opinion after each step, and what is refused, before anything has changed. */

#include "tests/unit/image_states.h"

#include "core/image/vmstate.h"
#include <time.h>

/* ---- by chance ---- */

enum { STATES = 6, DISK = 96 * 1024, STEPS = 40 };

struct model {
    uint8_t active[DISK];
    uint8_t snapshots[STATES][DISK];
    unsigned count;
};

static uint32_t
next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void
change_data(struct q2_image *image, struct model *model, uint32_t *seed)
{
    struct q2_error err = {0};
    uint64_t cluster = q2_image_geometry(image)->cluster_size;
    uint32_t offset = next_random(seed) % DISK;
    uint32_t length = next_random(seed) % 20000 % (DISK - offset) + 1;
    uint8_t bytes[DISK];
    switch (next_random(seed) % 4) {
    case 0:
        MUST(q2_image_zero(image, offset, length, Q2_ZERO_UNMAP, &err), err);
        memset(model->active + offset, 0, length);
        return;
    case 1:
        offset = offset / (uint32_t)cluster * (uint32_t)cluster;
        length = cluster < DISK - offset ? (uint32_t)cluster : DISK - offset;
        memset(bytes, (int)(next_random(seed) % 5), length);
        MUST(q2_image_write_compressed(image, offset, bytes, length, &err), err);
        break;
    default:
        for (uint32_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)next_random(seed);
        MUST(q2_image_write(image, offset, bytes, length, &err), err);
    }
    memcpy(model->active + offset, bytes, length);
}

static void
change_snapshots(struct q2_image *image, struct model *model, uint32_t *seed)
{
    struct q2_error err = {0};
    unsigned index = model->count ? next_random(seed) % model->count : 0;
    char name[16];
    switch (model->count ? next_random(seed) % 4 : 0) {
    case 0:
    case 1:
        if (model->count == STATES)
            return;
        snprintf(name, sizeof name, "%08x", next_random(seed));
        MUST(q2_snapshot_create(image, &(struct q2_snapshot_options){.name = name}, &err), err);
        memcpy(model->snapshots[model->count++], model->active, DISK);
        return;
    case 2:
        MUST(q2_snapshot_goto(image, index, &err), err);
        memcpy(model->active, model->snapshots[index], DISK);
        return;
    default:
        MUST(q2_snapshot_delete(image, index, &err), err);
        memmove(model->snapshots[index], model->snapshots[index + 1],
                (--model->count - index) * sizeof model->snapshots[0]);
    }
}

static void
live(const char *recipe, uint32_t seed)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(recipe);
    static struct model model;
    memset(&model, 0, sizeof model);
    for (unsigned step = 0; step < STEPS; step++) {
        char when[128];
        struct opened opened = must_open(file, Q2_IMAGE_WRITE);
        for (unsigned i = next_random(&seed) % 4; i > 0; i--)
            change_data(opened.image, &model, &seed);
        change_snapshots(opened.image, &model, &seed);
        for (unsigned i = next_random(&seed) % 3; i > 0; i--)
            change_data(opened.image, &model, &seed);
        if (next_random(&seed) % 2)
            change_snapshots(opened.image, &model, &seed);
        must_close(&opened);
        snprintf(when, sizeof when, "step %u of\n%s", step, recipe);
        expect_clean(file, when);
        expect_state(file, -1, model.active, DISK, when);
        for (unsigned i = 0; i < model.count; i++)
            expect_state(file, (int)i, model.snapshots[i], DISK, when);
    }
}

Test(snapshot, states_are_those_of_a_model_with_tiny_clusters)
{
    live("cluster-size 512\nsize 96K\n", 1);
    live("cluster-size 512\nsize 96K\nrefcount-bits 64\n", 2);
    live("cluster-size 512\nsize 96K\nversion 2\n", 3);
    live("cluster-size 512\nsize 96K\nl1-entries 70\n", 4);
}

Test(snapshot, states_are_those_of_a_model)
{
    live("cluster-size 4K\nsize 96K\nrefcount-bits 8\n", 5);
    live("cluster-size 64K\nsize 96K\ncompression zstd\nrefcount-bits 32\n", 6);
    live("cluster-size 4K\nsize 96K\nlazy-refcounts\n", 7);
}

Test(snapshot, states_are_those_of_a_model_with_subclusters)
{
    live("cluster-size 16K\nsize 96K\nextended-l2\n", 8);
    live("cluster-size 32K\nsize 96K\nextended-l2\n", 9);
}

/* ---- what entries say ---- */

static struct q2_snapshot_info
info_of(const struct q2_image *image, unsigned index)
{
    struct q2_snapshot_info info;
    q2_snapshot_info(image, index, &info);
    return info;
}

Test(snapshot, ids_go_on_from_the_highest_and_names_may_repeat)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nsnapshot a id=\"7\"\nsnapshot b id=\"words\"\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    struct q2_snapshot_options options = {.name = "a",
                                          .date_seconds = 1000000000,
                                          .date_nanoseconds = 5,
                                          .vm_clock_nanoseconds = UINT64_C(1) << 40};
    MUST(q2_snapshot_create(opened.image, &options, &err), err);
    must_close(&opened);
    opened = must_open(file, 0);
    cr_assert_eq(q2_snapshot_count(opened.image), 3);
    struct q2_snapshot_info info = info_of(opened.image, 2);
    cr_expect_str_eq(info.id, "8");
    cr_expect_str_eq(info.name, "a");
    cr_expect_eq(info.disk_size, 1 << 20);
    cr_expect_eq(info.date_seconds, 1000000000);
    cr_expect_eq(info.date_nanoseconds, 5);
    cr_expect_eq(info.vm_clock_nanoseconds, UINT64_C(1) << 40);
    cr_expect_eq(info.vm_state_size, 0);
    cr_expect_not(info.has_icount);
    must_close(&opened);
}

Test(snapshot, one_is_dated_now_unless_told_otherwise)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    time_t before = time(NULL);
    MUST(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = ""}, &err), err);
    cr_expect_geq(info_of(opened.image, 0).date_seconds, before);
    cr_expect_leq(info_of(opened.image, 0).date_seconds, time(NULL));
    cr_expect_str_eq(info_of(opened.image, 0).id, "1");
    cr_expect_str_eq(info_of(opened.image, 0).name, "");
    must_close(&opened);
}

Test(snapshot, they_are_found_by_id_before_name)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(
        "cluster-size 4K\nsize 1M\nsnapshot \"2\"\nsnapshot x\nsnapshot x\nsnapshot \"2\"\n");
    struct opened opened = must_open(file, 0);
    struct q2_error err = {0};
    unsigned index = 99;
    MUST(q2_snapshot_find(opened.image, "2", &index, &err), err);
    cr_expect_eq(index, 1);
    MUST(q2_snapshot_find(opened.image, "x", &index, &err), err);
    cr_expect_eq(index, 1);
    cr_expect_eq(q2_snapshot_find(opened.image, "y\n", &index, &err), Q2_ERR_NOT_FOUND);
    cr_expect_eq(index, 1);
    cr_expect_not_null(strstr(err.message, "'y\\x0a'"), "%s", err.message);
    must_close(&opened);
}

/* ---- size, VM state ---- */

Test(snapshot, applying_one_brings_back_the_size_of_its_disk)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nwrite 0 8K 1\nsnapshot small\nresize 9M\n"
                    "write 0 4K 2\nwrite 8M 4K 3\nsnapshot large\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    uint8_t byte = 0;
    MUST(q2_snapshot_goto(opened.image, 0, &err), err);
    cr_expect_eq(q2_image_size(opened.image), 1 << 20);
    MUST(q2_image_read(opened.image, 4095, &byte, 1, &err), err);
    cr_expect_eq(byte, 1);
    cr_expect_eq(q2_image_read(opened.image, 1 << 20, &byte, 1, &err), Q2_ERR_RANGE);
    MUST(q2_snapshot_goto(opened.image, 1, &err), err);
    MUST(q2_image_read(opened.image, 8 << 20, &byte, 1, &err), err);
    cr_expect_eq(byte, 3);
    must_close(&opened);
    opened = must_open(file, 0);
    cr_expect_eq(q2_image_size(opened.image), 9 << 20);
    must_close(&opened);
    expect_clean(file, "large again");
}

/* VM state that no snapshot has. */
static bool
is_beyond(enum q2_problem problem)
{
    return problem == Q2_PROBLEM_MAP_BEYOND_DISK;
}

Test(snapshot, the_vm_state_goes_with_the_snapshot)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 512\nsize 40K\nwrite 0 8K 1\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    uint8_t state[100000], got[100000], zeros[100000] = {0};
    for (size_t i = 0; i < sizeof state; i++)
        state[i] = (uint8_t)(i * 7 >> 3 | 1);
    MUST(q2_vmstate_write(opened.image, 0, state, 50001, &err), err);
    MUST(q2_vmstate_write(opened.image, 50001, state + 50001, sizeof state - 50001, &err), err);
    MUST(q2_vmstate_read(opened.image, 0, got, sizeof got, &err), err);
    cr_expect_arr_eq(got, state, sizeof state);
    struct q2_snapshot_options options = {.name = "vm", .vm_state_size = sizeof state};
    MUST(q2_snapshot_create(opened.image, &options, &err), err);
    cr_expect_eq(info_of(opened.image, 0).vm_state_size, sizeof state);
    MUST(q2_vmstate_read(opened.image, 0, got, sizeof got, &err), err);
    cr_expect_arr_eq(got, zeros, sizeof zeros);
    must_close(&opened);
    expect_clean(file, "taken");

    opened = must_open(file, Q2_IMAGE_WRITE);
    MUST(q2_snapshot_goto(opened.image, 0, &err), err);
    MUST(q2_vmstate_read(opened.image, 0, got, sizeof got, &err), err);
    cr_expect_arr_eq(got, state, sizeof state);
    MUST(q2_vmstate_write(opened.image, 3, "abc", 3, &err), err);
    MUST(q2_snapshot_delete(opened.image, 0, &err), err);
    MUST(q2_vmstate_read(opened.image, 0, got, 8, &err), err);
    cr_expect_eq(memcmp(got + 3, "abc", 3), 0);
    must_close(&opened);
    expect_findings(file, is_beyond, "deleted");

    opened = must_open(file, Q2_IMAGE_WRITE);
    MUST(q2_vmstate_discard(opened.image, &err), err);
    MUST(q2_vmstate_read(opened.image, 0, got, sizeof got, &err), err);
    cr_expect_arr_eq(got, zeros, sizeof zeros);
    must_close(&opened);
    expect_clean(file, "discarded");
}

Test(snapshot, vm_state_has_limits)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 512\nsize 40K\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    uint64_t most = UINT64_C(4194304) * 32768 - q2_vmstate_start(opened.image);
    cr_expect_eq(q2_vmstate_start(opened.image), 65536);
    cr_expect_eq(q2_vmstate_write(opened.image, most, "a", 1, &err), Q2_ERR_RANGE);
    cr_expect_eq(q2_vmstate_write(opened.image, UINT64_MAX - 1, "a", 1, &err), Q2_ERR_RANGE);
    cr_expect_eq(q2_vmstate_read(opened.image, UINT64_MAX, &(char){0}, 1, &err), Q2_ERR_RANGE);
    struct q2_snapshot_options options = {.name = "vm", .vm_state_size = 1};
    cr_expect_eq(q2_snapshot_create(opened.image, &options, &err), Q2_ERR_RANGE);
    must_close(&opened);
    expect_clean(file, "refused");
}

/* ---- what is refused ---- */

static void
expect_same_bytes(struct q2_file *a, struct q2_file *b)
{
    uint64_t a_size, b_size;
    cr_assert_eq(q2_file_size(a, &a_size, NULL), 0);
    cr_assert_eq(q2_file_size(b, &b_size, NULL), 0);
    cr_assert_eq(a_size, b_size);
    Q2_AUTOFREE uint8_t *a_bytes = malloc(a_size), *b_bytes = NULL;
    b_bytes = malloc(b_size);
    cr_assert_eq(q2_file_read(a, 0, a_bytes, a_size, NULL), 0);
    cr_assert_eq(q2_file_read(b, 0, b_bytes, b_size, NULL), 0);
    cr_assert_eq(memcmp(a_bytes, b_bytes, a_size), 0);
}

/* `operation`: 'c', 'a' or 'd', on snapshot 0. */
static void
expect_refused(const char *recipe, unsigned flags, char operation, int expected, const char *words)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image(recipe), *before = NULL;
    before = clone_file(file);
    struct opened opened = must_open(file, flags);
    struct q2_error err = {0};
    struct q2_snapshot_options options = {.name = "n"};
    int rc = operation == 'c'   ? q2_snapshot_create(opened.image, &options, &err)
             : operation == 'a' ? q2_snapshot_goto(opened.image, 0, &err)
                                : q2_snapshot_delete(opened.image, 0, &err);
    cr_expect_eq(rc, expected, "%d: %s", rc, err.message);
    cr_expect_not_null(strstr(err.message, words), "%s", err.message);
    /* Before closing, which may store bitmaps. */
    expect_same_bytes(file, before);
    must_close(&opened);
}

Test(snapshot, refcounts_that_would_overflow_are_refused_before_anything_changes)
{
    expect_refused("cluster-size 4K\nsize 1M\nrefcount-bits 1\nwrite 0 4K 1\n", Q2_IMAGE_WRITE, 'c',
                   Q2_ERR_RANGE, "maximum for 1 bits is 1");
    expect_refused("cluster-size 4K\nsize 1M\nrefcount-bits 2\nwrite 0 4K 1\nsnapshot a\n"
                   "snapshot b\n",
                   Q2_IMAGE_WRITE, 'c', Q2_ERR_RANGE, "maximum for 2 bits is 3");
    expect_refused("cluster-size 4K\nsize 1M\nrefcount-bits 2\nwrite 0 4K 1\nsnapshot a\n"
                   "snapshot b\n",
                   Q2_IMAGE_WRITE, 'a', Q2_ERR_RANGE, "maximum for 2 bits is 3");
    expect_refused("cluster-size 4K\nsize 1M\nwrite 0 8K 1\nrefcount(map(4K).offset) = 0xffff\n"
                   "map(4K).copied = 0\n",
                   Q2_IMAGE_WRITE, 'c', Q2_ERR_RANGE, "maximum for 16 bits is 65535");
}

Test(snapshot, refcounts_that_are_too_small_are_refused_before_anything_changes)
{
    static const char recipe[] = "cluster-size 4K\nsize 1M\nwrite 0 8K 1\nsnapshot a\n"
                                 "write 0 4K 2\nrefcount(snapshot[0].map(0).offset) = 0\n";
    expect_refused(recipe, Q2_IMAGE_WRITE, 'd', Q2_ERR_FORMAT, "has refcount 0");
}

Test(snapshot, broken_entries_are_refused_before_anything_changes)
{
    expect_refused("cluster-size 4K\nsize 1M\nwrite 0 8K 1\nmap(4K).reserved = 2\n", Q2_IMAGE_WRITE,
                   'c', Q2_ERR_FORMAT, "l2-entry-reserved");
    expect_refused("cluster-size 4K\nsize 1M\nwrite 0 8K 1\nsnapshot a\n"
                   "snapshot[0].l1[0].reserved = 1\n",
                   Q2_IMAGE_WRITE, 'a', Q2_ERR_FORMAT, "l1-entry-reserved");
}

/* No rule of the format forbids that: it is ours to say no. */
Test(snapshot, disks_of_part_sectors_are_not_applied)
{
    expect_refused("cluster-size 4K\nsize 1M\nwrite 0 8K 1\nsnapshot a\n"
                   "snapshot[0].disk_size = 1048575\n",
                   Q2_IMAGE_WRITE, 'a', Q2_ERR_UNSUPPORTED, "multiple of 512");
}

Test(snapshot, what_is_open_for_reading_stays_as_it_is)
{
    static const char recipe[] = "cluster-size 4K\nsize 1M\nsnapshot a\n";
    expect_refused(recipe, 0, 'c', Q2_ERR_READ_ONLY, "read only");
    expect_refused(recipe, 0, 'a', Q2_ERR_READ_ONLY, "read only");
    expect_refused(recipe, 0, 'd', Q2_ERR_READ_ONLY, "read only");
}

Test(snapshot, one_that_does_not_exist_is_not_found)
{
    expect_refused("cluster-size 4K\nsize 1M\n", Q2_IMAGE_WRITE, 'a', Q2_ERR_NOT_FOUND, "index 0");
    expect_refused("cluster-size 4K\nsize 1M\n", Q2_IMAGE_WRITE, 'd', Q2_ERR_NOT_FOUND, "index 0");
}

Test(snapshot, none_is_applied_to_an_image_with_bitmaps)
{
    Q2_AUTOCLOSE struct q2_file *file =
        build_image("cluster-size 4K\nsize 1M\nsnapshot a\nbitmap b auto\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    cr_expect_eq(q2_snapshot_goto(opened.image, 0, &err), Q2_ERR_UNSUPPORTED);
    cr_expect_not_null(strstr(err.message, "1 bitmaps"), "%s", err.message);
    MUST(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = "b"}, &err), err);
    MUST(q2_snapshot_delete(opened.image, 0, &err), err);
    must_close(&opened);
    expect_clean(file, "with a bitmap");
}

Test(snapshot, one_is_read_from_only_where_nothing_is_written)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\nsnapshot a\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    cr_expect_eq(q2_snapshot_load(opened.image, 0, &err), Q2_ERR_UNSUPPORTED);
    must_close(&opened);
    opened = must_open(file, 0);
    cr_expect_eq(q2_snapshot_load(opened.image, 1, &err), Q2_ERR_NOT_FOUND);
    must_close(&opened);
}

Test(snapshot, names_have_a_limit)
{
    Q2_AUTOCLOSE struct q2_file *file = build_image("cluster-size 4K\nsize 1M\n");
    struct opened opened = must_open(file, Q2_IMAGE_WRITE);
    struct q2_error err = {0};
    char name[65537];
    memset(name, 'n', 65536);
    name[65536] = 0;
    cr_expect_eq(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = name},
                                    &err),
                 Q2_ERR_RANGE);
    name[65535] = 0;
    MUST(q2_snapshot_create(opened.image, &(struct q2_snapshot_options){.name = name}, &err), err);
    must_close(&opened);
    opened = must_open(file, 0);
    cr_expect_str_eq(info_of(opened.image, 0).name, name);
    must_close(&opened);
    expect_clean(file, "a long name");
}
