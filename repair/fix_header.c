/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The header. Damage to it makes everything else look wrong, so it is mended first, and nothing
 * else is mended by a header that is known to be wrong. What can be right is searched for: one that
 * is close to what is there (header_search.h), and where nothing is left that could be close, one
 * that the structures in the file tell (header_carve.h). */

#include "core/base/checked.h"
#include "core/base/endian.h"
#include "repair/fix.h"
#include "repair/header_carve.h"
#include "repair/header_extensions.h"
#include "repair/header_search.h"
#include "repair/prove.h"

#include <stdio.h>
#include <string.h>

enum {
    MAX_ROUNDS = 4,     /* fields that are damaged at once */
    MAX_MAGIC_BITS = 2, /* that may be wrong in what still is a header */
    /* How many times fewer faults there have to be for a header that breaks no rule to be taken
     * for damaged. */
    CONVINCING = 16,
};

/* ---- whether to look at all ---- */

/* Whether anything is wrong with the image, not just odd. */
static bool
is_faulty(const struct q2_scene *scene)
{
    const struct q2_check *check = scene->check;
    return !check || !(check->usable & Q2_USABLE_GEOMETRY) || check->counts.corruptions ||
           check->counts.leaks || check->counts.check_errors;
}

/* Whether the check found anything that a damaged header could be the reason of. */
static bool
is_suspect(const struct q2_scene *scene)
{
    const struct q2_check *check = scene->check;
    return is_faulty(scene) || q2_scene_count(scene, Q2_PROBLEM_MAP_BEYOND_DISK) ||
           q2_scene_count(scene, Q2_PROBLEM_HEADER_BACKING_NAME_BYTES) ||
           q2_scene_count(scene, Q2_PROBLEM_EXTENSION_BACKING_FORMAT_UNUSED) ||
           q2_scene_count(scene, Q2_PROBLEM_EXTENSION_DATA_FILE_UNUSED) ||
           q2_scene_count(scene, Q2_PROBLEM_EXTENSION_NO_END) ||
           q2_scene_count(scene, Q2_PROBLEM_EXTENSION_FEATURE_TABLE) ||
           q2_scene_count(scene, Q2_PROBLEM_EXTENSION_UNKNOWN) ||
           q2_header_in_disguise(check->area, check->area_length);
}

/* ---- carrying it out ---- */

/* What the guest sees differently under another header. */
struct effect {
    bool active;    /* the disk */
    bool snapshots; /* which there are, and what they hold */
};

static struct effect
effect_of(const struct q2_header *old, const struct q2_header *new)
{
    const uint64_t matters =
        Q2_INCOMPATIBLE_DATA_FILE | Q2_INCOMPATIBLE_COMPRESSION | Q2_INCOMPATIBLE_EXTENDED_L2;
    bool all = old->version != new->version || old->cluster_bits != new->cluster_bits ||
               ((old->incompatible_features ^ new->incompatible_features) & matters) ||
               old->compression_type != new->compression_type || old->magic != new->magic ||
               old->crypt_method != new->crypt_method;
    return (struct effect){
        .active = all || old->size != new->size || old->l1_size != new->l1_size ||
                  old->l1_table_offset != new->l1_table_offset ||
                  old->backing_file_offset != new->backing_file_offset ||
                  old->backing_file_size != new->backing_file_size,
        .snapshots = all || old->nb_snapshots != new->nb_snapshots ||
                     old->snapshots_offset != new->snapshots_offset || old->size != new->size,
    };
}

static void
name_changes(struct q2_scene *scene, const struct q2_candidate *candidate,
             const struct q2_check *after)
{
    struct q2_header old, new;
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH] = {0};
    struct q2_error ignored;
    if (q2_file_read_padded(scene->file, 0, bytes, sizeof bytes, &ignored) < 0)
        memset(bytes, 0, sizeof bytes);
    q2_header_decode(bytes, sizeof bytes, &old);
    q2_header_decode(candidate->bytes, sizeof candidate->bytes, &new);
    struct effect effect = effect_of(&old, &new);
    bool readable = scene->check && (scene->check->usable & Q2_USABLE_L1);
    enum q2_change_kind kind = readable ? Q2_CHANGE_REPLACED : Q2_CHANGE_RECOVERED;
    for (uint32_t i = 0; after && i < after->map_count; i++) {
        /* Where the disk was larger, what was behind its end goes. */
        uint64_t limit = after->maps[i].limit;
        if (readable && i < scene->check->map_count)
            limit = q2_max(limit, scene->check->maps[i].limit);
        if (i == 0 ? effect.active : effect.snapshots)
            q2_plan_change(&scene->plan, kind, i, 0, limit);
    }
}

