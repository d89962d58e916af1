/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "tests/bench/tables.h"

#include "core/base/cleanup.h"
#include "core/base/endian.h"
#include "core/format/entry.h"
#include "core/io/posix.h"

#include <stdlib.h>

static int
load_header(struct tables *tables, struct q2_header *ret_header, struct q2_error *err)
{
    uint8_t bytes[Q2_HEADER_KNOWN_LENGTH];
    uint64_t size;
    int rc = q2_file_size(tables->file, &size, err);
    if (rc == 0)
        rc = q2_file_read(tables->file, 0, bytes, sizeof bytes, err);
    if (rc < 0)
        return rc;
    q2_header_decode(bytes, sizeof bytes, ret_header);
    q2_geometry_init(&tables->geometry, ret_header, size);
    return 0;
}

static int
load_l1(struct tables *tables, const struct q2_header *header, struct q2_error *err)
{
    uint64_t *l1 = calloc(header->l1_size, sizeof *l1);
    tables->offsets = l1;
    if (!l1)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the L1 table");
    int rc =
        q2_file_read(tables->file, header->l1_table_offset, l1, header->l1_size * sizeof *l1, err);
    for (uint32_t i = 0; i < header->l1_size && rc == 0; i++) {
        uint64_t offset = q2_entry_offset(q2_load_be64(&l1[i]));
        if (offset)
            l1[tables->count++] = offset;
    }
    return rc;
}

int
tables_open(const char *path, bool write, struct tables *ret_tables, struct q2_error *err)
{
    struct tables tables = {.file = NULL};
    struct q2_header header;
    int rc = q2_file_open(path, write ? Q2_OPEN_WRITE : 0, &tables.file, err);
    if (rc == 0)
        rc = load_header(&tables, &header, err);
    if (rc == 0)
        rc = load_l1(&tables, &header, err);
    if (rc < 0)
        tables_close(&tables);
    else
        *ret_tables = tables;
    return rc;
}

void
tables_close(struct tables *tables)
{
    free(tables->offsets);
    q2_file_close(tables->file);
}

int
tables_loop(const char *path, uint64_t *ret_bits, struct q2_error *err)
{
    struct tables tables;
    int rc = tables_open(path, false, &tables, err);
    if (rc < 0)
        return rc;
    uint64_t size = tables.geometry.cluster_size, bits = 0;
    Q2_AUTOFREE uint64_t *table = malloc(size);
    if (!table)
        rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for an L2 table");
    for (uint64_t t = 0; t < tables.count && rc == 0; t++) {
        rc = q2_file_read(tables.file, tables.offsets[t], table, size, err);
        for (uint64_t i = 0; i < size / 8; i++)
            bits |= q2_load_be64(&table[i]);
    }
    tables_close(&tables);
    *ret_bits = bits;
    return rc;
}
