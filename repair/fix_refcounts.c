/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Refcounts. First they are made to agree with the references, which is certain: whatever the rest
 * of the image means, that is how often it is referred to. What nothing refers to keeps what is
 * recorded. Then, as a step of its own, what is provably leaked is freed. Freed clusters keep their
 * bytes. */

#include "repair/fix.h"

#include "core/base/checked.h"
#include "repair/refcount_plan.h"

#include <inttypes.h>

/* What is mended here, and by what. */
enum role { ROLE_STRUCTURE, ROLE_COUNT, ROLE_LOOSE };

static const struct {
    enum q2_problem problem;
    enum role role;
} roles[] = {
    {Q2_PROBLEM_HEADER_REFCOUNT_TABLE_UNALIGNED, ROLE_STRUCTURE},
    {Q2_PROBLEM_HEADER_REFCOUNT_TABLE_SIZE, ROLE_STRUCTURE},
    {Q2_PROBLEM_HEADER_REFCOUNT_TABLE_PAST_END, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_TABLE_UNREADABLE, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_TABLE_RESERVED, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_BLOCK_UNALIGNED, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_BLOCK_PAST_END, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_BLOCK_DUPLICATE, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_BLOCK_OVERLAP, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_BLOCK_UNREADABLE, ROLE_STRUCTURE},
    {Q2_PROBLEM_REFCOUNT_BEYOND_END, ROLE_COUNT},
    {Q2_PROBLEM_REFCOUNT_TOO_LOW, ROLE_COUNT},
    {Q2_PROBLEM_REFCOUNT_ZERO, ROLE_COUNT},
    {Q2_PROBLEM_REFCOUNT_TOO_HIGH, ROLE_COUNT},
    {Q2_PROBLEM_CLUSTER_LEAKED, ROLE_LOOSE},
    {Q2_PROBLEM_ORPHAN_L1_TABLE, ROLE_LOOSE},
    {Q2_PROBLEM_ORPHAN_L2_TABLE, ROLE_LOOSE},
};

static bool
has_role(enum q2_problem problem, enum role role)
{
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (roles[i].problem == problem)
            return roles[i].role == role;
    return false;
}

static uint64_t
faults(const struct q2_scene *scene, enum role role)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (roles[i].role == role)
            sum += q2_scene_count(scene, roles[i].problem);
    return sum;
}

/* Whether the refcount table shares a cluster with something else. */
static bool
is_table_overlap(const struct q2_finding *finding)
{
    return (finding->problem == Q2_PROBLEM_OVERLAP_METADATA ||
            finding->problem == Q2_PROBLEM_OVERLAP_METADATA_DATA) &&
           finding->has & Q2_HAS_OWNERS &&
           (finding->owners[0].kind == Q2_OWNER_REFCOUNT_TABLE ||
            finding->owners[1].kind == Q2_OWNER_REFCOUNT_TABLE);
}

static bool
any_table_overlap(const struct q2_scene *scene)
{
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++)
        if (is_table_overlap(q2_check_finding(scene->check, i)))
            return true;
    return false;
}

static void
answer(struct q2_scene *scene, const struct q2_finding *finding)
{
    q2_plan_answer(&scene->plan, finding->problem,
                   finding->has & Q2_HAS_HOST ? finding->host_offset : finding->target_offset,
                   finding->count);
}

/* ---- refcounts that agree with the references ---- */

static bool
is_mended(const struct q2_rebuild *rebuild, const struct q2_finding *finding)
{
    bool kept = rebuild->scene->keep_high || rebuild->scene->keep;
    if (is_table_overlap(finding))
        return rebuild->moved;
    if (finding->problem == Q2_PROBLEM_REFCOUNT_TOO_HIGH)
        return !kept;
    return has_role(finding->problem, ROLE_STRUCTURE) || has_role(finding->problem, ROLE_COUNT);
}

static bool
mends_anything(const struct q2_rebuild *rebuild)
{
    const struct q2_check *check = rebuild->scene->check;
    for (size_t i = 0; i < q2_check_finding_count(check); i++)
        if (is_mended(rebuild, q2_check_finding(check, i)))
            return true;
    return false;
}

