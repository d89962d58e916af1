/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The proof of repairs, on pairs of images: one as it was, and the same with an edit. Both are
 * recipes, the second being the first and some lines more; the bytes that differ are what a fix
 * would have written. Each rule has edits that it must let pass and edits that it must not. */

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/io/memory.h"
#include "corpus/recipe/recipe.h"
#include "repair/prove.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROVEN = -1 }; /* instead of an enum q2_objection_kind */

struct pair {
    const char *name;
    const char *image;
    const char *edit;
    int content;                          /* what the third rule alone says */
    int proof;                            /* what all say */
    enum q2_problem problem;              /* of an objection to findings */
    uint32_t map;                         /* of one to content, and where: */
    uint64_t offset, length;              /* a range that it lies in */
    void (*plan)(struct q2_scene *scene); /* says what actions there were; NULL: none */
    uint64_t blamed;                      /* index of the action + 1 */
    bool deep;
};

/* ---- making them ---- */

static struct q2_file *
build(const char *image, const char *edit)
{
    struct q2_error err = {0};
    struct q2_recipe *recipe = NULL;
    struct q2_file *file = NULL;
    char *text = NULL;
    int length = asprintf(&text, "%s%s", image, edit);
    cr_assert_geq(length, 0);
    cr_assert_eq(q2_file_new_memory("image", &file, &err), 0);
    cr_assert_eq(q2_recipe_parse("recipe", text, (size_t)length, &recipe, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_recipe_build(recipe, &(struct q2_recipe_target){.image = file}, &err), 0, "%s",
                 err.message);
    q2_recipe_free(recipe);
    free(text);
    return file;
}

static uint8_t *
slurp(struct q2_file *file, uint64_t *ret_size)
{
    cr_assert_eq(q2_file_size(file, ret_size, NULL), 0);
    uint8_t *bytes = malloc(*ret_size + 1);
    cr_assert_not_null(bytes);
    cr_assert_eq(q2_file_read(file, 0, bytes, *ret_size, NULL), 0);
    return bytes;
}

/* Write to the overlay what tells `target` from the base: byte by byte, as small as edits can be.
 */
static void
make_same(struct q2_scene *scene, struct q2_file *target)
{
    uint64_t old_size, new_size;
    Q2_AUTOFREE uint8_t *from = slurp(scene->base, &old_size);
    Q2_AUTOFREE uint8_t *to = slurp(target, &new_size);
    if (old_size != new_size)
        cr_assert_eq(q2_file_truncate(scene->file, new_size, NULL), 0);
    for (uint64_t at = 0, end; at < new_size; at = end + 1) {
        for (end = at; end < new_size && (end < old_size ? from[end] : 0) != to[end];)
            end++;
        if (end > at)
            cr_assert_eq(q2_file_write(scene->file, at, to + at, end - at, NULL), 0);
    }
    scene->edited = true;
}

static struct q2_scene *
stage(const struct q2_scene_options *options, struct q2_file *base, struct q2_file *target,
      void (*plan)(struct q2_scene *scene))
{
    struct q2_error err = {0};
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(base, options, Q2_LEVEL_GUESS, 0, &scene, &err), 0, "%s",
                 err.message);
    make_same(scene, target);
    if (plan)
        plan(scene);
    cr_assert_eq(scene->plan.failed, 0);
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
    return scene;
}

/* ---- asking ---- */

static void
expect(const struct pair *pair, const char *what, int rc, int expected,
       const struct q2_objection *objection)
{
    cr_expect_eq(rc, expected == PROVEN, "%s, %s: %d, %s", pair->name, what, rc, objection->text);
    if (rc != 0 || expected == PROVEN)
        return;
    cr_expect_eq((int)objection->kind, expected, "%s, %s: %s", pair->name, what, objection->text);
    if ((int)objection->kind != expected)
        return;
    bool is_finding = expected == Q2_OBJECTION_NEW_FINDING || expected == Q2_OBJECTION_NOT_MENDED;
    if (is_finding)
        cr_expect_eq(objection->problem, pair->problem, "%s, %s: %s", pair->name, what,
                     objection->text);
    else
        cr_expect_eq(objection->map, pair->map, "%s, %s: map %u", pair->name, what, objection->map);
    if (expected == Q2_OBJECTION_DATA_CHANGED)
        cr_expect(objection->length > 0 && objection->offset >= pair->offset &&
                      q2_range_inside(objection->offset - pair->offset, objection->length,
                                      pair->length),
                  "%s, %s: %s", pair->name, what, objection->text);
    cr_expect_eq(objection->action + 1, pair->blamed, "%s, %s: blames %llu", pair->name, what,
                 (unsigned long long)objection->action);
}

