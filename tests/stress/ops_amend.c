/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Operations that change what the image is while its content stays. */

#include "core/image/amend.h"
#include "tests/stress/ops.h"

#include <string.h>

/* All of these leave the image readable, whether they are refused or not. */
static bool
same_content(struct run *run, int rc, const struct q2_error *err, const char *what)
{
    if (rc != Q2_ERR_UNSUPPORTED && !succeeded(run, rc, err, what))
        return false;
    say(run, " %s", rc < 0 ? err->message : "");
    return verify_open(run);
}

static bool
amend(struct run *run, const struct q2_amend_options *options)
{
    struct q2_error err = {0};
    int rc = q2_image_amend(run->image, options, &err);
    if (!same_content(run, rc, &err, "amend"))
        return false;
    const struct q2_header *header = q2_image_header(run->image);
    bool lazy = header->compatible_features & Q2_COMPATIBLE_LAZY_REFCOUNTS;
    if (rc == 0 &&
        (((options->fields & Q2_AMEND_VERSION) && header->version != options->version) ||
         ((options->fields & Q2_AMEND_REFCOUNT_BITS) &&
          1U << header->refcount_order != options->refcount_bits) ||
         ((options->fields & Q2_AMEND_LAZY_REFCOUNTS) && lazy != options->lazy_refcounts)))
        return fail(run, "the header is not what was asked for");
    return true;
}

bool
op_version(struct run *run, const uint64_t *arg)
{
    struct q2_amend_options options = {.fields = Q2_AMEND_VERSION,
                                       .version = 2 + (unsigned)(arg[0] % 2)};
    say(run, " %u", options.version);
    return amend(run, &options);
}

bool
op_width(struct run *run, const uint64_t *arg)
{
    struct q2_amend_options options = {.fields = Q2_AMEND_REFCOUNT_BITS,
                                       .refcount_bits = 1U << arg[0] % 7};
    say(run, " %u", options.refcount_bits);
    return amend(run, &options);
}

bool
op_lazy(struct run *run, const uint64_t *arg)
{
    struct q2_amend_options options = {.fields = Q2_AMEND_LAZY_REFCOUNTS,
                                       .lazy_refcounts = arg[0] % 2};
    say(run, " %d", options.lazy_refcounts);
    return q2_image_header(run->image)->version < 3 || amend(run, &options);
}

/* "twin" holds what "below" does. */
bool
op_rebase(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    const char *name = arg[0] % 2 ? "twin" : "below";
    if (!run->params.below)
        return true;
    say(run, " %s", name);
    int rc = q2_image_change_backing(run->image, name,
                                     run->params.below == BELOW_RAW ? "raw" : "qcow2", &err);
    if (rc == Q2_ERR_NOSPACE && run->params.cluster_bits == 9)
        return true;
    return same_content(run, rc, &err, "change_backing");
}

/* ---- keys ---- */

bool
op_key_add(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    unsigned number = (unsigned)(arg[0] % SECRETS);
    struct q2_secret secret = run_secret(number);
    if (run->params.crypt != Q2_CRYPT_LUKS || (run->keys >> number & 1))
        return true;
    say(run, " %u", number);
    run->keys |= 1U << number;
    return succeeded(run, q2_image_add_key(run->image, &secret, -1, 1000, 0, &err), &err,
                     "add_key");
}

bool
op_key_remove(struct run *run, const uint64_t *arg)
{
    struct q2_error err = {0};
    unsigned number = (unsigned)(arg[0] % SECRETS);
    struct q2_secret secret = run_secret(number);
    if (run->params.crypt != Q2_CRYPT_LUKS)
        return true;
    say(run, " %u", number);
    int rc = q2_image_remove_key(run->image, &secret, -1, false, &err);
    if (!(run->keys >> number & 1))
        return rc == Q2_ERR_PASSPHRASE || fail(run, "removed a key that is not there: %d", rc);
    if (run->keys == 1U << number)
        return rc == Q2_ERR_RANGE || fail(run, "removed the last key: %d", rc);
    run->keys &= ~(1U << number);
    run->secret = run_secret((unsigned)__builtin_ctz(run->keys));
    return succeeded(run, rc, &err, "remove_key");
}