static bool
begin(struct q2_rebuild *rebuild)
{
    struct q2_scene *scene = rebuild->scene;
    uint64_t blocks = 0, kept = 0;
    for (uint64_t i = 0; i < rebuild->entries; i++) {
        blocks += rebuild->table[i] != 0;
        kept += rebuild->table[i] && rebuild->table[i] == rebuild->old[i];
    }
    if (rebuild->doubtful) /* then moving it would make wrong data look right */
        return q2_plan_begin(&scene->plan, Q2_ACTION_REBUILD_REFCOUNTS, Q2_GUESS, 0,
                             "a refcount structure that is one by all appearances shares its "
                             "cluster: what else leads there is more likely to be wrong");
    if (rebuild->moved)
        return q2_plan_begin(&scene->plan, Q2_ACTION_REBUILD_REFCOUNTS, Q2_CERTAIN, 0,
                             "refcounts follow from the references, which have been counted; "
                             "%" PRIu64 " of %" PRIu64 " refcount blocks stay where they are",
                             kept, blocks);
    return q2_plan_begin(&scene->plan, Q2_ACTION_MEND_REFCOUNTS, Q2_CERTAIN, 0,
                         "refcounts follow from the references, which have been counted: %" PRIu64
                         " clusters have another",
                         faults(scene, ROLE_COUNT));
}

/* *ret_done: the refcounts are now as planned. */
static int
mend(struct q2_rebuild *rebuild, bool *ret_done, struct q2_error *err)
{
    struct q2_scene *scene = rebuild->scene;
    int rc = q2_rebuild_find_table(rebuild, err);
    if (rc == 0)
        rc = q2_rebuild_place(rebuild, err);
    if (rc < 0)
        return rc == Q2_ERR_NOSPACE ? 0 : rc;
    scene->keep_high = rebuild->doubtful || q2_loose_damage(scene);
    rebuild->keep_stored =
        q2_loose_pointers(scene) || q2_scene_count(scene, Q2_PROBLEM_ORPHAN_L2_TABLE) > 0;
    *ret_done = true;
    if (!rebuild->moved && !rebuild->doubtful && !faults(scene, ROLE_COUNT))
        return 0;
    if (!rebuild->moved && !rebuild->doubtful && !mends_anything(rebuild)) {
        *ret_done = false;
        return 0;
    }
    rc = q2_loose_find_stored(rebuild, err);
    if (rc < 0)
        return rc;
    *ret_done = begin(rebuild);
    scene->counts_doubtful = rebuild->doubtful && !*ret_done;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++)
        if (is_mended(rebuild, q2_check_finding(scene->check, i)))
            answer(scene, q2_check_finding(scene->check, i));
    if (*ret_done)
        rc = q2_rebuild_write(rebuild, err);
    q2_plan_end(&scene->plan);
    return rc;
}

/* ---- leaks ---- */

