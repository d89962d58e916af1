/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Making the image of a run, and what is below it. */

#include "core/image/disk.h"
#include "corpus/recipe/recipe.h"
#include "tests/stress/make.h"

#include <stdlib.h>
#include <string.h>

static bool
build(struct run *run, const char *name, const char *text)
{
    struct q2_error err = {0};
    struct q2_recipe *recipe = NULL;
    struct q2_recipe_target target = {.image = world_add(&run->world, name)->base};
    int rc = q2_recipe_parse(name, text, strlen(text), &recipe, &err);
    if (rc == 0)
        rc = q2_recipe_build(recipe, &target, &err);
    q2_recipe_free(recipe);
    return succeeded(run, rc, &err, name);
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
    for (unsigned i = 0; rc == 0 && i < 12; i++) {
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

bool
make_below(struct run *run)
{
    uint64_t random = run->params.seed, size = run->params.below_size;
    char text[256];
    unsigned bits = 9 + (unsigned)random_below(&random, 5);
    if (run->params.below == BELOW_NONE)
        return true;
    if (run->params.below == BELOW_RAW)
        return make_raw(run, "below", &random);
    snprintf(text, sizeof text, "size %llu\ncluster-size %u\n%s", (unsigned long long)size,
             1U << bits,
             run->params.below == BELOW_CHAIN ? "backing \"bottom\" format raw\n" : "");
    return (run->params.below != BELOW_CHAIN || make_raw(run, "bottom", &random)) &&
           build(run, "below", text) &&
           write_below(run, "below", Q2_DISK_QCOW2, size, bits, &random);
}

bool
make_image(struct run *run)
{
    const struct params *p = &run->params;
    char text[512];
    snprintf(text, sizeof text,
             "size %llu\nversion %u\ncluster-size %llu\nrefcount-bits %u\n%s%s%s%s%s",
             (unsigned long long)p->size, p->version, 1ULL << p->cluster_bits, p->refcount_bits,
             p->zstd ? "compression zstd\n" : "", p->extended ? "extended-l2\n" : "",
             p->lazy ? "lazy-refcounts\n" : "",
             p->data_file == DATA_FILE_RAW ? "data-file data raw\n"
             : p->data_file                ? "data-file data\n"
                                           : "",
             p->below == BELOW_NONE  ? ""
             : p->below == BELOW_RAW ? "backing \"below\" format raw\n"
                                     : "backing \"below\" format qcow2\n");
    if (p->data_file && !world_add(&run->world, "data"))
        return fail(run, "no data file");
    return build(run, "image", text);
}
