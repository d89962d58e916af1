/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What happens to files: cut off, made longer, sectors lost, clusters written elsewhere. */

#include "fuzz/mutate/image.h"

#include "core/base/checked.h"

#include <string.h>

enum { SECTOR = 512 };

bool
q2_change_truncate(struct q2_mutator *mutator)
{
    struct q2_fuzz_buffer *buffer = mutator->buffer;
    const uint64_t units[] = {mutator->layout.geometry.cluster_size, SECTOR, 1};
    uint64_t unit = units[q2_mutator_below(mutator, 3)];
    size_t length = buffer->length;
    if (length < 2)
        return false;
    if (q2_mutator_below(mutator, 4))
        length -= (size_t)q2_min(length, unit * (1 + q2_mutator_below(mutator, 3)));
    else
        length = (size_t)(q2_mutator_below(mutator, length) / unit * unit);
    buffer->length = length;
    return true;
}

bool
q2_change_extend(struct q2_mutator *mutator)
{
    struct q2_fuzz_buffer *buffer = mutator->buffer;
    const uint64_t units[] = {mutator->layout.geometry.cluster_size, SECTOR, 1};
    uint64_t most = q2_min(16 << 10, buffer->capacity - buffer->length);
    uint64_t more = units[q2_mutator_below(mutator, 3)] * (1 + q2_mutator_below(mutator, 4));
    if (more > most)
        return false;
    int byte = q2_mutator_below(mutator, 2) ? 0 : (int)q2_mutator_below(mutator, 256);
    memset(buffer->bytes + buffer->length, byte, more);
    buffer->length += more;
    return true;
}

/* Lose one sector, or read another in its place. */
bool
q2_change_sector(struct q2_mutator *mutator)
{
    struct q2_fuzz_buffer *buffer = mutator->buffer;
    if (buffer->length < 2 * SECTOR)
        return false;
    size_t count = buffer->length / SECTOR;
    uint8_t *sector = buffer->bytes + SECTOR * q2_mutator_below(mutator, count);
    const uint8_t *from = buffer->bytes + SECTOR * q2_mutator_below(mutator, count);
    switch (q2_mutator_below(mutator, 4)) {
    case 0:
        memset(sector, 0, SECTOR);
        break;
    case 1:
        memset(sector, 0xff, SECTOR);
        break;
    case 2:
        memmove(sector, from, SECTOR);
        break;
    default:
        for (size_t i = 0; i < SECTOR; i++)
            sector[i] = (uint8_t)q2_fuzz_random(mutator->random);
        break;
    }
    return true;
}

/* Write a cluster over another one, or to the end. */
bool
q2_change_cluster(struct q2_mutator *mutator)
{
    struct q2_fuzz_buffer *buffer = mutator->buffer;
    size_t size = (size_t)mutator->layout.geometry.cluster_size, count = buffer->length / size;
    if (count < 2)
        return false;
    size_t from = size * q2_mutator_below(mutator, count);
    size_t to = size * q2_mutator_below(mutator, count);
    if (q2_mutator_below(mutator, 3) == 0)
        to = q2_mutator_clusters(mutator, 1);
    if (to == 0 || to == from)
        return false;
    memcpy(buffer->bytes + to, buffer->bytes + from, size);
    return true;
}