static void
prove(const struct pair *pair)
{
    struct q2_error err = {0};
    struct q2_objection objection = {0};
    const struct q2_scene_options options = {.threads = 1, .deep = pair->deep};
    Q2_AUTOCLOSE struct q2_file *base = build(pair->image, "");
    Q2_AUTOCLOSE struct q2_file *target = build(pair->image, pair->edit);
    struct q2_scene *scene = stage(&options, base, target, pair->plan);
    int rc = q2_prove(scene, &objection, &err);
    expect(pair, "proof", rc, pair->proof, &objection);
    objection = (struct q2_objection){0};
    rc = q2_prove_content(base, scene->before, scene->file, scene->check, &scene->plan, &objection,
                          &err);
    expect(pair, "content", rc, pair->content, &objection);
    /* The same of two files that no overlay connects. */
    objection = (struct q2_objection){0};
    rc =
        q2_prove_content(base, scene->before, target, scene->check, &scene->plan, &objection, &err);
    expect(pair, "content of files", rc, pair->content, &objection);
    q2_scene_close(scene);
}

static void
prove_all(const struct pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        prove(&pairs[i]);
}
#define PROVE(pairs) prove_all(pairs, sizeof(pairs) / sizeof((pairs)[0]))

#define CHANGED Q2_OBJECTION_DATA_CHANGED
#define FOUND   Q2_OBJECTION_NEW_FINDING

#define PAIR(pair_name, pair_image, pair_edit, of_content, of_all, ...)                   \
    {                                                                                     \
        .name = pair_name, .image = pair_image, .edit = pair_edit, .content = of_content, \
        .proof = of_all, ##__VA_ARGS__                                                    \
    }

/* ---- guest data ---- */

#define PLAIN "cluster-size 4K\nsize 4M\nwrite 0 64K 0x41\nwrite 2M 64K 0x42\n"

static void
names_second_cluster(struct q2_scene *scene)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 0, "a test");
    q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, 0, 4096, 4096);
    q2_plan_end(&scene->plan);
}

static void
names_it_in_a_snapshot(struct q2_scene *scene)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 0, "a test");
    q2_plan_change(&scene->plan, Q2_CHANGE_REPLACED, 1, 4096, 4096);
    q2_plan_end(&scene->plan);
}

Test(prove, guest_data)
{
    static const struct pair pairs[] = {
        PAIR("nothing", PLAIN, "", PROVEN, PROVEN),
        PAIR("a byte", PLAIN, "byte[l2[1].offset + 700] = 0\n", CHANGED, CHANGED, .offset = 4608,
             .length = 512),
        PAIR("the last byte", PLAIN, "byte[l2[15].offset + 4095] = 0\n", CHANGED, CHANGED,
             .offset = 65024, .length = 512),
        PAIR("the same byte", PLAIN "byte[l2[1].offset] = 0\n", "byte[l2[1].offset] = 0\n", PROVEN,
             PROVEN),
        PAIR("a named byte", PLAIN, "byte[l2[1].offset + 700] = 0\n", PROVEN, PROVEN,
             .plan = names_second_cluster),
        PAIR("named elsewhere", PLAIN, "byte[l2[2].offset] = 0\n", CHANGED, CHANGED, .offset = 8192,
             .length = 512, .plan = names_second_cluster),
        PAIR("named in a snapshot", PLAIN, "byte[l2[1].offset] = 0\n", CHANGED, CHANGED,
             .offset = 4096, .length = 512, .plan = names_it_in_a_snapshot),
        PAIR("half of it named", PLAIN, "fill l2[1].offset + 2048 4096 0\n", CHANGED, CHANGED,
             .offset = 8192, .length = 2048, .plan = names_second_cluster),
        PAIR("what nobody uses", PLAIN "leak 1 0x41\n", "byte[offset(leak[0])] = 0\n", PROVEN,
             PROVEN),
    };
    PROVE(pairs);
}

