/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The survey: for each way in which a pointer can be wrong an image with one that is, and what
 * counts as lost. */

#include "repair/survey.h"
#include "tests/unit/repair_disks.h"

/* Host clusters: header, refcount table, refcount block, L1 table, L2 table, 64 of data; then the
 * second L2 table and 4 of data. */
#define TWO_TABLES "cluster-size 4K\nsize 4M\nwrite 0 256K random\nwrite 2M 16K random 2\n"
#define PACKED     "cluster-size 4K\nsize 1M\nwrite-compressed 0 64K text\nwrite 512K 8K random\n"
#define SHARED     TWO_TABLES "snapshot a\nwrite 0 4K random 3\n"
#define EXTENDED   "cluster-size 16K\nsize 1M\nextended-l2\nwrite 0 64K random\n"
enum { CLUSTER = 4096, L1_AT = 3 * CLUSTER, L2_AT = 4 * CLUSTER, DATA = 5, SECOND_L2 = 69 };

struct visit {
    struct q2_file *file;
    struct q2_scene *scene;
    struct q2_survey *survey;
};

static struct visit
survey_of(const char *image, const char *damage, bool entries)
{
    struct visit visit;
    struct q2_error err = {0};
    char *text = NULL;
    cr_assert_geq(asprintf(&text, "%s%s", image, damage), 0);
    visit.file = build_image(text);
    free(text);
    visit.scene = scene_on(visit.file, Q2_LEVEL_CERTAIN, false);
    cr_assert_eq(q2_survey_take(visit.scene, entries, &visit.survey, &err), 0, "%s", err.message);
    return visit;
}

static void
leave(struct visit *visit)
{
    q2_survey_free(visit->survey);
    q2_scene_close(visit->scene);
    q2_file_close(visit->file);
}

static uint64_t
lost(const struct visit *visit)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < visit->survey->clusters + 10; i++)
        count += q2_survey_lost(visit->survey, i);
    return count;
}

Test(repair_survey, nothing_is_suspect_in_sound_images)
{
    static const char *const images[] = {
        TWO_TABLES,
        PACKED,
        SHARED,
        EXTENDED,
        "version 2\ncluster-size 512\nsize 256K\nwrite 0 64K random\n",
        "cluster-size 4K\nsize 1M\nwrite 0 64K random\nbitmap b dirty 0 64K\nsnapshot s\n",
        "cluster-size 4K\nsize 1M\nrefcount-bits 1\nwrite 0 64K random\n",
    };
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        struct visit visit = survey_of(images[i], "", true);
        cr_expect_eq(visit.survey->suspect_count, 0, "image %zu", i);
        cr_expect_eq(lost(&visit), 0, "image %zu", i);
        cr_expect(visit.survey->counts_help, "image %zu", i);
        cr_expect(visit.survey->settled);
        leave(&visit);
    }
}

/* ---- suspicions ---- */

struct suspicion {
    const char *name, *image, *damage;
    unsigned why;
    uint64_t count; /* suspects */
    bool is_l1;
    uint32_t l1_index, l2_index; /* of the first */
};

static const struct suspicion suspicions[] = {
    {"reserved bit", TWO_TABLES, "l2[3] ^= 1 << 60\n", Q2_SUSPECT_RULE, 1, false, 0, 3},
    {"unaligned", TWO_TABLES, "l2[3] ^= 1 << 9\n", Q2_SUSPECT_RULE, 1, false, 0, 3},
    {"past the end", TWO_TABLES, "l2[3].offset = file.size\n", Q2_SUSPECT_PAST_END, 1, false, 0, 3},
    {"far past the end", TWO_TABLES, "l2[3].offset = 1P\n", Q2_SUSPECT_PAST_END, 1, false, 0, 3},
    {"both are", TWO_TABLES, "l2[3].offset = l2[2].offset\n", Q2_SUSPECT_SHARED, 2, false, 0, 2},
    {"all three are", TWO_TABLES, "l2[3].offset = l2[2].offset\nmap(2M).offset = l2[2].offset\n",
     Q2_SUSPECT_SHARED, 3, false, 0, 2},
    {"at the L1 table", TWO_TABLES, "l2[3].offset = offset(l1[0])\n", Q2_SUSPECT_METADATA, 1, false,
     0, 3},
    {"at the refcount table", TWO_TABLES, "l2[3].offset = offset(refcount_table)\n",
     Q2_SUSPECT_METADATA, 1, false, 0, 3},
    {"at a refcount block", TWO_TABLES, "l2[3].offset = offset(refcount_block[0])\n",
     Q2_SUSPECT_METADATA, 1, false, 0, 3},
    {"at what is not counted", TWO_TABLES, "refcount[9] = 0\n", Q2_SUSPECT_FREE, 1, false, 0, 4},
    {"compressed, past the end", PACKED, "l2[3].offset = 1G\n", Q2_SUSPECT_PAST_END, 1, false, 0,
     3},
    {"compressed, flag and COPIED", PACKED, "l2[3] ^= 1 << 63\n", Q2_SUSPECT_RULE, 1, false, 0, 3},
    {"subclusters", EXTENDED, "l2[2].zero_bits = 4\n", Q2_SUSPECT_RULE, 1, false, 0, 2},
    {"L1: reserved bit", TWO_TABLES, "l1[1] ^= 1\n", Q2_SUSPECT_RULE, 1, true, 1, 0},
    {"L1: past the end", TWO_TABLES, "l1[1].offset = 1G\n", Q2_SUSPECT_PAST_END, 1, true, 1, 0},
    {"L1: both are", TWO_TABLES, "l1[1].offset = l1[0].offset\n", Q2_SUSPECT_SHARED, 2, true, 0, 0},
    {"L1: at the refcount table", TWO_TABLES, "l1[1].offset = offset(refcount_table)\n",
     Q2_SUSPECT_METADATA, 1, true, 1, 0},
    {"L1: at data", TWO_TABLES, "l1[1].offset = map(2M).offset\n", Q2_SUSPECT_TARGET, 1, true, 1,
     0},
    {"L1: at garbage", TWO_TABLES, "fill offset(l2_table[1]) 4K random 5\n", Q2_SUSPECT_TARGET, 1,
     true, 1, 0},
};

