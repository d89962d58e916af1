/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "repair/header_disk.h"

#include "core/base/checked.h"
#include "core/base/cleanup.h"
#include "core/codec/codec.h"
#include "core/format/entry.h"

#include <string.h>

enum {
    SECTOR = 512,
    MBR_AT_TABLE = 446,
    MBR_ENTRY = 16,
    MBR_ENTRIES = 4,
    MBR_PROTECTIVE = 0xee, /* the type of the partition that stands for a GPT */
    GPT_AT_MY_LBA = 24,
    GPT_AT_ALTERNATE_LBA = 32,
    GPT_AT_LAST_USABLE = 48,
};

static bool
read_at(struct q2_file *file, uint64_t offset, void *buffer, size_t length)
{
    struct q2_error ignored;
    return q2_range_inside(offset, length, Q2_FILE_SIZE_MAX) &&
           q2_file_read_padded(file, offset, buffer, length, &ignored) == 0;
}

static bool
read_compressed(struct q2_file *file, const struct q2_geometry *geometry, unsigned type,
                uint64_t raw, uint64_t inside, uint8_t *buffer, size_t length)
{
    struct q2_compressed_range range = q2_compressed_decode(geometry, raw);
    struct q2_decoder *decoder = NULL;
    struct q2_error ignored;
    size_t size = (size_t)geometry->cluster_size, used;
    Q2_AUTOFREE uint8_t *packed = malloc((size_t)range.length);
    Q2_AUTOFREE uint8_t *plain = malloc(size);
    if (!packed || !plain || !read_at(file, range.offset, packed, (size_t)range.length) ||
        q2_decoder_new(type, &decoder, &ignored) < 0)
        return false;
    int rc = q2_decoder_run(decoder, packed, (size_t)range.length, plain, size, &used, &ignored);
    q2_decoder_free(decoder);
    if (rc == 0)
        memcpy(buffer, plain + inside, length);
    return rc == 0;
}

/* Read from the first L2 table's reach, inside one cluster. */
static bool
read_guest(struct q2_file *file, const struct q2_header *header, uint64_t guest, uint8_t *buffer,
           size_t length)
{
    struct q2_geometry geometry;
    uint8_t word[8];
    q2_geometry_init(&geometry, header, Q2_FILE_SIZE_MAX);
    if (geometry.data_file || geometry.encrypted || header->l1_size == 0 ||
        !read_at(file, header->l1_table_offset, word, sizeof word))
        return false;
    uint64_t table = q2_entry_offset(q2_load_be64(word));
    uint64_t index = guest >> geometry.cluster_bits, inside = guest & (geometry.cluster_size - 1);
    if (!table || (table & (geometry.cluster_size - 1)) ||
        !read_at(file, table + index * geometry.l2_entry_size, word, sizeof word))
        return false;
    uint64_t raw = q2_load_be64(word);
    switch (q2_l2_kind(&geometry, raw)) {
    case Q2_CLUSTER_COMPRESSED:
        return read_compressed(file, &geometry, header->compression_type, raw, inside, buffer,
                               length);
    case Q2_CLUSTER_STANDARD:
        return read_at(file, q2_entry_offset(raw) + inside, buffer, length);
    default:
        return false;
    }
}

static bool
sectors_to_bytes(uint64_t sectors, uint64_t *ret_bytes)
{
    return q2_mul(sectors, SECTOR, ret_bytes) && *ret_bytes <= Q2_FILE_SIZE_MAX;
}

static bool
look_at_mbr(const uint8_t *sector, struct q2_disk_evidence *evidence)
{
    bool gpt = false;
    if (sector[SECTOR - 2] != 0x55 || sector[SECTOR - 1] != 0xaa)
        return false;
    for (unsigned i = 0; i < MBR_ENTRIES; i++) {
        const uint8_t *entry = sector + MBR_AT_TABLE + i * MBR_ENTRY;
        uint64_t end, bytes;
        if ((entry[0] & 0x7f) != 0)
            return false; /* a boot sector of something else */
        end = (uint64_t)q2_load_le32(entry + 8) + q2_load_le32(entry + 12);
        if (entry[4] == MBR_PROTECTIVE)
            gpt = true;
        else if (entry[4] && sectors_to_bytes(end, &bytes))
            evidence->least = q2_max(evidence->least, bytes);
    }
    return gpt;
}

static uint64_t
load_le64(const uint8_t *from)
{
    return q2_load_le32(from) | (uint64_t)q2_load_le32(from + 4) << 32;
}

static void
look_at_gpt(const uint8_t *sector, struct q2_disk_evidence *evidence)
{
    uint64_t alternate = load_le64(sector + GPT_AT_ALTERNATE_LBA), size;
    if (memcmp(sector, "EFI PART", 8) != 0 || load_le64(sector + GPT_AT_MY_LBA) != 1 ||
        load_le64(sector + GPT_AT_LAST_USABLE) >= alternate || alternate == UINT64_MAX ||
        !sectors_to_bytes(alternate + 1, &size))
        return;
    evidence->exact = size;
}

void
q2_disk_evidence(struct q2_file *file, const struct q2_header *header,
                 struct q2_disk_evidence *ret_evidence)
{
    uint8_t first[SECTOR], second[SECTOR];
    struct q2_disk_evidence evidence = {0};
    if (read_guest(file, header, 0, first, sizeof first) && look_at_mbr(first, &evidence) &&
        read_guest(file, header, SECTOR, second, sizeof second))
        look_at_gpt(second, &evidence);
    *ret_evidence = evidence;
}