/* ---- entries ---- */

#define SPARE(byte) PLAIN "leak 1 " byte "\n"
#define MOVE        "refcount(l2[1].offset) = 0\nl2[1].offset = offset(leak[0])\n"

static void
writes_the_entry(struct q2_scene *scene)
{
    struct q2_plan *plan = &scene->plan;
    static const uint64_t tables[] = {0x4000, 0x15000}; /* of PLAIN */
    q2_plan_begin(plan, Q2_ACTION_MEND_HEADER, Q2_GUESS, 0, "a test");
    q2_plan_written(plan, Q2_OWNER_HEADER, 0, 104);
    q2_plan_end(plan);
    for (size_t i = 0; i < 2; i++) {
        q2_plan_begin(plan, Q2_ACTION_MATCH_L2_ENTRY, Q2_LIKELY, tables[i], "a test");
        q2_plan_written(plan, Q2_OWNER_L2_TABLE, tables[i] + 8, 8);
        q2_plan_end(plan);
    }
}

Test(prove, entries)
{
    static const struct pair pairs[] = {
        PAIR("to equal bytes", SPARE("0x41"), MOVE, PROVEN, PROVEN),
        PAIR("to other bytes", SPARE("0x43"), MOVE, CHANGED, CHANGED, .offset = 4096,
             .length = 4096),
        PAIR("blamed", SPARE("0x43"), MOVE, CHANGED, CHANGED, .offset = 4096, .length = 4096,
             .plan = writes_the_entry, .blamed = 2),
        PAIR("cleared", PLAIN, "refcount(l2[1].offset) = 0\nl2[1] = 0\n", CHANGED, CHANGED,
             .offset = 4096, .length = 4096),
        PAIR("cleared, of zeros", PLAIN "write 4K 4K 0\n",
             "refcount(l2[1].offset) = 0\nl2[1] = 0\n", PROVEN, PROVEN),
        PAIR("made zero", PLAIN, "l2[1].zero = 1\n", CHANGED, CHANGED, .offset = 4096,
             .length = 4096),
        PAIR("no COPIED flag", PLAIN "l2[1].copied = 0\n", "l2[1].copied = 1\n", PROVEN, PROVEN),
        PAIR("past the end", PLAIN "refcount(l2[1].offset) = 0\nl2[1].offset = 1G\n", "l2[1] = 1\n",
             PROVEN, PROVEN),
        PAIR("unaligned", PLAIN "refcount(l2[1].offset) = 0\nl2[1].offset |= 0x200\n",
             "l2[1] = 1\n", PROVEN, PROVEN),
        PAIR("reserved bits", PLAIN "l2[1].reserved = 2\n", "l2[1].reserved = 0\n", PROVEN, PROVEN),
        PAIR("reserved bits, cleared", PLAIN "l2[1].reserved = 2\n",
             "refcount(l2[1].offset) = 0\nl2[1] = 0\n", CHANGED, CHANGED, .offset = 4096,
             .length = 4096),
        PAIR("zeros, unallocated", PLAIN "zero 16K 4K\n", "map(16K) = 0\n", PROVEN, PROVEN),
        PAIR("a hole filled", SPARE("0x43"),
             "l2[16].offset = offset(leak[0])\n"
             "l2[16].copied = 1\n",
             CHANGED, CHANGED, .offset = 65536, .length = 4096),
        PAIR("a hole filled with zeros", SPARE("0"),
             "l2[16].offset = offset(leak[0])\n"
             "l2[16].copied = 1\n",
             PROVEN, PROVEN),
    };
    PROVE(pairs);
}

/* ---- compressed clusters ---- */

