/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/numbering.h"

#include "core/base/checked.h"
#include "core/base/endian.h"

#include <stdlib.h>

enum {
    HEAD = 512, /* bytes of a cluster that are looked at */
    WORDS = HEAD / 4,
    MAX_TABLES = 192,
    SAMPLES = 48, /* of a table */
    GROUP = 4,    /* entries in a row that are looked at together */
    AHEAD = 4,    /* samples that each is compared with */
    FEW = 8,      /* pairs in step: fewer are an accident */
    VOTES = 3,    /* clusters that have to name a table's slot */
    RULE = 3,     /* tables that agree make a rule */
    POWERS = 31,
};

struct sample {
    uint32_t index; /* in its table */
    uint32_t words[WORDS];
};

struct table {
    struct q2_carved *found; /* NULL: in place */
    uint64_t slot;           /* in place: its slot */
    uint64_t first;          /* samples */
    uint64_t count;
    uint64_t named; /* by its data, for the field at hand; Q2_NO_SLOT: none */
};

/* Where a number is, and how it counts. */
struct field {
    unsigned word;
    bool little;
    uint64_t step;   /* per cluster; a power of two */
    uint64_t origin; /* what the first cluster of a slot has, modulo what a slot counts */
};

struct learning {
    struct q2_carving *carving;
    struct table tables[MAX_TABLES];
    uint64_t table_count;
    struct sample *samples;
    uint64_t count, capacity;
    uint64_t *values; /* as many */
};

/* ---- samples ---- */

static int
add_sample(struct learning *learning, uint64_t index, uint64_t offset)
{
    struct q2_check *check = learning->carving->slots->scene->check;
    struct sample *sample = &learning->samples[learning->count];
    uint8_t bytes[HEAD];
    if (learning->count == learning->capacity ||
        q2_file_read_padded(check->file, offset, bytes, sizeof bytes, NULL) < 0)
        return 0;
    sample->index = (uint32_t)index;
    for (unsigned i = 0; i < WORDS; i++)
        sample->words[i] = q2_load_be32(bytes + i * 4);
    learning->count++;
    return 1;
}

/* Small groups of entries, evenly over what a table maps. */
static void
add_table(struct learning *learning, uint64_t offset, struct q2_carved *found, uint64_t slot)
{
    struct q2_check *check = learning->carving->slots->scene->check;
    const struct q2_geometry *geometry = &check->geometry;
    uint8_t *buffer = learning->carving->buffer;
    if (learning->table_count == MAX_TABLES ||
        q2_file_read_padded(check->file, offset, buffer, geometry->cluster_size, NULL) < 0)
        return;
    struct table *table = &learning->tables[learning->table_count++];
    *table = (struct table){.found = found, .slot = slot, .first = learning->count};
    uint64_t mapped = 0, seen = 0;
    for (int pass = 0; pass < 2; pass++) {
        uint64_t skip = q2_max(mapped / SAMPLES, 1);
        for (uint64_t i = 0; i < geometry->l2_entries && table->count < SAMPLES; i++) {
            struct q2_l2_entry entry = q2_l2_load(geometry, buffer, i);
            if (q2_l2_kind(geometry, entry.raw) != Q2_CLUSTER_STANDARD)
                continue;
            if (pass == 0)
                mapped++;
            else if (seen++ / GROUP % skip == 0)
                table->count += (uint64_t)add_sample(learning, i, q2_entry_offset(entry.raw));
        }
    }
}

static void
gather(struct learning *learning)
{
    struct q2_carving *carving = learning->carving;
    const struct q2_slot_map *map = &carving->slots->maps[0];
    for (uint64_t i = 0; i < carving->count && learning->table_count < MAX_TABLES / 2; i++) {
        struct q2_carved *table = &carving->tables[i];
        if (q2_carved_is_l2(carving, table))
            add_table(learning, table->offset, table, Q2_NO_SLOT);
    }
    uint64_t skip = map->sound / (MAX_TABLES / 2) + 1, seen = 0;
    for (uint64_t s = 0; map->raw && s < map->slots; s++)
        if (map->state[s] == Q2_SLOT_SOUND && seen++ % skip == 0)
            add_table(learning, q2_entry_offset(map->raw[s]), NULL, s);
}

