/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Entries that a flipped bit changed, and references that refcounts say are missing. */

#include "core/base/checked.h"
#include "repair/place.h"

enum {
    FAR = 64,             /* more than any distance that counts */
    MAX_COMPARED = 4096,  /* lost tables that each damaged entry is compared with */
    MAX_SUSPECTS = 65536, /* damaged entries that are explained one by one */
};

/* What a damaged entry may have been, so far. */
struct choice {
    const struct q2_suspect *suspect;
    uint64_t table;          /* the best so far; 0: none */
    struct q2_carved *found; /* NULL where it is no lost table */
    unsigned distance;
    int score;
    bool tie;     /* another one is as good */
    bool missing; /* the recorded refcount of the table has room for it */
};

static unsigned
distance(uint64_t raw, uint64_t offset)
{
    return q2_pointer_distance(raw & ~Q2_ENTRY_COPIED, offset, false);
}

/* Whether refcounts have room for one more reference to a table, from a damaged entry. One that
 * leads there but for bits beside the offset has been counted as one. */
static bool
is_missing(struct q2_slots *slots, const struct q2_suspect *suspect, uint64_t offset)
{
    uint64_t cluster = offset >> slots->scene->check->geometry.cluster_bits;
    bool counted = q2_entry_offset(suspect->entry.raw) == offset;
    return slots->survey->counts_help &&
           q2_survey_refcount(slots->survey, &slots->reader, cluster) + counted >
               q2_slots_references(slots, cluster);
}

static int
consider(struct q2_placing *placing, struct choice *choice, uint64_t offset,
         struct q2_carved *found, struct q2_error *err)
{
    const struct q2_suspect *suspect = choice->suspect;
    unsigned bits = distance(suspect->entry.raw, offset);
    bool missing = found || is_missing(placing->slots, suspect, offset);
    struct q2_table_facts facts;
    int score = 0;
    if (offset == choice->table || bits > 2)
        return 0;
    int rc = q2_table_facts(placing->carving, offset, &facts, err);
    if (rc == 0)
        rc = q2_place_score(placing, offset, &facts, suspect->map, suspect->l1_index, &score, err);
    if (rc < 0)
        return rc;
    bool closer = bits < choice->distance || (bits == choice->distance && score > choice->score);
    bool same = bits == choice->distance && score == choice->score;
    if (choice->table == 0 || closer) {
        /* A rival at the same distance is one, even if its neighbours speak against it. */
        *choice = (struct choice){.suspect = suspect,
                                  .table = offset,
                                  .found = found,
                                  .distance = bits,
                                  .score = score,
                                  .missing = missing,
                                  .tie = choice->table && bits == choice->distance && score < 4};
    } else if (same || (bits == choice->distance && choice->score < 4)) {
        choice->tie = true;
    }
    return 0;
}

static bool
may_be(const struct q2_placing *placing, const struct q2_carved *table,
       const struct q2_suspect *suspect)
{
    return table->like_l2 && !table->is_l1 && !table->is_data && !table->placed &&
           (table->home == Q2_NO_SLOT || table->home == suspect->l1_index) &&
           q2_table_fits(placing, &table->facts, suspect->map, suspect->l1_index);
}

/* Whether nothing is left of the offset. Every power of two is one bit away from that. */
static bool
is_blank(const struct q2_suspect *suspect)
{
    return q2_entry_offset(suspect->entry.raw) == 0;
}

/* Whether a damaged entry and a lost table are the only ones that may belong together: no other
 * table may go where the entry is, and no other damaged entry may have led to it. */
static bool
are_alone(struct q2_placing *placing, const struct q2_suspect *suspect)
{
    const struct q2_slots *slots = placing->slots;
    const struct q2_survey *survey = slots->survey;
    const struct q2_carving *carving = placing->carving;
    uint64_t tables = 0;
    if (carving->dropped || survey->dropped ||
        !q2_placing_spend(placing, carving->count + survey->suspect_count))
        return false;
    for (uint64_t i = 0; i < carving->count; i++)
        tables += may_be(placing, &carving->tables[i], suspect);
    for (uint64_t i = 0; i < survey->suspect_count; i++) {
        const struct q2_suspect *other = &survey->suspects[i];
        if (other != suspect && other->is_l1 &&
            q2_slot_open(&slots->maps[other->map], other->l1_index))
            return false;
    }
    return tables == 1;
}