/* All findings of problems that are gone under the new header. */
static void
name_answers(struct q2_scene *scene, const struct q2_check *after)
{
    if (!scene->check || !after)
        return;
    for (size_t i = 0; i < q2_check_finding_count(scene->check); i++) {
        const struct q2_finding *finding = q2_check_finding(scene->check, i);
        if (q2_check_problem_count(after, finding->problem).count == 0)
            q2_plan_answer(&scene->plan, finding->problem, finding->host_offset, finding->count);
    }
}

static int
write_candidate(struct q2_scene *scene, const struct q2_trial *trial,
                const struct q2_candidate *candidate, struct q2_error *err)
{
    size_t length = (size_t)q2_min(sizeof candidate->bytes, trial->length), first = 0;
    int rc = 0;
    while (first < length && candidate->bytes[first] == trial->area[first])
        first++;
    while (length > first && candidate->bytes[length - 1] == trial->area[length - 1])
        length--;
    if (length > first)
        rc = q2_scene_write(scene, Q2_OWNER_HEADER, first, candidate->bytes + first, length - first,
                            err);
    if (rc == 0 && candidate->flip_mask && candidate->flip_at < trial->length) {
        uint8_t byte = trial->area[candidate->flip_at] ^ candidate->flip_mask;
        rc = q2_scene_write(scene, Q2_OWNER_HEADER, candidate->flip_at, &byte, 1, err);
    }
    return rc;
}

static bool
begin(struct q2_scene *scene, const struct q2_trial *trial, const struct q2_candidate *candidate,
      uint64_t faults_before, enum q2_confidence confidence)
{
    uint64_t at = candidate->at;
    bool extension = candidate->flip_mask && at == candidate->flip_at;
    uint8_t got = at < trial->length ? trial->area[at] : 0;
    uint8_t put = extension                      ? got ^ candidate->flip_mask
                  : at < sizeof candidate->bytes ? candidate->bytes[at]
                                                 : got;
    char before[40] = "nothing can be found in the image";
    if (faults_before < UINT64_C(1) << 32)
        snprintf(before, sizeof before, "there are %llu faults", (unsigned long long)faults_before);
    return q2_plan_begin(&scene->plan,
                         extension ? Q2_ACTION_MEND_EXTENSIONS : Q2_ACTION_MEND_HEADER, confidence,
                         at,
                         "with %s of %s changed (byte %llu: 0x%02x becomes 0x%02x) the tables and "
                         "refcounts that the header leads to agree with it and %llu faults are "
                         "left in the image; as it is, %s",
                         candidate->one_bit ? "a single bit" : "the value", q2_header_field_at(at),
                         (unsigned long long)at, got, put, (unsigned long long)candidate->faults,
                         before);
}

/* Whether only an extension changes. */
static bool
keeps_header(const struct q2_trial *trial, const struct q2_candidate *candidate)
{
    return memcmp(candidate->bytes, trial->area, sizeof candidate->bytes) == 0;
}

/* Whether only the place of the refcount table changes. */
static bool
moves_refcounts(const struct q2_trial *trial, const struct q2_candidate *candidate)
{
    struct q2_header old, new;
    q2_header_decode(trial->area, (size_t)trial->length, &old);
    q2_header_decode(candidate->bytes, sizeof candidate->bytes, &new);
    bool refcounts = old.refcount_table_offset != new.refcount_table_offset ||
                     old.refcount_table_clusters != new.refcount_table_clusters;
    new.refcount_table_offset = old.refcount_table_offset;
    new.refcount_table_clusters = old.refcount_table_clusters;
    return refcounts && memcmp(&old, &new, sizeof old) == 0;
}

/* Whether nothing else may be mended as long as the header is not. Refcounts can be made anew in
 * any case, and what is only odd does no harm. What an earlier round went on with, or mended, stays
 * good enough. */
static bool
must_stop(const struct q2_scene *scene, const struct q2_trial *trial,
          const struct q2_candidate *candidate)
{
    if (scene->ground || keeps_header(trial, candidate) || moves_refcounts(trial, candidate))
        return false;
    return !scene->check || scene->check->counts.corruptions || scene->check->counts.check_errors ||
           scene->check->counts.leaks;
}