Test(repair_survey, suspicions)
{
    for (size_t i = 0; i < sizeof suspicions / sizeof suspicions[0]; i++) {
        const struct suspicion *wanted = &suspicions[i];
        struct visit visit = survey_of(wanted->image, wanted->damage, true);
        const struct q2_survey *survey = visit.survey;
        cr_expect_eq(survey->suspect_count, wanted->count, "%s: %llu suspects", wanted->name,
                     (unsigned long long)survey->suspect_count);
        for (uint64_t k = 0; k < survey->suspect_count; k++) {
            const struct q2_suspect *suspect = &survey->suspects[k];
            cr_expect(suspect->why & wanted->why, "%s: %#x", wanted->name, suspect->why);
            cr_expect_eq(suspect->is_l1, wanted->is_l1, "%s", wanted->name);
            cr_expect_eq(suspect->map, 0);
            cr_expect_eq(suspect->entry.raw, word_at(visit.file, suspect->at), "%s", wanted->name);
            cr_expect(k == 0 || survey->suspects[k - 1].at < suspect->at, "%s: order",
                      wanted->name);
        }
        if (survey->suspect_count) {
            cr_expect_eq(survey->suspects[0].l1_index, wanted->l1_index, "%s", wanted->name);
            cr_expect_eq(survey->suspects[0].l2_index, wanted->l2_index, "%s", wanted->name);
        }
        leave(&visit);
    }
}

/* Both pointers to a table are suspect that is mapped as data too, but it remains a table. */
Test(repair_survey, an_entry_at_a_table)
{
    struct visit visit = survey_of(TWO_TABLES, "l2[3].offset = offset(l2_table[1])\n", true);
    cr_assert_eq(visit.survey->suspect_count, 2);
    cr_expect(visit.survey->suspects[0].is_l1);
    cr_expect_eq(visit.survey->suspects[0].why, Q2_SUSPECT_SHARED);
    cr_expect_eq(visit.survey->suspects[1].l2_index, 3);
    cr_expect(visit.survey->suspects[1].why & Q2_SUSPECT_METADATA);
    cr_expect(q2_bit_test(visit.survey->structures, SECOND_L2));
    cr_expect_not(q2_survey_lost(visit.survey, SECOND_L2 + 1));
    leave(&visit);
}

/* A sector of garbage is no reason to give up a table; its entries are suspect one by one. */
Test(repair_survey, a_sector_of_garbage_makes_no_garbage)
{
    struct visit visit = survey_of(TWO_TABLES, "fill offset(l2_table[0]) + 512 512 random\n", true);
    cr_expect_gt(visit.survey->suspect_count, 32);
    for (uint64_t i = 0; i < visit.survey->suspect_count; i++) {
        cr_expect_not(visit.survey->suspects[i].is_l1);
        cr_expect(visit.survey->suspects[i].l2_index - 64 < 64);
    }
    cr_expect(q2_bit_test(visit.survey->sound, DATA), "the rest still leads to its clusters");
    leave(&visit);
}