static int
consider_lost(struct q2_placing *placing, struct choice *choice, struct q2_error *err)
{
    const struct q2_geometry *geometry = &placing->slots->scene->check->geometry;
    struct q2_carving *carving = placing->carving;
    const struct q2_suspect *suspect = choice->suspect;
    int rc = 0;
    for (uint64_t i = 0; i < carving->count && carving->count <= MAX_COMPARED && rc == 0; i++)
        if (distance(suspect->entry.raw, carving->tables[i].offset) <= 2 &&
            may_be(placing, &carving->tables[i], suspect))
            rc = consider(placing, choice, carving->tables[i].offset, &carving->tables[i], err);
    uint64_t raw = suspect->entry.raw & Q2_ENTRY_OFFSET;
    for (unsigned bit = 8; carving->count > MAX_COMPARED && bit < 56 && rc == 0; bit++) {
        uint64_t offset = bit == 8 ? raw & ~(geometry->cluster_size - 1) : raw ^ UINT64_C(1) << bit;
        struct q2_carved *table = q2_carved_at(carving, offset);
        if (table && may_be(placing, table, suspect))
            rc = consider(placing, choice, offset, table, err);
    }
    return rc;
}

static int
consider_other_maps(struct q2_placing *placing, struct choice *choice, struct q2_error *err)
{
    const struct q2_suspect *suspect = choice->suspect;
    int rc = 0;
    for (uint32_t m = 0; m < placing->slots->map_count && rc == 0; m++) {
        const struct q2_slot_map *map = &placing->slots->maps[m];
        uint64_t slot = suspect->l1_index;
        if (m != suspect->map && map->raw && slot < map->size && map->state[slot] == Q2_SLOT_SOUND)
            rc = consider(placing, choice, q2_entry_offset(map->raw[slot]), NULL, err);
    }
    return rc;
}

/* The table that the entry leads to once its wrong bits are cleared, where that maps nothing and so
 * is not among those that were found. */
static int
consider_cleared(struct q2_placing *placing, struct choice *choice, struct q2_error *err)
{
    const struct q2_geometry *geometry = &placing->slots->scene->check->geometry;
    uint64_t offset = q2_entry_offset(choice->suspect->entry.raw) & ~(geometry->cluster_size - 1);
    struct q2_table_look look;
    if (!(choice->suspect->why & Q2_SUSPECT_RULE) || offset == 0 ||
        q2_carved_at(placing->carving, offset) || !placing->slots->survey->counts_help ||
        !q2_survey_lost(placing->slots->survey, offset >> geometry->cluster_bits))
        return 0;
    int rc = q2_survey_look(placing->slots->survey, offset, &look, err);
    if (rc < 0 || !look.readable || look.faults)
        return rc;
    return consider(placing, choice, offset, NULL, err);
}

static bool
maps_cluster(struct q2_carving *carving, uint64_t table, uint64_t cluster)
{
    struct q2_check *check = carving->slots->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    if (q2_file_read_padded(check->file, table, carving->buffer, geometry->cluster_size, NULL) < 0)
        return false;
    for (uint64_t i = 0; i < geometry->l2_entries; i++)
        if (q2_entry_offset(q2_l2_load(geometry, carving->buffer, i).raw) ==
            cluster << geometry->cluster_bits)
            return true;
    return false;
}

/* Whether the entry leads to a cluster that is counted, and that nothing else has, not even the
 * lost table: then it is the table there that is damaged, and not the entry. */
static bool
has_its_own(const struct q2_placing *placing, const struct choice *choice)
{
    const struct q2_survey *survey = placing->slots->survey;
    const struct q2_geometry *geometry = &survey->scene->check->geometry;
    const struct q2_suspect *suspect = choice->suspect;
    uint64_t cluster = q2_entry_offset(suspect->entry.raw) >> geometry->cluster_bits;
    return !(suspect->why & (Q2_SUSPECT_RULE | Q2_SUSPECT_PAST_END | Q2_SUSPECT_SHARED)) &&
           survey->counts_help && q2_survey_lost(survey, cluster) &&
           !(choice->found && maps_cluster(placing->carving, choice->table, cluster));
}

/* Whether the entry leads to the table, but for bits that no entry has. */
static bool
is_but_for_odd_bits(const struct q2_placing *placing, const struct choice *choice)
{
    uint64_t size = placing->slots->scene->check->geometry.cluster_size;
    return (choice->suspect->why & Q2_SUSPECT_RULE) &&
           (q2_entry_offset(choice->suspect->entry.raw) & ~(size - 1)) == choice->table;
}

