/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Making the image of a run, and what is below it. */

#include "tests/stress/make.h"
#include "core/codec/secret.h"
#include "core/image/create.h"
#include "core/image/disk.h"

#include <stdlib.h>
#include <string.h>

static bool
format(struct run *run, const char *name, struct q2_file *data,
       const struct q2_create_options *options)
{
    struct q2_error err = {0};
    struct slot *slot = world_add(&run->world, name);
    return succeeded(run, q2_image_format(slot->base, data, options, &err), &err, name);
}

/* ---- below ---- */

/* Write into one of the files below, and remember. */
static bool
write_below(struct run *run, const char *name, enum q2_disk_format format, uint64_t size,
            unsigned cluster_bits, uint64_t *random)
{
    struct q2_error err = {0};
    struct q2_disk *disk = NULL;
    struct q2_image_options options = {.flags = Q2_IMAGE_WRITE,
                                       .format = format,
                                       .open_file = world_open,
                                       .open_file_data = &run->world};
    int rc = q2_disk_open(name, &options, &disk, &err);
    for (unsigned i = 0; rc == 0 && i < run->params.below_writes; i++) {
        uint64_t offset = random_below(random, size);
        uint64_t length = random_below(random, (size - offset) / (i % 4 + 1) + 1);
        unsigned how = (unsigned)random_below(random, 4);
        struct q2_image *image = q2_disk_image(disk);
        if (how == 0 && image) {
            offset = offset >> cluster_bits << cluster_bits;
            length = UINT64_C(1) << cluster_bits;
            length = offset + length > size ? size - offset : length;
        }
        fill(run->scratch, length, next_random(random));
        if (how == 0 && image)
            rc = q2_image_write_compressed(image, offset, run->scratch, length, &err);
        else if (how == 1)
            rc = q2_disk_zero(disk, offset, length, 0, &err);
        else
            rc = q2_disk_write(disk, offset, run->scratch, length, &err);
        if (how == 1)
            memset(run->scratch, 0, length);
        memcpy(run->model.below + offset, run->scratch, length);
    }
    int closed = q2_disk_close(disk, rc == 0 ? &err : NULL);
    return succeeded(run, rc < 0 ? rc : closed, &err, name);
}

static bool
make_raw(struct run *run, const char *name, uint64_t *random)
{
    struct slot *slot = world_add(&run->world, name);
    uint64_t size = run->params.below_size;
    return q2_file_truncate(slot->base, size, NULL) == 0 &&
           write_below(run, name, Q2_DISK_RAW, size, 0, random);
}

/* The same under another name. */
static bool
make_twin(struct run *run)
{
    struct slot *from = world_find(&run->world, "below"), *to = world_add(&run->world, "twin");
    return to && file_copy(from->base, to->base);
}

bool
make_below(struct run *run)
{
    const struct params *p = &run->params;
    uint64_t random = p->seed;
    unsigned bits = 9 + (unsigned)random_below(&random, 5);
    bool chain = p->below == BELOW_CHAIN;
    struct q2_create_options options = {.size = p->below_size,
                                        .cluster_size = UINT64_C(1) << bits,
                                        .backing_file = chain ? "bottom" : NULL,
                                        .backing_format = chain ? "raw" : NULL};
    if (p->below == BELOW_NONE)
        return true;
    if (p->below == BELOW_RAW)
        return make_raw(run, "below", &random) && make_twin(run);
    return (!chain || make_raw(run, "bottom", &random)) && format(run, "below", NULL, &options) &&
           write_below(run, "below", Q2_DISK_QCOW2, p->below_size, bits, &random) && make_twin(run);
}

/* ---- the image ---- */

bool
make_image(struct run *run)
{
    const struct params *p = &run->params;
    struct slot *data = p->data_file ? world_add(&run->world, "data") : NULL;
    struct q2_secret secret = run_secret(0);
    struct q2_create_options options = {
        .size = p->size,
        .version = p->version,
        .cluster_size = UINT64_C(1) << p->cluster_bits,
        .refcount_bits = p->refcount_bits,
        .compression = p->zstd ? Q2_COMPRESSION_ZSTD : Q2_COMPRESSION_ZLIB,
        .flags = (p->lazy ? Q2_CREATE_LAZY_REFCOUNTS : 0) |
                 (p->extended ? Q2_CREATE_EXTENDED_L2 : 0) |
                 (p->data_file == DATA_FILE_RAW ? Q2_CREATE_RAW_DATA_FILE : 0),
        .preallocation = (enum q2_preallocation)p->preallocation,
        .backing_file = p->below ? "below" : NULL,
        .backing_format = p->below == BELOW_RAW ? "raw"
                          : p->below            ? "qcow2"
                                                : NULL,
        .data_file = data ? "data" : NULL,
        .crypt = (enum q2_crypt_method)p->crypt,
        .secret = p->crypt ? &secret : NULL,
        .cipher_name = "aes-128",
        .iterations = 1000,
    };
    return format(run, "image", data ? data->base : NULL, &options);
}
