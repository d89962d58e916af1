/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The third rule of the proof: what could be read reads the same. */

#include "tests/unit/pairs.h"

/* ---- guest data ---- */

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
        PAIR("refcounts that a guest reads", PLAIN "l2[1].offset = offset(refcount_block[0])\n",
             "refcount[1500] = 1\n", CHANGED, CHANGED, .offset = 4096, .length = 4096),
        PAIR("cut off", PLAIN, "truncate file.size - 4K\n", CHANGED, FOUND,
             .problem = Q2_PROBLEM_L2_ENTRY_PAST_END, .offset = (2 << 20) + (60 << 10),
             .length = 4096),
        PAIR("what nobody uses", PLAIN "leak 1 0x41\n", "byte[offset(leak[0])] = 0\n", PROVEN,
             PROVEN),
    };
    PROVE(pairs);
}

/* ---- entries ---- */

#define SPARE(byte) PLAIN "leak 1 " byte "\n"
#define CUT         PLAIN "refcount(l2[1].offset) = 0\nl2[1].offset = file.size + 4K\n"
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
        PAIR("past the end, overtaken by it", CUT, "append 8K 0\nrefcount(l2[1].offset) = 1\n",
             CHANGED, CHANGED, .offset = 4096, .length = 4096),
        PAIR("past the end, overtaken and named", CUT, "append 8K 0\nrefcount(l2[1].offset) = 1\n",
             PROVEN, PROVEN, .plan = names_second_cluster),
        PAIR("past the end, not reached", CUT, "append 4K 0\n", PROVEN, PROVEN),
        PAIR("table past the end, overtaken by it",
             PLAIN "refcount(l1[0].offset) = 0\nl1[0].offset = file.size\n",
             "append 4K 0\nrefcount(l1[0].offset) = 1\n", CHANGED, CHANGED, .length = 2 << 20),
        PAIR("unaligned", PLAIN "refcount(l2[1].offset) = 0\nl2[1].offset |= 0x200\n",
             "l2[1] = 1\n", PROVEN, PROVEN),
        PAIR("reserved bits", PLAIN "l2[1].reserved = 2\n", "l2[1].reserved = 0\n", PROVEN, PROVEN),
        PAIR("reserved bits, cleared", PLAIN "l2[1].reserved = 2\n",
             "refcount(l2[1].offset) = 0\nl2[1] = 0\n", CHANGED, CHANGED, .offset = 4096,
             .length = 4096),
        PAIR("zero flag of version 2", "version 2\n" PLAIN "l2[1].zero = 1\n", "l2[1].zero = 0\n",
             PROVEN, PROVEN),
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

/* ---- what names hold ---- */

static void
names_all(struct q2_scene *scene, enum q2_change_kind kind)
{
    q2_plan_begin(&scene->plan, Q2_ACTION_CLEAR_L2_ENTRY, Q2_CERTAIN, 0, "a test");
    q2_plan_change(&scene->plan, kind, 0, 0, 4 << 20);
    q2_plan_end(&scene->plan);
}

static void
loses(struct q2_scene *scene)
{
    names_all(scene, Q2_CHANGE_LOST);
}

static void
recovers(struct q2_scene *scene)
{
    names_all(scene, Q2_CHANGE_RECOVERED);
}

static void
replaces(struct q2_scene *scene)
{
    names_all(scene, Q2_CHANGE_REPLACED);
}

/* The first L1 entry leads to text, of which one entry happens to lead somewhere. */
#define NO_TABLE                                                     \
    PLAIN "fill 0x6000 2K \"?\"\nu64[0x6008] = 0x8000000000005000\n" \
          "l1[0].offset = 0x6000\n"
#define OVER     "backing b format raw\n" PLAIN "refcount(l2[1].offset) = 0\n"
#define ODD      PLAIN "l2[1].reserved = 2\n"
#define TO_ZEROS "refcount(l2[1].offset) = 0\nl2[1] = 1\n"
#define SECOND   .offset = 4096, .length = 4096