static int
settle(struct q2_placing *placing, const struct choice *choice, struct q2_error *err)
{
    const struct q2_suspect *suspect = choice->suspect;
    struct q2_placement placement = {.map = suspect->map,
                                     .slot = suspect->l1_index,
                                     .table = choice->table,
                                     .found = choice->found,
                                     .confidence = Q2_CERTAIN,
                                     .why = "it is one flipped bit away from the entry"};
    bool close = choice->distance <= 2 && !placing->slots->survey->counts_help;
    if (!choice->missing && !close)
        return 0;
    if (choice->distance == 2)
        placement.why = "it is two bits away from the entry";
    if (choice->distance == 2 && choice->score < 4 && !(choice->missing && !choice->found))
        placement.confidence = Q2_LIKELY;
    if (has_its_own(placing, choice))
        placement.confidence = Q2_LIKELY;
    if (choice->tie || (!choice->missing && !is_but_for_odd_bits(placing, choice)))
        placement.confidence = Q2_GUESS;
    return q2_place(placing, &placement, err);
}

/* Of two slots that share a table, the one that the table does not go with as well. */
static int
keeps_its_table(struct q2_placing *placing, const struct choice *choice, bool *ret_keeps,
                struct q2_error *err)
{
    const struct q2_suspect *suspect = choice->suspect;
    const struct q2_geometry *geometry = &placing->slots->scene->check->geometry;
    uint64_t offset = q2_entry_offset(suspect->entry.raw);
    struct q2_table_facts facts;
    int here = 0, there = 0, rc;
    *ret_keeps = false;
    if ((suspect->entry.raw & q2_entry_odd_bits(geometry)) || !(suspect->why & Q2_SUSPECT_SHARED) ||
        (suspect->why & ~(unsigned)Q2_SUSPECT_SHARED))
        return 0;
    rc = q2_table_facts(placing->carving, offset, &facts, err);
    if (rc == 0)
        rc = q2_place_score(placing, offset, &facts, suspect->map, suspect->l1_index, &here, err);
    if (rc < 0)
        return rc;
    /* A lost table that goes here says that this slot is not the owner. */
    there = choice->table ? choice->score : 0;
    *ret_keeps = !choice->table || here > there;
    return 0;
}

static bool
is_other_owner(struct q2_placing *placing, const struct q2_suspect *suspect)
{
    const struct q2_survey *survey = placing->slots->survey;
    if (!q2_placing_spend(placing, survey->suspect_count))
        return false;
    for (uint64_t i = 0; i < survey->suspect_count; i++) {
        const struct q2_suspect *other = &survey->suspects[i];
        if (other->is_l1 && other != suspect && other->l1_index != suspect->l1_index &&
            q2_entry_offset(other->entry.raw) == q2_entry_offset(suspect->entry.raw))
            return true;
    }
    return false;
}

static int
explain(struct q2_placing *placing, const struct q2_suspect *suspect, struct choice *choice,
        struct q2_error *err)
{
    *choice = (struct choice){.suspect = suspect, .distance = FAR};
    int rc = consider_lost(placing, choice, err);
    if (rc == 0)
        rc = consider_other_maps(placing, choice, err);
    if (rc == 0)
        rc = consider_cleared(placing, choice, err);
    return rc;
}

/* Two slots share a table, and a lost one explains one of them: which one? */
static int
explain_shared(struct q2_placing *placing, const struct q2_suspect *suspect, struct q2_error *err)
{
    struct choice choice, other = {0};
    bool keeps = false, decided = false, earlier = false, later = false;
    int rc = explain(placing, suspect, &choice, err);
    if (rc == 0)
        rc = keeps_its_table(placing, &choice, &keeps, err);
    if (rc < 0 || keeps || choice.table == 0)
        return rc;
    const struct q2_survey *survey = placing->slots->survey;
    bool affordable = q2_placing_spend(placing, survey->suspect_count);
    for (uint64_t i = 0; affordable && i < survey->suspect_count && rc == 0; i++) {
        const struct q2_suspect *rival = &survey->suspects[i];
        if (!rival->is_l1 || rival->l1_index == suspect->l1_index ||
            q2_entry_offset(rival->entry.raw) != q2_entry_offset(suspect->entry.raw))
            continue;
        rc = explain(placing, rival, &other, err);
        bool rival_keeps = false;
        if (rc == 0)
            rc = keeps_its_table(placing, &other, &rival_keeps, err);
        bool same = other.table == choice.table;
        earlier |= same && rival->l1_index < suspect->l1_index;
        later |= same && rival->l1_index > suspect->l1_index;
        decided |= rival_keeps || other.table == 0 || other.score < choice.score;
    }
    choice.tie |= !decided;
    /* Nothing but the order of the file is left then: what was written later lies behind. */
    if (rc == 0 && choice.tie &&
        (choice.table > q2_entry_offset(suspect->entry.raw) ? later : earlier))
        return 0;
    return rc == 0 ? settle(placing, &choice, err) : rc;
}

