/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Reading what can be read. A request that fails is halved until it is a sector: then that is lost,
 * is zeros in what is written, and is noted. */

#include "core/base/checked.h"
#include "core/codec/cipher.h"
#include "repair/salvage_parts.h"

#include <stdlib.h>
#include <string.h>

static const char unreadable[] = "the file cannot be read there";
static const char cut_off[] = "the file ends inside its cluster";

int
q2_salvage_worker_init(struct salvage_worker *worker, const struct salvage_source *source,
                       uint64_t piece, struct q2_error *err)
{
    uint64_t cluster = source->geometry.cluster_size;
    worker->buffer = aligned_alloc(4096, piece + 4096);
    worker->kinds = malloc(piece / SALVAGE_SECTOR + 1);
    /* A descriptor's length has one bit more than a cluster has sectors. */
    worker->packed = malloc(cluster * 2 + SALVAGE_SECTOR);
    if (!worker->buffer || !worker->kinds || !worker->packed)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for the buffers of a salvage");
    /* Of a type that nobody knows nothing can be decoded. */
    int rc = q2_decoder_new((enum q2_compression)source->check->header.compression_type,
                            &worker->decoder, err);
    return rc == Q2_ERR_UNSUPPORTED ? 0 : rc;
}

void
q2_salvage_worker_destroy(struct salvage_worker *worker)
{
    free(worker->buffer);
    free(worker->kinds);
    free(worker->packed);
    free(worker->losses);
    q2_decoder_free(worker->decoder);
}

static void
add_loss(struct salvage_worker *worker, uint64_t offset, uint64_t length,
         enum q2_salvage_state state, const char *why)
{
    struct salvage_loss *last = worker->loss_count ? &worker->losses[worker->loss_count - 1] : NULL;
    if (last && last->offset + last->length == offset && last->why == why) {
        last->length += length;
        return;
    }
    if (worker->loss_count == worker->loss_capacity) {
        size_t capacity = worker->loss_capacity * 2 + 16;
        void *losses = realloc(worker->losses, capacity * sizeof *worker->losses);
        if (!losses) {
            worker->failed = true;
            return;
        }
        worker->losses = losses;
        worker->loss_capacity = capacity;
    }
    worker->losses[worker->loss_count++] =
        (struct salvage_loss){.offset = offset, .length = length, .state = state, .why = why};
}

/* ---- files ---- */

void
q2_salvage_read_lenient(struct q2_file *file, uint64_t offset, uint8_t *buffer, size_t length,
                        void (*lost)(void *data, uint64_t offset, uint64_t length), void *data)
{
    if (length == 0 || q2_file_read_padded(file, offset, buffer, length, NULL) == 0)
        return;
    uint64_t sector = offset / SALVAGE_SECTOR, end = q2_units(offset + length, 9);
    if (end - sector <= 1) {
        memset(buffer, 0, length);
        lost(data, offset, length);
        return;
    }
    size_t half = (size_t)((sector + (end - sector) / 2) * SALVAGE_SECTOR - offset);
    q2_salvage_read_lenient(file, offset, buffer, half, lost, data);
    q2_salvage_read_lenient(file, offset + half, buffer + half, length - half, lost, data);
}

/* What reading a run is about. */
struct reading {
    struct salvage_source *source;
    struct salvage_worker *worker;
    const struct salvage_run *run;
    uint64_t base; /* of the run in the file that is read, bytes */
    const char *why;
};

static void
lose(void *data, uint64_t offset, uint64_t length)
{
    struct reading *reading = data;
    add_loss(reading->worker, reading->run->offset + (offset - reading->base), length,
             Q2_SALVAGE_LOST, reading->why);
    atomic_store(&reading->source->any_bad, true);
}

/* ---- standard clusters ---- */

static void
decrypt(struct salvage_source *source, struct salvage_worker *worker, const struct salvage_run *run,
        size_t losses, uint8_t *buffer, size_t length)
{
    bool legacy = source->check->header.crypt_method == Q2_CRYPT_AES;
    uint64_t first = (legacy ? run->offset : run->host) >> Q2_CIPHER_SECTOR_BITS;
    if (q2_cipher_decrypt(source->cipher, first, buffer, length, NULL) < 0) {
        memset(buffer, 0, length);
        add_loss(worker, run->offset, run->length, Q2_SALVAGE_LOST, "it cannot be decrypted");
    }
    /* Zeros for what was not read, once more. */
    for (size_t i = losses; i < worker->loss_count; i++)
        memset(buffer + (worker->losses[i].offset - run->offset), 0, worker->losses[i].length);
}

