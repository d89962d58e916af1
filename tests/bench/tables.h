/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* All L2 tables of the active map of an image, one after the other, in the order of the L1 table.
 * For healthy images: what is odd about an entry is not looked at. */

#ifndef Q2_BENCH_TABLES_H
#define Q2_BENCH_TABLES_H

#include "core/format/header.h"
#include "core/io/file.h"

struct tables {
    struct q2_file *file;
    struct q2_geometry geometry;
    uint64_t *offsets; /* of the tables, bytes */
    uint64_t count;
};

int tables_open(const char *path, bool write, struct tables *ret_tables, struct q2_error *err);
void tables_close(struct tables *tables);

/* The least that any checker has to do: read every table and look at every entry. Returns the OR of
 * all entries through *ret_bits, so that no compiler can leave it out. */
int tables_loop(const char *path, uint64_t *ret_bits, struct q2_error *err);

#endif