#define PACKED "cluster-size 4K\nsize 4M\nwrite-compressed 0 16K text\nwrite 1M 4K 0x42\n"

Test(prove, compressed)
{
    static const struct pair pairs[] = {
        PAIR("nothing", PACKED, "byte[l2[256].offset] = 0x42\n", PROVEN, PROVEN),
        PAIR("stream", PACKED, "fill l2[0].offset 64 0xff\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_BROKEN, .length = 4096),
        PAIR("moved stream", PACKED "leak 1 0\n",
             "copy l2[0].offset offset(leak[0]) 512\nl2[0].offset = offset(leak[0])\n"
             "refcount(offset(leak[0])) = 1\nrefcount(l2[1].offset) -= 1\n",
             PROVEN, PROVEN),
        PAIR("longer", PACKED "l2[3].sectors = 0\n", "l2[3].sectors = 1\n", PROVEN, PROVEN),
        PAIR("undecodable", PACKED "fill l2[0].offset 64 0xff\n",
             "l2[0] = 1\nrefcount(l2[1].offset) -= 1\n", PROVEN, PROVEN),
        PAIR("cleared", PACKED, "l2[0] = 1\nrefcount(l2[1].offset) -= 1\n", CHANGED, CHANGED,
             .length = 4096),
        PAIR("another method", PACKED,
             "header.compression_type = 1\nheader.incompatible_features = 8\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_BROKEN, .length = 4096),
    };
    PROVE(pairs);
}

/* ---- subclusters ---- */

#define PIECES                                                   \
    "cluster-size 16K\nextended-l2\nsize 4M\nwrite 0 64K 0x41\n" \
    "subclusters 64K alloc 0xf zero 0xf0 pattern 0x42\n"

Test(prove, subclusters)
{
    static const struct pair pairs[] = {
        PAIR("nothing", PIECES, "", PROVEN, PROVEN),
        PAIR("not allocated", PIECES, "map(16K).alloc_bits &= ~0x100 & 0xffffffff\n", CHANGED,
             CHANGED, .offset = 20480, .length = 512),
        PAIR("made zero", PIECES,
             "map(16K).alloc_bits &= ~0x100 & 0xffffffff\nmap(16K).zero_bits = 0x100\n", CHANGED,
             CHANGED, .offset = 20480, .length = 512),
        PAIR("zero as a hole", PIECES, "map(64K).zero_bits = 0x70\n", PROVEN, PROVEN),
        PAIR("zero as a hole over a backing file", "backing b format raw\n" PIECES,
             "map(64K).zero_bits = 0x70\n", CHANGED, CHANGED, .offset = 69120, .length = 512),
        PAIR("a hole as data", PIECES, "map(64K).alloc_bits = 0x10f\n", PROVEN, PROVEN),
        PAIR("contradiction", PIECES "map(64K).zero_bits = 0xf8\n", "map(64K).zero_bits = 0xf0\n",
             PROVEN, PROVEN),
        PAIR("a byte", PIECES, "byte[map(64K).offset + 512] = 0\n", CHANGED, CHANGED,
             .offset = 66048, .length = 512),
        PAIR("a byte that is not used", PIECES, "byte[map(64K).offset + 2048] = 1\n", PROVEN,
             PROVEN),
    };
    PROVE(pairs);
}

/* ---- snapshots ---- */

#define HISTORY                                                                   \
    "cluster-size 4K\nsize 4M\nwrite 0 64K 0x41\nsnapshot one vm-state 8K 0x51\n" \
    "write 0 32K 0x42\nwrite 2M 4K 0x43\nsnapshot two\nwrite 0 4K 0x44\n"

Test(prove, snapshots)
{
    static const struct pair pairs[] = {
        PAIR("nothing", HISTORY, "", PROVEN, PROVEN),
        PAIR("L1 entry", HISTORY, "snapshot[0].l1[0] = 0\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_ORPHAN_L2_TABLE, .map = 1, .length = 65536),
        PAIR("shared data", HISTORY, "byte[snapshot[0].l2[10].offset] = 0\n", CHANGED, CHANGED,
             .map = 0, .offset = 40960, .length = 512),
        PAIR("own data", HISTORY, "byte[snapshot[0].l2[0].offset] = 0\n", CHANGED, CHANGED,
             .map = 1, .length = 512),
        PAIR("VM state", HISTORY, "byte[snapshot[0].map(4M + 4096).offset + 7] = 0\n", CHANGED,
             CHANGED, .map = 1, .offset = 4198400, .length = 512),
        PAIR("gone", HISTORY, "header.nb_snapshots = 1\n", Q2_OBJECTION_SNAPSHOT_GONE, FOUND,
             .problem = Q2_PROBLEM_SNAPSHOT_TABLE_LOST, .map = 2),
        PAIR("gone, and its L1 table could not be read",
             HISTORY "snapshot[1].l1_table_offset |= 0x200\n", "header.nb_snapshots = 1\n", PROVEN,
             PROVEN),
        PAIR("another id", HISTORY, "snapshot[0].id = \"7\"\n", PROVEN, PROVEN),
        PAIR("ids changed", HISTORY, "snapshot[0].id = \"2\"\nsnapshot[1].id = \"1\"\n", CHANGED,
             CHANGED, .map = 1, .length = 32768),
        PAIR("L1 entry past the end", HISTORY "snapshot[0].l1[0].offset = 1G\n",
             "snapshot[0].l1[0] = 0\n", PROVEN, PROVEN),
    };
    PROVE(pairs);
}

/* ---- the header ---- */

Test(prove, header)
{
    static const struct pair pairs[] = {
        PAIR("a smaller disk", PLAIN, "header.size = 2M + 8K\n", CHANGED, CHANGED,
             .offset = (2 << 20) + 8192, .length = 56 << 10),
        PAIR("a smaller disk, of holes", PLAIN, "header.size = 3M\n", CHANGED, CHANGED,
             .offset = 3 << 20, .length = 1 << 20),
        PAIR("no cluster size", PLAIN "header.cluster_bits = 63\n", "header.cluster_bits = 12\n",
             PROVEN, PROVEN),
        PAIR("no cluster size any more", PLAIN, "header.cluster_bits = 63\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_HEADER_CLUSTER_BITS, .length = 4 << 20),
        PAIR("another cluster size", PLAIN, "header.cluster_bits = 13\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_HEADER_L1_UNALIGNED, .length = 8192),
        PAIR("the corrupt bit", PLAIN "header.incompatible_features = 2\n",
             "header.incompatible_features = 0\n", PROVEN, PROVEN),
        PAIR("a backing file", PLAIN,
             "header.backing_file_offset = 512\nheader.backing_file_size = 3\n"
             "fill 512 3 \"abc\"\n",
             CHANGED, CHANGED, .offset = 65536, .length = (2 << 20) - 65536),
        PAIR("another backing file", "backing base format raw\n" PLAIN,
             "backing_file_name[0] = 0x42\n", CHANGED, CHANGED, .offset = 65536,
             .length = (2 << 20) - 65536),
    };
    PROVE(pairs);
}

/* ---- data files and encryption ---- */

#define EXTERNAL "cluster-size 4K\nsize 4M\ndata-file d\nwrite 0 64K 0x41\nzero 32K 4K\n"
#define SEALED(method)                                                                          \
    "cluster-size 4K\nsize 4M\nencryption " method "\nwrite 0 64K 0x41\nleak 1 0x41\nzero 32K " \
    "4K\n"

Test(prove, elsewhere)
{
    static const struct pair pairs[] = {
        PAIR("data file", EXTERNAL, "", PROVEN, PROVEN),
        PAIR("data file, COPIED", EXTERNAL "l2[1].copied = 0\n", "l2[1].copied = 1\n", PROVEN,
             PROVEN),
        PAIR("data file, cleared", EXTERNAL, "l2[1] = 0\n", CHANGED, CHANGED, .offset = 4096,
             .length = 4096),
        PAIR("data file, misplaced", EXTERNAL "l2[1].offset = 1M\n", "l2[1].offset = 4K\n", PROVEN,
             PROVEN),
        PAIR("no data file any more", EXTERNAL, "header.incompatible_features = 0\n", CHANGED,
             FOUND, .problem = Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP, .length = 65536),
        PAIR("LUKS, moved", SEALED("luks"), MOVE, CHANGED, CHANGED, .offset = 4096, .length = 4096),
        PAIR("LUKS, in place", SEALED("luks"), "byte[l2[1].offset] = 0x41\n", PROVEN, PROVEN),
        PAIR("LUKS, zeros", SEALED("luks"), "refcount(l2[1].offset) = 0\nl2[1] = 1\n", CHANGED,
             CHANGED, .offset = 4096, .length = 4096),
        PAIR("AES, moved", SEALED("aes"), MOVE, PROVEN, PROVEN),
        PAIR("AES, a byte", SEALED("aes"), "byte[l2[1].offset] = 0\n", CHANGED, CHANGED,
             .offset = 4096, .length = 512),
        PAIR("AES, forgotten", SEALED("aes"), "header.crypt_method = 0\n", CHANGED, CHANGED,
             .length = 32768),
        PAIR("AES, unknown", SEALED("aes") "header.crypt_method = 9\n", "header.crypt_method = 1\n",
             PROVEN, PROVEN),
    };
    PROVE(pairs);
}

/* ---- findings ---- */

static void
keeps_all(struct q2_scene *scene)
{
    scene->keep_all = true;
}

static void
keeps_the_cluster(struct q2_scene *scene)
{
    cr_assert_eq(q2_scene_keep(scene, 6, 1, NULL), 0); /* of l2[1] in PLAIN */
}

static void
keeps_another(struct q2_scene *scene)
{
    cr_assert_eq(q2_scene_keep(scene, 7, 1, NULL), 0);
}

static void
mends_refcounts(struct q2_scene *scene)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_REFCOUNTS, Q2_CERTAIN, 0x2000, "a test");
    q2_plan_written(&scene->plan, Q2_OWNER_REFCOUNT_BLOCK, 0x2000, 0x1000);
    q2_plan_end(&scene->plan);
}

static void
names_the_range(struct q2_scene *scene, enum q2_problem answers, enum q2_change_kind kind)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_ATTACH_L2_TABLE, Q2_LIKELY, 0, "a test");
    q2_plan_answer(&scene->plan, answers, 0, 1);
    q2_plan_change(&scene->plan, kind, 0, 0, 2 << 20);
    q2_plan_end(&scene->plan);
}

static void
recovers(struct q2_scene *scene)
{
    names_the_range(scene, Q2_PROBLEM_ORPHAN_L2_TABLE, Q2_CHANGE_RECOVERED);
}

static void
recovers_what_is_harmless(struct q2_scene *scene)
{
    names_the_range(scene, Q2_PROBLEM_CLUSTER_LEAKED, Q2_CHANGE_RECOVERED);
}

static void
gives_up(struct q2_scene *scene)
{
    names_the_range(scene, Q2_PROBLEM_ORPHAN_L2_TABLE, Q2_CHANGE_LOST);
}

#define BEHIND "refcount(l2[1].offset) = 0\nl2[1].offset = 1G\n"

Test(prove, findings)
{
    static const struct pair pairs[] = {
        PAIR("refcount raised", PLAIN, "refcount(l2[1].offset) += 1\nl2[1].copied = 0\n", PROVEN,
             FOUND, .problem = Q2_PROBLEM_REFCOUNT_TOO_HIGH),
        PAIR("refcount raised, and blamed", PLAIN,
             "refcount(l2[1].offset) += 1\nl2[1].copied = 0\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_REFCOUNT_TOO_HIGH, .plan = mends_refcounts, .blamed = 1),
        PAIR("refcount lowered", PLAIN, "refcount(l2[1].offset) = 0\nl2[1].copied = 0\n", PROVEN,
             FOUND, .problem = Q2_PROBLEM_REFCOUNT_ZERO),
        PAIR("refcount corrected", PLAIN "refcount(l2[1].offset) = 3\nl2[1].copied = 0\n",
             "refcount(l2[1].offset) = 1\nl2[1].copied = 1\n", PROVEN, PROVEN),
        PAIR("refcount still wrong", PLAIN "refcount(l2[1].offset) = 3\nl2[1].copied = 0\n",
             "refcount(l2[1].offset) = 2\n", PROVEN, PROVEN),
        PAIR("COPIED flag", PLAIN, "l2[1].copied = 0\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_COPIED_CLEAR),
        PAIR("leak freed", PLAIN "leak 1 0x41\n", "refcount(offset(leak[0])) = 0\n", PROVEN,
             PROVEN),
        PAIR("leak made", PLAIN "refcount(l2[1].offset) = 1\nl2[1].offset = 1G\n", "l2[1] = 0\n",
             PROVEN, PROVEN),
        PAIR("leak next to a leak", PLAIN "leak 2 0x41\nrefcount[39] = 0\n", "refcount[39] = 1\n",
             PROVEN, FOUND, .problem = Q2_PROBLEM_CLUSTER_LEAKED),
        PAIR("leak", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED),
        PAIR("leak, all kept", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, PROVEN,
             .plan = keeps_all),
        PAIR("leak, kept", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, PROVEN,
             .plan = keeps_the_cluster),
        PAIR("leak, another kept", PLAIN BEHIND, "refcount[6] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED, .plan = keeps_another),
        PAIR("a third in the cluster of two", PLAIN "l2[1] = l2[2]\nl2[3].offset = 1G\n",
             "l2[3] = l2[2]\n", PROVEN, FOUND, .problem = Q2_PROBLEM_OVERLAP_DATA),
        PAIR("a note", PLAIN, "header.compatible_features = 0x80\n", PROVEN, PROVEN),
        PAIR("an error", PLAIN, "header.incompatible_features = 0x80\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN),
    };
    PROVE(pairs);
}

/* An L2 table that nothing led to has a fault of its own. */
#define LOST_TABLE    PLAIN BEHIND "l1[0] = 0\n"
#define BROKEN_STREAM PACKED "fill l2[0].offset 64 0xff\nl2[0] = 0\n"
#define ATTACH        "l1[0] = 0x8000000000004000\n"

Test(prove, light)
{
    static const struct pair pairs[] = {
        PAIR("attached", LOST_TABLE, ATTACH, CHANGED, CHANGED, .length = 65536),
        PAIR("attached and named", LOST_TABLE, ATTACH, PROVEN, PROVEN, .plan = recovers),
        PAIR("attached, another fault", LOST_TABLE, ATTACH "l2[2].reserved = 2\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_ENTRY_RESERVED, .plan = recovers, .blamed = 1),
        PAIR("attached in two places", PLAIN "l1[0] = 0\n", ATTACH "l1[1] = l1[0]\n", CHANGED,
             FOUND, .problem = Q2_PROBLEM_OVERLAP_DATA, .offset = 2 << 20, .length = 65536,
             .plan = recovers),
        PAIR("made in place", PLAIN, "l2[1].offset = 1G\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_ENTRY_PAST_END, .plan = recovers, .blamed = 1),
        PAIR("header mended", PLAIN BEHIND "header.l1_table_offset |= 512\n",
             "header.l1_table_offset = 12288\n", PROVEN, PROVEN),
        PAIR("header mended, refcounts not",
             PLAIN "refcount(l2[1].offset) = 0\nheader.l1_table_offset |= 512\n",
             "header.l1_table_offset = 12288\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_L2_COPIED_SET),
        PAIR("recovered, and broken", BROKEN_STREAM, "l2[0] = 0x4000000000005000\n", PROVEN, PROVEN,
             .plan = recovers, .deep = true),
        PAIR("for less than that", BROKEN_STREAM, "l2[0] = 0x4000000000005000\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_BROKEN, .plan = recovers_what_is_harmless,
             .blamed = 1, .deep = true),
        PAIR("recovered, with data of another", BROKEN_STREAM, "l2[0] = l2[1]\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_DUPLICATE, .plan = recovers, .blamed = 1,
             .deep = true),
        PAIR("lost, and broken", BROKEN_STREAM, "l2[0] = 0x4000000000005000\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_COMPRESSED_BROKEN, .plan = gives_up, .blamed = 1, .deep = true),
        PAIR("snapshot found", HISTORY "snapshot[1].extra_size = 8\nheader.nb_snapshots = 1\n",
             "header.nb_snapshots = 2\n", PROVEN, PROVEN),
    };
    PROVE(pairs);
}

/* ---- more findings than are listed ---- */

#define MANY(pattern)                                              \
    "cluster-size 4K\nsize 4M\nwrite 0 4K 0x41\nappend 16M 0x42\n" \
    "fill offset(refcount_block[0]) + 40 4040 \"" pattern "\"\n"

Test(prove, unlisted)
{
    static const struct pair pairs[] = {
        PAIR("as many", MANY("\\0\\x01\\0\\0"), "header.compatible_features = 1\n", PROVEN, PROVEN),
        PAIR("fewer", MANY("\\0\\x01\\0\\0"), "refcount[1500] = 0\nrefcount[1502] = 0\n", PROVEN,
             PROVEN),
        PAIR("others", MANY("\\0\\x01\\0\\0"),
             "refcount[1500] = 0\nrefcount[1501] = 0\nrefcount[1502] = 0\nrefcount[1503] = 1\n",
             PROVEN, PROVEN),
        PAIR("more", MANY("\\0\\x01\\0\\0"), "refcount[1505] = 1\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED),
    };
    PROVE(pairs);
}

/* ---- answers ---- */

static void
answers(struct q2_scene *scene, enum q2_problem problem, uint64_t offset)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_REFCOUNTS, Q2_CERTAIN, 0, "a test");
    q2_plan_end(&scene->plan);
    q2_plan_begin(&scene->plan, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, 0, "a test");
    q2_plan_answer(&scene->plan, problem, offset, 1);
    q2_plan_end(&scene->plan);
}

static void
answers_leak(struct q2_scene *scene)
{
    answers(scene, Q2_PROBLEM_CLUSTER_LEAKED, 0x27000);
}

static void
answers_entry(struct q2_scene *scene)
{
    answers(scene, Q2_PROBLEM_L2_ENTRY_RESERVED, 0x4008);
}

static void
answers_overlap(struct q2_scene *scene)
{
    answers(scene, Q2_PROBLEM_OVERLAP_DATA, 0x5000);
}

#define TWO_LEAKS PLAIN "leak 3 0x41\n"

Test(prove, answers)
{
    static const struct pair pairs[] = {
        PAIR("gone", TWO_LEAKS, "refcount[39] = 0\n", PROVEN, PROVEN, .plan = answers_leak),
        PAIR("others are gone", TWO_LEAKS, "refcount[38] = 0\n", PROVEN, Q2_OBJECTION_NOT_MENDED,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED, .plan = answers_leak, .blamed = 2),
        PAIR("entry", PLAIN "l2[1].reserved = 2\nl2[2].reserved = 2\n", "l2[1].reserved = 0\n",
             PROVEN, PROVEN, .plan = answers_entry),
        PAIR("another entry", PLAIN "l2[1].reserved = 2\nl2[2].reserved = 2\n",
             "l2[2].reserved = 0\n", PROVEN, Q2_OBJECTION_NOT_MENDED,
             .problem = Q2_PROBLEM_L2_ENTRY_RESERVED, .plan = answers_entry, .blamed = 2),
        PAIR("one of two in a cluster", PLAIN "l2[1] = l2[0]\nl2[2] = l2[0]\n",
             "l2[2].offset = 28672\n", PROVEN, PROVEN, .plan = answers_overlap),
        PAIR("none of two in a cluster", PLAIN "l2[1] = l2[0]\nl2[2] = l2[0]\n",
             "header.compatible_features = 1\n", PROVEN, Q2_OBJECTION_NOT_MENDED,
             .problem = Q2_PROBLEM_OVERLAP_DATA, .plan = answers_overlap, .blamed = 2),
    };
    PROVE(pairs);
}