/* As many samples as `gather` can take. */
static uint64_t
most_samples(const struct q2_carving *carving)
{
    uint64_t tables = carving->count + carving->slots->maps[0].sound;
    uint64_t samples = q2_min(SAMPLES, carving->slots->scene->check->geometry.l2_entries);
    return q2_min(tables, MAX_TABLES) * samples;
}

/* ---- how it counts ---- */

static uint32_t
value_of(const struct sample *sample, const struct field *field)
{
    uint32_t value = sample->words[field->word];
    return field->little ? __builtin_bswap32(value) : value;
}

/* The step that most pairs of clusters of a table suggest. */
static bool
learn_step(const struct learning *learning, struct field *field)
{
    uint64_t pairs[POWERS] = {0};
    unsigned best = 0;
    for (uint64_t t = 0; t < learning->table_count; t++) {
        const struct sample *samples = learning->samples + learning->tables[t].first;
        for (uint64_t i = 0; i < learning->tables[t].count; i++) {
            uint32_t value = value_of(&samples[i], field);
            uint64_t end = q2_min(i + 1 + AHEAD, learning->tables[t].count);
            for (uint64_t j = i + 1; j < end; j++) {
                uint32_t gap = samples[j].index - samples[i].index;
                uint32_t more = value_of(&samples[j], field) - value;
                /* A power of two times the gap; without a division, as there are millions. */
                int power = more ? __builtin_ctz(more) - __builtin_ctz(gap) : -1;
                if (power >= 0 && power < 30 && (uint64_t)gap << power == more)
                    pairs[power]++;
            }
        }
    }
    for (unsigned i = 1; i < POWERS; i++)
        best = pairs[i] > pairs[best] ? i : best;
    field->step = UINT64_C(1) << best;
    return pairs[best] >= FEW;
}