/* What could be read is not lost, nor does it come back; what nobody could call data is. */
Test(prove, names)
{
    static const struct pair pairs[] = {
        PAIR("lost, with a reserved bit", ODD, TO_ZEROS, CHANGED, CHANGED, SECOND, .plan = loses,
             .blamed = 1),
        PAIR("recovered, with a reserved bit", ODD, TO_ZEROS, CHANGED, CHANGED, SECOND,
             .plan = recovers, .blamed = 1),
        PAIR("replaced, with a reserved bit", ODD, TO_ZEROS, PROVEN, PROVEN, .plan = replaces),
        PAIR("lost, of a structure", ODD "l2[1].offset = offset(refcount_block[0])\n",
             "l2[1] = 1\n", PROVEN, PROVEN, .plan = loses),
        PAIR("lost, by way of a structure", PLAIN "l1[0].offset = header.l1_table_offset\n",
             "l1[0] = 0\n", PROVEN, PROVEN, .plan = loses),
        PAIR("lost, by way of no table", NO_TABLE, "l1[0] = 0\n", PROVEN, FOUND,
             .problem = Q2_PROBLEM_CLUSTER_LEAKED, .plan = loses),
        PAIR("lost, and the backing file shows", OVER "l2[1].offset = 1G\n", "l2[1] = 0\n", CHANGED,
             CHANGED, SECOND, .plan = loses, .blamed = 1),
        PAIR("lost, and the backing file is hidden", OVER "l2[1].offset = 1G\n", "l2[1] = 1\n",
             PROVEN, PROVEN, .plan = loses),
        PAIR("recovered, to be the backing file's", OVER "l2[1].offset = 1G\n", "l2[1] = 0\n",
             PROVEN, PROVEN, .plan = recovers),
        PAIR("lost, of a hole", SPARE("0x43"),
             "l2[16].offset = offset(leak[0])\nl2[16].copied = 1\n", CHANGED, CHANGED,
             .offset = 65536, .length = 4096, .plan = loses, .blamed = 1),
        PAIR("recovered, of a hole", SPARE("0x43"),
             "l2[16].offset = offset(leak[0])\nl2[16].copied = 1\n", PROVEN, PROVEN,
             .plan = recovers),
    };
    PROVE(pairs);
}

/* ---- compressed clusters ---- */

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

/* ---- images made to cost ---- */

/* Thousands of L1 entries, and several snapshots, lead to a table; the edit makes all be looked at.
 */
#define COSTLY                                                                                \
    "cluster-size 2M\nsize 1M\nl1-entries 262144\nwrite 0 64K 0x41\nsnapshot a\nsnapshot b\n" \
    "header.l1_table_offset = 64M\nheader.l1_size = 4M\nheader.size = 1E\n"                   \
    "fill 64M 32M \"\\x80\\0\\0\\0\\0\\x80\\0\\0\"\n"

Test(prove, costly)
{
    struct q2_error err = {0};
    struct q2_objection objection = {0};
    const struct q2_scene_options options = {.threads = 1};
    Q2_AUTOCLOSE struct q2_file *base = build(COSTLY, "");
    struct q2_scene *scene = NULL;
    cr_assert_eq(q2_scene_open(base, &options, Q2_LEVEL_GUESS, 0, &scene, &err), 0, "%s",
                 err.message);
    cr_assert_eq(q2_file_write(scene->file, 0x800000, "", 1, NULL), 0);
    scene->edited = true;
    cr_assert_eq(q2_scene_recheck(scene, &err), 0, "%s", err.message);
    uint64_t used = atomic_load(&scene->budget.used);
    atomic_store(&scene->budget.peak, used);
    int rc = q2_prove_content(base, scene->before, scene->file, scene->check, &scene->plan,
                              &objection, &err);
    cr_assert_eq(rc, 0, "%s", err.message);
    cr_expect_eq(objection.kind, CHANGED);
    cr_expect(strstr(objection.text, "tables overlap so much"), "%s", objection.text);
    cr_expect_eq(atomic_load(&scene->budget.used), used);
    cr_expect_lt(atomic_load(&scene->budget.peak) - used, UINT64_C(32) << 20);
    q2_scene_close(scene);
}