static int
carry_out(struct q2_scene *scene, struct q2_trial *trial, struct q2_candidate *candidate,
          uint64_t faults_before, enum q2_confidence confidence, struct q2_error *err)
{
    struct q2_check *after = NULL;
    int rc = q2_trial_check(trial, candidate, &after, err);
    if (rc < 0)
        return rc;
    bool permitted = begin(scene, trial, candidate, faults_before, confidence);
    name_answers(scene, after);
    name_changes(scene, candidate, after);
    q2_check_free(after);
    if (permitted)
        rc = write_candidate(scene, trial, candidate, err);
    else
        scene->stop = must_stop(scene, trial, candidate);
    q2_plan_end(&scene->plan);
    return rc;
}

/* ---- what is close to what is there ---- */

/* Whether a header that breaks no rule is to be taken for damaged. */
static bool
is_convincing(const struct q2_candidate *base, const struct q2_candidate *best,
              enum q2_confidence *confidence)
{
    struct q2_header old, new;
    if (best->faults == 0)
        return true;
    /* Other damage may well hide from a header that says less. */
    q2_header_decode(base->bytes, sizeof base->bytes, &old);
    q2_header_decode(best->bytes, sizeof best->bytes, &new);
    if (old.crypt_method == Q2_CRYPT_LUKS && new.crypt_method != Q2_CRYPT_LUKS)
        return false;
    /* One that has nothing to show has no faults. */
    if ((old.size && !new.size) || (old.l1_size && !new.l1_size))
        return false;
    if (base->header_bad)
        return true;
    bool less =
        new.nb_snapshots < old.nb_snapshots || new.size < old.size || new.l1_size < old.l1_size;
    if (less || best->bad || best->faults > base->faults / CONVINCING)
        return false;
    if (*confidence == Q2_CERTAIN && !best->one_bit)
        *confidence = Q2_LIKELY;
    return true;
}

/* Change field after field as long as that makes things better. *ret_faults: before. */
static int
search_close(struct q2_trial *trial, struct q2_candidate *ret_best, bool *ret_found,
             enum q2_confidence *ret_confidence, uint64_t *ret_faults, struct q2_error *err)
{
    struct q2_candidate best;
    bool unsure = false;
    *ret_found = false;
    *ret_confidence = Q2_CERTAIN;
    q2_trial_identity(trial, &best);
    for (unsigned round = 0; round < MAX_ROUNDS; round++) {
        struct q2_search search;
        enum q2_confidence confidence;
        bool found;
        q2_search_init(&search, trial, &best);
        q2_search_offer_flips(&search);
        int rc = q2_search_decide(&search, &found, &best, &confidence, err);
        if (rc < 0)
            return rc;
        if (!found || !is_convincing(&search.base, &best, &confidence))
            break;
        if (round == 0)
            *ret_faults = search.base.faults;
        /* Halfway, nothing is clear but that it is better. */
        unsure |= confidence == Q2_GUESS;
        *ret_confidence = unsure ? Q2_GUESS : confidence;
        *ret_best = best;
        *ret_found = true;
        if (best.faults == 0 || (!best.header_bad && best.bad == 0))
            break;
    }
    return 0;
}

static void
ignore(void *data, const struct q2_violation *violation)
{
    (void)data;
    (void)violation;
}

/* What of the image can be read by this header: enum q2_usable. */
static unsigned
usable_by(const struct q2_trial *trial, const struct q2_candidate *candidate)
{
    struct q2_header header;
    const struct q2_sink quiet = {.report = ignore};
    q2_header_decode(candidate->bytes, sizeof candidate->bytes, &header);
    if (header.magic != Q2_MAGIC && !q2_header_plausible(&header, trial->file_size))
        return 0;
    return q2_header_validate(&header, trial->file_size, &quiet);
}

/* Whether this is a header at all, damaged or not. Out of zeros or garbage one could be made in any
 * case, of an image that has nothing in it. */
static bool
is_header(const struct q2_trial *trial)
{
    struct q2_header header;
    q2_header_decode(trial->area, (size_t)trial->length, &header);
    return __builtin_popcount(header.magic ^ Q2_MAGIC) <= MAX_MAGIC_BITS ||
           q2_header_plausible(&header, trial->file_size);
}

/* Whether the place of a table is lost. */
static bool
lacks_table(unsigned usable)
{
    unsigned needed = Q2_USABLE_L1 | Q2_USABLE_SNAPSHOTS;
    return (usable & Q2_USABLE_GEOMETRY) && (usable & needed) != needed;
}

/* Look for the tables themselves, where the fields do not say where they are, or lead to another
 * one than that which was found. `best` is what is close to the header, if it was `found`. */