static int
compare_numbers(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The most frequent of `count` values, which get sorted; how often, and the next one. */
static uint64_t
mode_of(uint64_t *values, uint64_t count, uint64_t *ret_votes, uint64_t *ret_next)
{
    uint64_t best = 0, votes = 0, next = 0;
    if (count)
        qsort(values, count, sizeof *values, compare_numbers);
    for (uint64_t i = 0, run; i < count; i += run) {
        for (run = 1; i + run < count && values[i + run] == values[i];)
            run++;
        if (run > votes) {
            next = votes;
            votes = run;
            best = values[i];
        } else {
            next = q2_max(next, run);
        }
    }
    *ret_votes = votes;
    *ret_next = next;
    return best;
}

/* What the first cluster of the sample's table would have. */
static uint32_t
base_of(const struct sample *sample, const struct field *field)
{
    return value_of(sample, field) - (uint32_t)(field->step * sample->index);
}

/* ---- what it says ---- */

/* Let each table's clusters vote for its slot. Returns the votes of all that got one. */
static uint64_t
vote(struct learning *learning, struct field *field, uint64_t span)
{
    uint64_t votes, next, sum = 0;
    for (uint64_t i = 0; i < learning->count; i++)
        learning->values[i] = base_of(&learning->samples[i], field) % span;
    field->origin = mode_of(learning->values, learning->count, &votes, &next);
    for (uint64_t t = 0; t < learning->table_count; t++) {
        struct table *table = &learning->tables[t];
        uint64_t count = 0;
        for (uint64_t i = 0; i < table->count; i++) {
            uint32_t base = base_of(&learning->samples[table->first + i], field);
            if (base % span == field->origin)
                learning->values[count++] = (uint32_t)(base - field->origin) / span;
        }
        uint64_t slot = mode_of(learning->values, count, &votes, &next);
        bool clear = votes >= VOTES && votes > 2 * next;
        table->named = clear ? slot : Q2_NO_SLOT;
        sum += clear ? votes : 0;
    }
    return sum;
}

/* What is to be taken off the slots that the numbers say, modulo `wrap`: what the tables in place
 * have in common. Without them, numbers begin in the first slot. */
static bool
find_shift(const struct learning *learning, const struct field *field, uint64_t span, uint64_t wrap,
           uint64_t *ret_shift)
{
    uint64_t votes, next, count = 0, values[MAX_TABLES];
    for (uint64_t t = 0; t < learning->table_count; t++)
        if (!learning->tables[t].found && learning->tables[t].named != Q2_NO_SLOT)
            values[count++] = (learning->tables[t].named - learning->tables[t].slot) % wrap;
    *ret_shift = field->origin * 2 >= span ? wrap - 1 : 0;
    if (count == 0)
        return true;
    *ret_shift = mode_of(values, count, &votes, &next);
    return votes * 4 >= count * 3;
}

/* Whether what the numbers say can be: slots that there are, a different one for each table. */
static bool
is_possible(struct learning *learning, uint64_t shift, uint64_t wrap, uint64_t *ret_tables)
{
    uint64_t slots = learning->carving->slots->maps[0].slots, named = 0, bad = 0;
    for (uint64_t t = 0; t < learning->table_count; t++) {
        struct table *table = &learning->tables[t];
        if (table->named == Q2_NO_SLOT)
            continue;
        named++;
        table->named = (table->named - shift) % wrap;
        bool wrong = table->named >= slots;
        for (uint64_t u = 0; u < t && !wrong; u++)
            wrong = learning->tables[u].named == table->named;
        bad += wrong;
        if (table->named >= slots)
            table->named = Q2_NO_SLOT;
    }
    *ret_tables = named - bad;
    return named > 0 && bad * 4 <= named;
}

/* How much a field says; 0: nothing. */
static uint64_t
try_field(struct learning *learning, struct field *field, uint64_t *ret_tables)
{
    const struct q2_geometry *geometry = &learning->carving->slots->scene->check->geometry;
    uint64_t span, wrap, shift, sum;
    if (!learn_step(learning, field) || !q2_mul(field->step, geometry->l2_entries, &span) ||
        span > UINT64_C(1) << 31)
        return 0;
    wrap = (UINT64_C(1) << 32) / span;
    sum = vote(learning, field, span);
    if (sum == 0 || !find_shift(learning, field, span, wrap, &shift) ||
        !is_possible(learning, shift, wrap, ret_tables))
        return 0;
    return sum;
}

static void
learn(struct learning *learning)
{
    struct field best = {0};
    uint64_t most = 0, tables = 0;
    for (unsigned i = 0; i < 2 * WORDS; i++) {
        struct field field = {.word = i / 2, .little = i % 2};
        uint64_t says = try_field(learning, &field, &tables);
        if (says > most) {
            most = says;
            best = field;
        }
    }
    if (most == 0 || try_field(learning, &best, &tables) == 0)
        return;
    for (uint64_t t = 0; t < learning->table_count; t++) {
        struct table *table = &learning->tables[t];
        if (!table->found || table->named == Q2_NO_SLOT)
            continue;
        table->found->named = table->named;
        table->found->ruled = tables >= RULE;
    }
}

/* ---- the whole ---- */

int
q2_number_tables(struct q2_carving *carving, struct q2_error *err)
{
    const struct q2_geometry *geometry = &carving->slots->scene->check->geometry;
    struct q2_budget *budget = &carving->slots->scene->budget;
    void *samples = NULL, *values = NULL;
    bool any = false;
    for (uint64_t i = 0; i < carving->count && !any; i++)
        any = q2_carved_is_l2(carving, &carving->tables[i]);
    if (!any || geometry->encrypted || geometry->data_file || carving->slots->map_count == 0)
        return 0;
    struct learning *learning = calloc(1, sizeof *learning);
    if (!learning)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for what the data says");
    *learning = (struct learning){.carving = carving, .capacity = most_samples(carving)};
    int rc = q2_budget_calloc(budget, learning->capacity, sizeof *learning->samples,
                              "what the data says", &samples, err);
    if (rc == 0)
        rc = q2_budget_calloc(budget, learning->capacity, 8, "what the data says", &values, err);
    learning->samples = samples;
    learning->values = values;
    if (rc == 0) {
        gather(learning);
        learn(learning);
    }
    if (values)
        q2_budget_free(budget, values, learning->capacity, 8);
    if (samples)
        q2_budget_free(budget, samples, learning->capacity, sizeof *learning->samples);
    free(learning);
    return rc == Q2_ERR_BUDGET ? 0 : rc;
}