/* Let the proof know that what is held stays counted on purpose. */
static int
note_held(struct q2_rebuild *rebuild, const struct q2_loose *loose, struct q2_error *err)
{
    if (loose->damage) {
        rebuild->scene->keep_all = true;
        return 0;
    }
    for (uint64_t cluster = 0; cluster < loose->words * 64; cluster++) {
        int rc =
            q2_bit_test(loose->held, cluster) ? q2_scene_keep(rebuild->scene, cluster, 1, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Whether a finding is about loose clusters that are all held, or none. */
static bool
concerns(const struct q2_rebuild *rebuild, const struct q2_loose *loose,
         const struct q2_finding *finding, bool held)
{
    unsigned bits = rebuild->geometry->cluster_bits;
    if (!has_role(finding->problem, ROLE_LOOSE))
        return false;
    uint64_t first = finding->target_offset >> bits;
    uint64_t end = first + (finding->target_length >> bits);
    for (uint64_t cluster = first; cluster < end; cluster++)
        if (cluster / 64 >= loose->words || !q2_bit_test(loose->all, cluster) ||
            q2_bit_test(loose->held, cluster) != held)
            return false;
    return true;
}

static int
free_some(struct q2_rebuild *rebuild, const struct q2_loose *loose, bool held, bool permitted,
          struct q2_error *err)
{
    struct q2_scene *scene = rebuild->scene;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (concerns(rebuild, loose, finding, held))
            answer(scene, finding);
    }
    int rc = permitted ? q2_loose_free(rebuild, loose, held, err) : 0;
    q2_plan_end(&scene->plan);
    return rc;
}

static const char *
reason(const struct q2_loose *loose)
{
    if (loose->incomplete)
        return "something that refers to clusters is damaged or cannot be read, so that not all "
               "references are known";
    if (loose->damage)
        return "damage is left, and a damaged pointer may have meant them";
    return "they are tables that nothing leads to, and what only these lead to";
}

/* `early`: refcounts have just been mended, which may yet tell where something belongs. */
static int
free_loose(struct q2_rebuild *rebuild, bool early, struct q2_error *err)
{
    struct q2_scene *scene = rebuild->scene;
    enum q2_repair_level level = scene->plan.level;
    struct q2_loose loose;
    int rc = q2_loose_find(rebuild, &loose, err);
    if (rc < 0)
        return rc;
    bool high = level == Q2_LEVEL_LEAKS && !loose.damage &&
                q2_scene_count(scene, Q2_PROBLEM_REFCOUNT_TOO_HIGH);
    if (loose.count > loose.held_count || high) {
        bool permitted =
            q2_plan_begin(&scene->plan, Q2_ACTION_FREE_LEAKS, Q2_CERTAIN, 0,
                          "%" PRIu64 " %s: all references have been counted, and no damage is "
                          "left that could have hidden one",
                          loose.count - loose.held_count,
                          loose.count - loose.held_count == 1 ? "cluster that nothing refers to"
                                                              : "clusters that nothing refers to");
        rc = free_some(rebuild, &loose, false, permitted, err);
    }
    /* Where references are missing, not even a guess frees anything. */
    if (rc == 0 && loose.held_count && !((loose.incomplete || early) && level == Q2_LEVEL_GUESS)) {
        bool permitted =
            q2_plan_begin(&scene->plan, Q2_ACTION_FREE_ORPHANS, Q2_GUESS,
                          loose.first_held << rebuild->geometry->cluster_bits, "%" PRIu64 " %s: %s",
                          loose.held_count,
                          loose.held_count == 1 ? "cluster is counted that nothing refers to"
                                                : "clusters are counted that nothing refers to",
                          reason(&loose));
        rc = free_some(rebuild, &loose, true, permitted, err);
        if (rc == 0 && !permitted)
            rc = note_held(rebuild, &loose, err);
    } else if (rc == 0 && loose.held_count) {
        rc = note_held(rebuild, &loose, err);
    }
    q2_loose_destroy(rebuild, &loose);
    return rc;
}

/* ---- both ---- */

static int
start(struct q2_rebuild *rebuild, struct q2_scene *scene, struct q2_error *err)
{
    int rc = q2_rebuild_init(rebuild, scene, err);
    return rc < 0 ? rc : q2_rebuild_sift(rebuild, err);
}

int
q2_fix_refcounts(struct q2_scene *scene, struct q2_error *err)
{
    /* Refcounts of an unknown width cannot be read, nor does it help to write others: first the
     * header must say how wide they are. */
    scene->counts_doubtful = q2_scene_count(scene, Q2_PROBLEM_HEADER_REFCOUNT_ORDER) > 0;
    if (scene->counts_doubtful)
        return 0;
    uint64_t count = faults(scene, ROLE_STRUCTURE) + faults(scene, ROLE_COUNT);
    if (scene->check->usable & Q2_USABLE_REFCOUNTS && !count && !faults(scene, ROLE_LOOSE) &&
        !any_table_overlap(scene))
        return 0;
    struct q2_rebuild rebuild;
    bool done = false;
    uint64_t applied = q2_plan_applied(&scene->plan);
    int rc = start(&rebuild, scene, err);
    if (rc == 0 && scene->plan.level > Q2_LEVEL_LEAKS) {
        rc = mend(&rebuild, &done, err);
        if (rc == 0 && !done) { /* then leaks are freed only where all is as it should be */
            q2_rebuild_destroy(&rebuild);
            rc = start(&rebuild, scene, err);
        }
    }
    if (rc == 0)
        rc = free_loose(&rebuild, q2_plan_applied(&scene->plan) != applied, err);
    q2_rebuild_destroy(&rebuild);
    return rc;
}