/* Without the entries only those of L1 tables are judged, but what is in use is known. */
Test(repair_survey, l1_entries_alone)
{
    struct visit visit =
        survey_of(TWO_TABLES, "l2[3].offset = 1P\nl1[1].offset = 1P\nl2[5].offset = 1P\n", false);
    cr_assert_eq(visit.survey->suspect_count, 1);
    cr_expect(visit.survey->suspects[0].is_l1);
    cr_expect_eq(visit.survey->suspects[0].guest, 2 << 20);
    cr_expect(q2_bit_test(visit.survey->sound, DATA));
    cr_expect_not(q2_bit_test(visit.survey->sound, DATA + 3), "a suspect does not count");
    cr_expect_not(q2_bit_test(visit.survey->sound, SECOND_L2));
    leave(&visit);
}

/* ---- what is lost ---- */

struct loss {
    const char *name, *image, *damage;
    uint64_t first, count; /* clusters */
    bool counts_help;
};

static const struct loss losses[] = {
    {"leaked", TWO_TABLES "leak 2 random\n", "", 74, 2, true},
    {"cleared", TWO_TABLES, "l2[3] = 0\n", DATA + 3, 1, true},
    {"led away", TWO_TABLES, "l2[3].offset = 1P\n", DATA + 3, 1, true},
    {"its table is gone", TWO_TABLES, "l1[1] = 0\n", SECOND_L2, 5, true},
    {"free", TWO_TABLES, "l2[3] = 0\nrefcount[8] = 0\n", 0, 0, true},
    {"not counted, as nothing is", TWO_TABLES,
     "l2[3] = 0\nzero-fill offset(refcount_block[0]) 4K\n", DATA + 3, 1, false},
    {"a hole, where nothing is counted", TWO_TABLES,
     "l2[3] = 0\nzero-fill offset(refcount_block[0]) 4K\ntruncate file.size + 64K\n", DATA + 3, 1,
     false},
};

Test(repair_survey, lost_clusters)
{
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        const struct loss *wanted = &losses[i];
        struct visit visit = survey_of(wanted->image, wanted->damage, true);
        cr_expect_eq(visit.survey->counts_help, wanted->counts_help, "%s", wanted->name);
        for (uint64_t k = 0; k < visit.survey->clusters + 10; k++)
            cr_expect_eq(q2_survey_lost(visit.survey, k), k - wanted->first < wanted->count,
                         "%s: cluster %llu", wanted->name, (unsigned long long)k);
        leave(&visit);
    }
}

/* What a table that several slots share maps is not lost. */
Test(repair_survey, a_shared_table_is_one)
{
    struct visit visit = survey_of(TWO_TABLES, "l1[1].offset = l1[0].offset\n", true);
    for (uint64_t i = 0; i < 64; i++)
        cr_expect_not(q2_survey_lost(visit.survey, DATA + i));
    cr_expect(q2_survey_lost(visit.survey, SECOND_L2));
    leave(&visit);
}

/* ---- refcount blocks ---- */

/* A refcount block that counts nothing right is none, and casts no doubt on what is there. */
Test(repair_survey, a_refcount_block_that_is_none)
{
    struct visit visit = survey_of(TWO_TABLES, "refcount_table[0] = l2[3].offset\n", true);
    cr_expect_not(q2_bit_test(visit.survey->structures, DATA + 3));
    cr_expect(q2_bit_test(visit.survey->sound, DATA + 3), "it is the guest's");
    cr_expect_not(q2_bit_test(visit.survey->structures, 1), "nor does its table lead to any");
    for (uint64_t i = 0; i < visit.survey->suspect_count; i++)
        cr_expect_not(visit.survey->suspects[i].why & Q2_SUSPECT_METADATA);
    leave(&visit);
    visit = survey_of(TWO_TABLES, "", true);
    cr_expect(q2_bit_test(visit.survey->structures, 1));
    cr_expect(q2_bit_test(visit.survey->structures, 2));
    leave(&visit);
}

/* A few wrong counts make no other thing of a block, and counts that are too high never do: what a
 * lost table led to is counted all the same. */
Test(repair_survey, a_refcount_block_with_faults)
{
    static const struct {
        const char *damage;
        bool credible;
    } turns[] = {
        {"refcount[9] = 0\nrefcount[11] = 0\n", true},
        {"zero-fill offset(refcount_block[0]) + 40 18\n", true}, /* nine of 74 */
        {"zero-fill offset(refcount_block[0]) + 40 20\n", false},
        {"fill offset(refcount_block[0]) + 40 20 0x40\n", false}, /* absurd */
        {"zero-fill offset(l2_table[0]) 512\n", true},
        {"l1[0] = 0\n", true},
        {"l1[0] = 0\nl1[1] = 0\n", true},
    };
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        struct visit visit = survey_of(TWO_TABLES, turns[i].damage, true);
        cr_expect_eq(q2_bit_test(visit.survey->structures, 2), turns[i].credible, "%s",
                     turns[i].damage);
        leave(&visit);
    }
}

