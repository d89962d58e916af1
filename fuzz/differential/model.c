/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Images that our own library writes: what is left after a sequence of the stress model. */

#include "fuzz/differential/make.h"
#include "tests/stress/sequence.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 24 };

static bool
copy_out(struct q2_file *file, uint8_t **ret_bytes, size_t *ret_length)
{
    uint64_t size;
    if (q2_file_size(file, &size, NULL) < 0 || size > IMAGE_MAX)
        return false;
    *ret_bytes = malloc(size + 1);
    *ret_length = (size_t)size;
    return *ret_bytes && (size == 0 || q2_file_read(file, 0, *ret_bytes, (size_t)size, NULL) == 0);
}

static bool
take_files(const struct world *world, struct base *base)
{
    bool fits = true;
    for (unsigned i = 0; i < world->count; i++) {
        const struct slot *slot = &world->slots[i];
        if (strcmp(slot->name, "image") == 0) {
            fits &= copy_out(slot->base, &base->bytes, &base->length);
        } else if (strcmp(slot->name, "twin") != 0 && base->companion_count < MAX_COMPANIONS) {
            struct companion *companion = &base->companions[base->companion_count++];
            companion->name = strdup(slot->name);
            fits &= copy_out(slot->base, &companion->bytes, &companion->length);
        }
    }
    return fits && base->bytes;
}

static void
describe(const struct sequence *sequence, uint64_t seed, struct base *base)
{
    size_t length;
    FILE *out = open_memstream(&base->script, &length);
    if (!out || asprintf(&base->name, "a sequence of stress, %llu", (unsigned long long)seed) < 0)
        abort();
    sequence_print(sequence, out);
    fclose(out);
}

bool
base_from_model(uint64_t seed, struct base *ret_base)
{
    struct sequence sequence = {0};
    struct run run = {0};
    struct base base = {0};
    if (!sequence_choose(&sequence, seed, (unsigned)(1 + seed % STEPS), MODE_MODEL))
        abort();
    params_shrink(&sequence.params);
    sequence.params.crypt = 0; /* nobody is told a key */
    describe(&sequence, seed, &base);
    bool fine = run_begin(&run, &sequence.params);
    for (unsigned i = 0; fine && i < sequence.count; i++)
        fine = run_step(&run, &sequence.steps[i]);
    fine = fine && run_close(&run) && take_files(&run.world, &base);
    if (run.failed)
        fprintf(stderr, "differential: %s: %s\n", base.name, run.message);
    run_end(&run);
    sequence_destroy(&sequence);
    if (fine)
        *ret_base = base;
    else
        base_destroy(&base);
    return fine;
}
