/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* One image and its model, from the making to the end. */

#include "tests/stress/make.h"
#include "tests/stress/model.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool
fail(struct run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!run->failed)
        vsnprintf(run->message, sizeof run->message, format, args);
    run->failed = true;
    va_end(args);
    return false;
}

bool
succeeded(struct run *run, int rc, const struct q2_error *err, const char *what)
{
    return rc == 0 || fail(run, "%s: %d, %s", what, rc, err->message);
}

void
say(const struct run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (run->verbose)
        vprintf(format, args);
    va_end(args);
}

struct q2_secret
run_secret(unsigned number)
{
    static char texts[SECRETS][8] = {"first", "second", "third"};
    return (struct q2_secret){.bytes = (uint8_t *)texts[number], .length = strlen(texts[number])};
}

struct q2_image_options
run_options(struct run *run, unsigned flags)
{
    uint64_t cache = run->params.caches ? UINT64_C(1) << run->params.caches : 0;
    return (struct q2_image_options){
        .flags = flags | (run->params.discard ? Q2_IMAGE_DISCARD : 0),
        .format = Q2_DISK_QCOW2,
        .secret = run->params.crypt ? &run->secret : NULL,
        .l2_cache_bytes = cache,
        .refcount_cache_bytes = cache,
        .open_file = world_open,
        .open_file_data = &run->world,
    };
}

bool
run_open(struct run *run, unsigned flags)
{
    struct q2_error err = {0};
    struct q2_image_options options = run_options(run, flags);
    return succeeded(run, q2_image_open("image", &options, &run->image, &err), &err, "open");
}

bool
run_close(struct run *run)
{
    struct q2_error err = {0};
    int rc = q2_image_close(run->image, &err);
    run->image = NULL;
    run->flushes += rc == 0;
    return succeeded(run, rc, &err, "close");
}

bool
run_begin(struct run *run, const struct params *params)
{
    run->params = *params;
    run->secret = run_secret(0);
    run->keys = 1;
    run->scratch = calloc(1, params->most);
    if (!run->scratch || !model_init(&run->model, params))
        return fail(run, "no memory for the model");
    if (!make_below(run) || !make_image(run))
        return false;
    model_begin(&run->model, params);
    return run_open(run, Q2_IMAGE_WRITE);
}

void
run_end(struct run *run)
{
    q2_image_close(run->image, NULL);
    run->image = NULL;
    world_destroy(&run->world);
    model_destroy(&run->model);
    free(run->scratch);
    run->scratch = NULL;
}

bool
run_step(struct run *run, const struct step *step)
{
    say(run, "%s", step->op->name);
    bool fine = step->op->act(run, step->arg);
    say(run, "%s\n", fine ? "" : " FAILED");
    if (!fine)
        fail(run, "%s failed without a word", step->op->name);
    return fine;
}
