/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Internal snapshots: the L1 table is copied and everything it reaches has one user more. */

#include "corpus/recipe/build.h"

#include "core/base/bitset.h"
#include "core/base/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_DATE = 1577836800, A_MINUTE = 60 }; /* 2020-01-01 00:00 UTC */

/* Where the VM state begins, as a guest offset: behind the last L1 entry of the disk. */
static uint64_t
vm_state_offset(const struct recipe_build *build)
{
    return q2_l1_entries_for(&build->geometry, build->header.size) * q2_l2_reach(&build->geometry);
}

static int
write_vm_state(struct recipe_build *build, const struct recipe_clause *clause, uint64_t *ret_size)
{
    uint64_t length = 0, start = vm_state_offset(build);
    int rc = recipe_number(build, clause, 0, &length);
    if (rc)
        return rc;
    uint64_t end;
    if (!q2_add(start, length, &end))
        return recipe_fail(build, "the VM state would end beyond 2^64");
    rc = recipe_grow_l1(build, q2_l1_entries_for(&build->geometry, end));
    rc = rc ? rc : recipe_view_fill(build, start, length, &clause->arguments[1].pattern);
    rc = rc ? rc : recipe_store(build, start, length);
    if (rc == 0)
        *ret_size = length;
    return rc;
}

/* The VM state belongs to the snapshot alone. */
static int
drop_vm_state(struct recipe_build *build, uint64_t length)
{
    uint64_t start = vm_state_offset(build);
    recipe_clear_l1(build, start / q2_l2_reach(&build->geometry), build->header.l1_size);
    return recipe_view_zero(build, start, length);
}

static int
share_tables(struct recipe_build *build, struct recipe_snapshot *snapshot)
{
    int rc = 0;
    for (uint32_t slot = 0; slot < build->header.l1_size && rc == 0; slot++) {
        struct recipe_table *table = build->l1[slot];
        snapshot->l1[slot] = table;
        if (!table)
            continue;
        if (*recipe_refcount(build, table->host) == 1)
            q2_bit_set(snapshot->copied, slot);
        rc = recipe_refer(build, table->host);
        for (uint64_t i = 0; i < build->geometry.l2_entries && rc == 0; i++)
            rc = recipe_refer_entry(build, table->entries[i].raw);
    }
    return rc;
}

static int
read_times(struct recipe_build *build, const struct recipe_statement *statement,
           struct q2_snapshot *fields)
{
    const struct recipe_clause *date = recipe_statement_clause(statement, WORD_DATE);
    const struct recipe_clause *clock = recipe_statement_clause(statement, WORD_VM_CLOCK);
    uint64_t seconds = FIRST_DATE + A_MINUTE * (uint64_t)build->header.nb_snapshots;
    uint64_t nanoseconds = 0;
    int rc = date ? recipe_number(build, date, 0, &seconds) : 0;
    rc = rc == 0 && date && date->count > 1 ? recipe_number(build, date, 1, &nanoseconds) : rc;
    rc = rc == 0 && clock ? recipe_number(build, clock, 0, &fields->vm_clock_nanoseconds) : rc;
    if (rc)
        return rc;
    if (seconds > UINT32_MAX || nanoseconds > UINT32_MAX)
        return recipe_fail(build, "the date does not fit 32 bits");
    fields->date_seconds = (uint32_t)seconds;
    fields->date_nanoseconds = (uint32_t)nanoseconds;
    return 0;
}

static int
read_names(struct recipe_build *build, struct recipe_snapshot *snapshot)
{
    const struct recipe_statement *statement = snapshot->statement;
    const struct recipe_clause *id = recipe_statement_clause(statement, WORD_ID);
    snprintf(snapshot->id, sizeof snapshot->id, "%u", build->header.nb_snapshots + 1);
    size_t id_length = id ? id->arguments[0].text_length : strlen(snapshot->id);
    size_t name_length = statement->clauses[0].arguments[0].text_length;
    if (id_length > UINT16_MAX || name_length > UINT16_MAX)
        return recipe_fail(build, "the name is too long");
    snapshot->fields.id_length = (uint16_t)id_length;
    snapshot->fields.name_length = (uint16_t)name_length;
    return 0;
}

/* A new snapshot at the end of the list, not counted yet. */
static int
add_snapshot(struct recipe_build *build, const struct recipe_statement *statement,
             struct recipe_snapshot **ret_snapshot)
{
    struct recipe_snapshot *grown =
        reallocarray(build->snapshots, (size_t)build->header.nb_snapshots + 1, sizeof *grown);
    if (!grown)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a snapshot");
    build->snapshots = grown;
    *ret_snapshot = &grown[build->header.nb_snapshots];
    **ret_snapshot = (struct recipe_snapshot){.statement = statement};
    return 0;
}

/* Copy the L1 table as it is now. */
static int
copy_l1(struct recipe_build *build, struct recipe_snapshot *snapshot)
{
    uint32_t entries = build->header.l1_size;
    snapshot->l1 = calloc((size_t)entries + 1, sizeof *snapshot->l1);
    snapshot->copied = calloc(entries / 64 + 1, sizeof *snapshot->copied);
    build->header.nb_snapshots++; /* from here on it is freed with the others */
    if (!snapshot->l1 || !snapshot->copied)
        return q2_error_set(build->err, Q2_ERR_NOMEM, "out of memory for a snapshot's L1 table");
    snapshot->fields.l1_size = entries;
    snapshot->fields.disk_size = build->header.size;
    int rc = 0;
    if (entries)
        rc = recipe_allocate(build, q2_units((uint64_t)entries * 8, build->geometry.cluster_bits),
                             &snapshot->fields.l1_table_offset);
    return rc ? rc : share_tables(build, snapshot);
}

int
recipe_take_snapshot(struct recipe_build *build, const struct recipe_statement *statement)
{
    const struct recipe_clause *state = recipe_statement_clause(statement, WORD_VM_STATE);
    const struct recipe_clause *extra = recipe_statement_clause(statement, WORD_EXTRA);
    const char *wanted = build->target->guest_snapshot;
    struct recipe_snapshot *snapshot = NULL;
    if (build->geometry.data_file)
        return recipe_fail(build, "an image with an external data file cannot have snapshots");
    int rc = add_snapshot(build, statement, &snapshot);
    rc = rc ? rc : read_times(build, statement, &snapshot->fields);
    rc = rc ? rc : read_names(build, snapshot);
    if (rc == 0 && state)
        rc = write_vm_state(build, state, &snapshot->fields.vm_state_size);
    if (rc)
        return rc;
    build->at = statement->clauses[0].at;
    snapshot->fields.extra_length =
        Q2_SNAPSHOT_EXTRA_LENGTH + (extra ? (uint32_t)extra->arguments[0].text_length : 0);
    rc = copy_l1(build, snapshot);
    if (rc == 0 && state)
        rc = drop_vm_state(build, snapshot->fields.vm_state_size);
    if (rc == 0 && build->target->guest && wanted &&
        strcmp(wanted, statement->clauses[0].arguments[0].text) == 0)
        rc = recipe_view_save(build);
    return rc;
}