/* Damaged entries are explained in this order: each that is leaves less to choose for others. */
enum turn { ALONE, SHARED, BLANK, TURNS };

static enum turn
turn_of(struct q2_placing *placing, const struct q2_suspect *suspect)
{
    bool shared = (suspect->why & Q2_SUSPECT_SHARED) && is_other_owner(placing, suspect);
    return is_blank(suspect) ? BLANK : shared ? SHARED : ALONE;
}

static int
explain_suspects(struct q2_placing *placing, enum turn turn, struct q2_error *err)
{
    const struct q2_survey *survey = placing->slots->survey;
    int rc = 0;
    for (uint64_t i = 0; i < q2_min(survey->suspect_count, MAX_SUSPECTS) && rc == 0; i++) {
        const struct q2_suspect *suspect = &survey->suspects[i];
        struct q2_slot_map *map = suspect->is_l1 ? &placing->slots->maps[suspect->map] : NULL;
        if (!map || !map->raw || suspect->l1_index >= map->slots ||
            map->state[suspect->l1_index] != Q2_SLOT_SUSPECT || turn != turn_of(placing, suspect) ||
            (turn == BLANK && !are_alone(placing, suspect)))
            continue;
        struct choice choice;
        if (turn == SHARED) {
            rc = explain_shared(placing, suspect, err);
            continue;
        }
        rc = explain(placing, suspect, &choice, err);
        if (rc == 0 && choice.table)
            rc = settle(placing, &choice, err);
    }
    return rc;
}

/* ---- entries that lead to an empty cluster ---- */

/* A flipped bit may lead to a cluster of zeros, which looks like a table that maps nothing. */
static int
explain_hollow(struct q2_placing *placing, struct q2_carved *table, struct q2_error *err)
{
    struct q2_slots *slots = placing->slots;
    unsigned bits = slots->scene->check->geometry.cluster_bits;
    for (unsigned bit = bits; bit < 56 && !table->placed; bit++) {
        uint64_t target = table->offset ^ UINT64_C(1) << bit;
        const struct q2_slot_owner *owner = q2_slots_owner(slots, target);
        struct q2_table_look look;
        if (!owner || slots->maps[owner->map].state[owner->slot] != Q2_SLOT_SOUND ||
            !q2_table_fits(placing, &table->facts, owner->map, owner->slot))
            continue;
        int rc = q2_survey_look(slots->survey, target, &look, err);
        if (rc < 0)
            return rc;
        if (!look.readable || look.mapped || look.faults)
            continue;
        bool counted = q2_bit_test(slots->survey->counted, target >> bits);
        bool certain = slots->survey->counts_help &&
                       (!counted || maps_cluster(placing->carving, table->offset, target >> bits));
        const struct q2_placement placement = {
            .map = owner->map,
            .slot = owner->slot,
            .table = table->offset,
            .found = table,
            .confidence = certain ? Q2_CERTAIN : Q2_LIKELY,
            .why = "it is one flipped bit away from the entry, which leads to nothing but zeros"};
        rc = q2_place(placing, &placement, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int
q2_place_flips(struct q2_placing *placing, struct q2_error *err)
{
    struct q2_carving *carving = placing->carving;
    int rc = 0;
    for (enum turn turn = ALONE; turn < TURNS && rc == 0; turn++)
        rc = explain_suspects(placing, turn, err);
    for (uint64_t i = 0; i < carving->count && rc == 0; i++) {
        struct q2_carved *table = &carving->tables[i];
        if (table->like_l2 && !table->is_l1 && !table->is_data && !table->placed)
            rc = explain_hollow(placing, table, err);
    }
    return rc;
}