/* ---- streams ---- */

Test(repair_survey, claimed_streams)
{
    struct visit visit = survey_of(PACKED, "l2[5] = 0\n", true);
    const struct q2_geometry *geometry = &visit.scene->check->geometry;
    cr_expect_eq(visit.survey->stream_count, 15);
    for (uint64_t i = 0; i < 16; i++) {
        uint64_t raw = word_at(visit.file, L2_AT + i * 8);
        uint64_t offset = q2_compressed_decode(geometry, raw).offset;
        if (i == 5)
            continue;
        cr_expect(q2_survey_claimed(visit.survey, offset, ((i + 1) % 16) * CLUSTER));
        cr_expect_not(q2_survey_claimed(visit.survey, offset, i * CLUSTER), "its own");
        cr_expect_not(q2_survey_claimed(visit.survey, offset + 1, 0));
    }
    leave(&visit);
    visit = survey_of(PACKED, "", true);
    uint64_t raw = word_at(visit.file, L2_AT + 5 * 8);
    cr_expect(q2_survey_claimed(visit.survey,
                                q2_compressed_decode(&visit.scene->check->geometry, raw).offset,
                                0));
    leave(&visit);
}

/* ---- what is asked of it ---- */

/* A change of an entry is one of all maps that have its table, one of an L1 entry only of its own.
 */
Test(repair_survey, changes_of_all_maps)
{
    struct visit visit = survey_of(SHARED, "map(2M + 4K).offset = 1P\n", true);
    cr_assert_eq(visit.survey->suspect_count, 1);
    struct q2_suspect suspect = visit.survey->suspects[0];
    q2_plan_begin(&visit.scene->plan, Q2_ACTION_MEND_L2_ENTRY, Q2_CERTAIN, suspect.at, "a test");
    q2_survey_change(visit.survey, &suspect, Q2_CHANGE_LOST, CLUSTER);
    q2_plan_end(&visit.scene->plan);
    for (uint32_t map = 0; map < 2; map++)
        cr_expect(q2_plan_names(&visit.scene->plan, map, (2 << 20) + CLUSTER, CLUSTER));
    cr_expect_eq(visit.scene->plan.actions[0].change_count, 2);
    suspect.is_l1 = true;
    q2_plan_begin(&visit.scene->plan, Q2_ACTION_MEND_L1_ENTRY, Q2_CERTAIN, suspect.at, "a test");
    q2_survey_change(visit.survey, &suspect, Q2_CHANGE_LOST, CLUSTER);
    q2_plan_end(&visit.scene->plan);
    cr_expect_eq(visit.scene->plan.actions[1].change_count, 1);
    leave(&visit);
}

Test(repair_survey, looks_at_tables)
{
    struct visit visit = survey_of(TWO_TABLES, "l2[63] = 0\nl2[2].offset = 1P\n", true);
    struct q2_table_look look;
    cr_assert_eq(q2_survey_look(visit.survey, L2_AT, &look, NULL), 0);
    cr_expect(look.readable);
    cr_expect_eq(look.mapped, 62);
    cr_expect_eq(look.faults, 1);
    cr_expect_eq(look.copied, 62);
    cr_expect_eq(look.lost, 0);
    cr_expect_eq(look.first, 0);
    cr_expect_eq(look.last, 62);
    cr_expect_eq(look.first_cluster, DATA);
    cr_expect_eq(look.last_cluster, DATA + 62);
    cr_expect(q2_table_credible(&look));
    cr_assert_eq(q2_survey_look(visit.survey, DATA * CLUSTER, &look, NULL), 0);
    cr_expect_not(q2_table_credible(&look), "data");
    cr_assert_eq(q2_survey_look(visit.survey, UINT64_C(1) << 40, &look, NULL), 0);
    cr_expect_not(q2_table_credible(&look), "nothing");
    leave(&visit);
    visit = survey_of(TWO_TABLES, "l1[1] = 0\n", true);
    cr_assert_eq(q2_survey_look(visit.survey, SECOND_L2 * CLUSTER, &look, NULL), 0);
    cr_expect_eq(look.lost, 4, "all that a lost table leads to");
    leave(&visit);
}

Test(repair_survey, distances)
{
    cr_expect_eq(q2_pointer_distance(0x5000, 0x5000, false), 0);
    cr_expect_eq(q2_pointer_distance(0x5000, 0x5000, true), 1);
    cr_expect_eq(q2_pointer_distance(0x5000 | Q2_ENTRY_COPIED, 0x5000, true), 0);
    cr_expect_eq(q2_pointer_distance(0x7000, 0x5000, false), 1);
    cr_expect_eq(q2_pointer_distance(0, 0x5000, true), 3);
}