static void
read_data(struct salvage_source *source, struct salvage_worker *worker,
          const struct salvage_run *run, uint8_t *buffer)
{
    struct reading reading = {source, worker, run, run->host, unreadable};
    /* Sectors as a whole: the disk may end inside one. */
    size_t length = (size_t)(q2_units(run->length, 9) << 9), losses = worker->loss_count;
    q2_salvage_read_lenient(source->data, run->host, buffer, length, lose, &reading);
    if (source->cipher)
        decrypt(source, worker, run, losses, buffer, length);
    uint64_t there = run->host < source->data_size ? source->data_size - run->host : 0;
    if (there < run->length && worker->loss_count == losses) {
        add_loss(worker, run->offset + there, run->length - there, Q2_SALVAGE_GUESS, cut_off);
        atomic_store(&source->any_bad, true);
        if (source->cipher)
            memset(buffer + there, 0, length - there);
    }
}

/* ---- compressed clusters ---- */

static void
read_packed(struct salvage_source *source, struct salvage_worker *worker,
            const struct salvage_run *run, uint8_t *buffer)
{
    size_t used, cluster = (size_t)source->geometry.cluster_size;
    const char *why = worker->decoder ? "its compressed data does not decode"
                                      : "its compression type is not known";
    size_t length = (size_t)run->packed.length;
    int rc = worker->decoder ? q2_file_read_padded(source->file, run->packed.offset, worker->packed,
                                                   length, NULL)
                             : Q2_ERR_UNSUPPORTED;
    if (rc < 0 && worker->decoder) {
        /* The stream may end before what cannot be read. */
        size_t count = worker->loss_count;
        struct reading reading = {source, worker, run, run->packed.offset, unreadable};
        q2_salvage_read_lenient(source->file, run->packed.offset, worker->packed, length, lose,
                                &reading);
        length = worker->loss_count > count ? (size_t)(worker->losses[count].offset - run->offset)
                                            : length;
        worker->loss_count = count;
        why = unreadable;
        rc = 0;
    }
    if (rc == 0)
        rc = q2_decoder_run(worker->decoder, worker->packed, length, buffer, cluster, &used, NULL);
    if (rc == 0)
        return;
    memset(buffer, 0, cluster);
    add_loss(worker, run->offset, run->length, Q2_SALVAGE_LOST, why);
    atomic_store(&source->any_bad, true);
}

/* ---- the backing file ---- */

static void
read_backing(struct salvage_source *source, struct salvage_worker *worker, uint64_t offset,
             uint8_t *buffer, size_t length)
{
    if (q2_disk_read(source->backing, offset, buffer, length, NULL) == 0)
        return;
    uint64_t sector = offset / SALVAGE_SECTOR, end = q2_units(offset + length, 9);
    if (end - sector <= 1) {
        memset(buffer, 0, length);
        add_loss(worker, offset, length, Q2_SALVAGE_LOST, "the backing file cannot be read there");
        atomic_store(&source->any_bad, true);
        return;
    }
    size_t half = (size_t)((sector + (end - sector) / 2) * SALVAGE_SECTOR - offset);
    read_backing(source, worker, offset, buffer, half);
    read_backing(source, worker, offset + half, buffer + half, length - half);
}

void
q2_salvage_read_run(struct salvage_source *source, struct salvage_worker *worker,
                    const struct salvage_run *run, uint8_t *buffer)
{
    switch (run->kind) {
    case SALVAGE_DATA:
        read_data(source, worker, run, buffer);
        break;
    case SALVAGE_PACKED:
        read_packed(source, worker, run, buffer);
        break;
    case SALVAGE_BACKING:
        read_backing(source, worker, run->offset, buffer, (size_t)run->length);
        break;
    case SALVAGE_NOTHING:
    case SALVAGE_ZERO:
    case SALVAGE_GONE:
        memset(buffer, 0, (size_t)run->length);
        break;
    }
}