static int
find_tables(struct q2_scene *scene, struct q2_trial *trial, const struct q2_candidate *best,
            bool found, unsigned usable, bool *ret_done, struct q2_error *err)
{
    struct q2_candidate identity;
    struct q2_rebuild rebuild = {.known = &identity};
    q2_trial_identity(trial, &identity);
    unsigned before = usable_by(trial, &identity);
    *ret_done = false;
    if (lacks_table(before)) {
        rebuild.readable = before & Q2_USABLE_L1;
        rebuild.rival = found ? best : NULL;
    } else if (lacks_table(usable)) {
        rebuild.known = best;
        rebuild.readable = usable & Q2_USABLE_L1;
    } else if (!found && q2_scene_count(scene, Q2_PROBLEM_ORPHAN_L1_TABLE)) {
        rebuild.readable = true;
    } else {
        return 0;
    }
    return q2_header_rebuild(scene, trial, &rebuild, ret_done, err);
}

static int
mend(struct q2_scene *scene, struct q2_trial *trial, struct q2_error *err)
{
    struct q2_candidate best;
    enum q2_confidence confidence;
    uint64_t faults = 0;
    bool found, done;
    if (!is_header(trial))
        return q2_header_rebuild(scene, trial, &(struct q2_rebuild){.known = NULL}, &done, err);
    int rc = search_close(trial, &best, &found, &confidence, &faults, err);
    if (rc < 0)
        return rc;
    /* What is only wrong with extensions can be told better one by one, and an image that is only
     * odd is nothing to guess at. */
    found = found && !(confidence == Q2_GUESS && (keeps_header(trial, &best) || !is_faulty(scene)));
    /* Nor is the place of refcounts, which follow from the references. To count by a wrong one
     * takes away what may tell where the other tables are. */
    found = found && !(confidence == Q2_GUESS && moves_refcounts(trial, &best));
    if (!found)
        q2_trial_identity(trial, &best);
    unsigned usable = usable_by(trial, &best);
    if (!(usable & Q2_USABLE_GEOMETRY))
        return q2_header_rebuild(scene, trial, &(struct q2_rebuild){.known = NULL}, &done, err);
    if (!found || confidence != Q2_CERTAIN || lacks_table(usable)) {
        rc = find_tables(scene, trial, &best, found, usable, &done, err);
        if (rc < 0 || done)
            return rc;
    }
    return found ? carry_out(scene, trial, &best, faults, confidence, err) : 0;
}

/* A feature that nobody here knows may change the meaning of everything. */
static bool
has_unknown_feature(const struct q2_scene *scene)
{
    return q2_scene_count(scene, Q2_PROBLEM_HEADER_INCOMPATIBLE_UNKNOWN) > 0;
}

static bool
has_mended(const struct q2_plan *plan)
{
    bool found = false;
    for (uint64_t i = 0; i < plan->count; i++)
        found |= plan->actions[i].applied && plan->actions[i].change_count &&
                 plan->actions[i].kind == Q2_ACTION_MEND_HEADER;
    return found;
}

/* Another header changes whole maps, and the proof must let it; but nothing that is done besides
 * should hide behind that. So what stands on its own feet ends the round, with all that is counted
 * as it is, and what is left is held against the image as it reads by its new header. */
static int
end_round(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_objection objection;
    struct q2_error ignored;
    if (!has_mended(&scene->plan) || scene->keep_all)
        return 0;
    int rc = q2_scene_recheck(scene, err);
    if (rc < 0 || !is_faulty(scene))
        return rc;
    scene->keep_all = true;
    scene->stop = q2_prove(scene, &objection, &ignored) > 0;
    scene->keep_all = scene->stop;
    return 0;
}

int
q2_fix_header(struct q2_scene *scene, struct q2_error *err)
{
    struct q2_trial trial;
    if (!is_suspect(scene))
        return 0;
    int rc = q2_trial_init(&trial, scene, err);
    if (rc < 0)
        return rc;
    if (trial.file_size >= Q2_HEADER_KNOWN_LENGTH)
        rc = mend(scene, &trial, err);
    q2_trial_destroy(&trial);
    if (rc == 0)
        rc = q2_scene_recheck(scene, err);
    if (rc < 0 || scene->stop || !scene->check || !(scene->check->usable & Q2_USABLE_GEOMETRY))
        return rc;
    if (has_unknown_feature(scene))
        scene->stop = true;
    if (!scene->stop)
        rc = q2_header_fix_extensions(scene, err);
    return rc < 0 || scene->stop ? rc : end_round(scene, err);
}
