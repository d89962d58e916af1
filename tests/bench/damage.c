/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/bench/damage.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "tests/bench/tables.h"

#include <stdlib.h>

struct damage {
    struct tables tables;
    bool scattered;
    uint64_t entries; /* of all tables */
    uint64_t leaks;   /* done */
    uint64_t corrupt;
};

/* A number that looks random and depends on nothing but `from`. */
static uint64_t
scatter(uint64_t from)
{
    from = (from ^ from >> 31) * UINT64_C(0x7fb5d329728ea185);
    from = (from ^ from >> 27) * UINT64_C(0x81dadef4bc2dd44d);
    return from ^ from >> 33;
}

enum fate { HEALTHY, LEAK, CORRUPT };

/* What becomes of entry `index` of the whole map. Scattered damage hits a little more often than it
 * has to, and stops when there is enough. */
static enum fate
fate_of(const struct damage *damage, uint64_t index)
{
    uint64_t all = DAMAGE_LEAKS + DAMAGE_CORRUPT;
    uint64_t draw = damage->scattered ? scatter(index) % (damage->entries * 9 / 10) : index;
    if (draw >= all)
        return HEALTHY;
    bool leak = draw < DAMAGE_LEAKS;
    if (leak ? damage->leaks == DAMAGE_LEAKS : damage->corrupt == DAMAGE_CORRUPT)
        return HEALTHY;
    return leak ? LEAK : CORRUPT;
}

static uint64_t
make_wrong(const struct damage *damage, uint64_t raw)
{
    switch (damage->corrupt % 4) {
    case 0:
        return raw | UINT64_C(1) << 57; /* reserved */
    case 1:
        return raw +
               (q2_units(damage->tables.geometry.file_size, damage->tables.geometry.cluster_bits)
                << damage->tables.geometry.cluster_bits); /* past the end */
    case 2:
        return raw & ~Q2_ENTRY_COPIED;
    default:
        return raw | 512; /* not aligned */
    }
}

static bool
damage_table(struct damage *damage, uint64_t *table, uint64_t first)
{
    bool changed = false;
    for (uint64_t i = 0; i < damage->tables.geometry.l2_entries; i++) {
        enum fate fate = fate_of(damage, first + i);
        if (fate == HEALTHY)
            continue;
        changed = true;
        if (fate == LEAK) {
            table[i] = 0;
            damage->leaks++;
        } else {
            q2_store_be64(&table[i], make_wrong(damage, q2_load_be64(&table[i])));
            damage->corrupt++;
        }
    }
    return changed;
}

static int
damage_tables(struct damage *damage, struct q2_error *err)
{
    const struct tables *tables = &damage->tables;
    uint64_t size = tables->geometry.cluster_size;
    Q2_AUTOFREE uint64_t *table = malloc(size);
    if (!table)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L2 table");
    for (uint64_t t = 0; t < tables->count; t++) {
        int rc = q2_file_read(tables->file, tables->offsets[t], table, size, err);
        if (rc == 0 && damage_table(damage, table, t * tables->geometry.l2_entries))
            rc = q2_file_write(tables->file, tables->offsets[t], table, size, err);
        if (rc < 0)
            return rc;
    }
    if (damage->leaks < DAMAGE_LEAKS || damage->corrupt < DAMAGE_CORRUPT)
        return q2_error_set(err, Q2_ERR_RANGE, "the image has too few entries to damage");
    return 0;
}

int
damage_image(const char *path, bool scattered, struct q2_error *err)
{
    struct damage damage = {.scattered = scattered};
    int rc = tables_open(path, true, &damage.tables, err);
    if (rc < 0)
        return rc;
    damage.entries = damage.tables.count * damage.tables.geometry.l2_entries;
    rc = damage_tables(&damage, err);
    tables_close(&damage.tables);
    return rc;
}
