/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Programs from bytes, and bytes from programs. */

#include "fuzz/support/program.h"

#include "core/base/endian.h"
#include "core/format/header.h"

#include <string.h>

enum { SECTOR = 512, VM_MOST = 8 << 10, BELOW_MOST = 4 };

/* Small clusters, so that a small disk takes several tables. */
static const unsigned cluster_bits[8] = {9, 9, 10, 11, 12, 9, 12, 14};
static const unsigned refcount_orders[8] = {4, 0, 1, 2, 3, 5, 6, 4};
static const unsigned caches[8] = {0, 0, 0, 9, 10, 11, 12, 14};
enum { EXTENDED_BITS = 14 };

/* What small clusters may add up to where a program asks for it, which is rare because it is slow:
 * more than one cluster of a refcount table counts. */
enum { LARGE = 7 };

/* Encryption is slow, and little else differs. */
enum { FIRST_AES = 13, ONLY_LUKS = 15 };

/* What most bytes of an operation mean that are past the table of operations. */
static const char *const usual[] = {
    "write", "write",  "write",   "write",      "write",    "writev", "compressed", "compressed",
    "zero",  "unmap",  "discard", "flush",      "flush",    "reopen", "snapshot",   "snapshot",
    "goto",  "delete", "resize",  "bitmap-add", "vm-write", "read",
};

/* ---- from bytes ---- */

static uint64_t
sectors(const uint8_t *at, uint64_t most)
{
    return (q2_load_be16(at) % (most / SECTOR) + 1) * SECTOR;
}

/* Leave out what an image cannot be together; in the words of params_choose. */
static void
reconcile(struct params *p)
{
    if (p->version == 2)
        p->lazy = p->zstd = p->extended = p->data_file = 0;
    if (p->version == 2)
        p->refcount_bits = 16;
    if (p->extended)
        p->cluster_bits = EXTENDED_BITS;
    if (p->data_file)
        p->crypt = 0;
    if (p->data_file == DATA_FILE_RAW)
        p->below = 0;
    if (p->below || (p->crypt && p->version == 2))
        p->preallocation = 0;
}

static void
decode_params(const uint8_t *head, struct params *p)
{
    unsigned format = head[Q2_PROGRAM_FORMAT], files = head[Q2_PROGRAM_FILES];
    unsigned space = head[Q2_PROGRAM_SPACE], crypt = files >> 4;
    *p = (struct params){
        .version = format & Q2_PROGRAM_OLD ? 2 : 3,
        .cluster_bits = cluster_bits[head[Q2_PROGRAM_CLUSTERS] & 7],
        .refcount_bits = 1U << refcount_orders[head[Q2_PROGRAM_CLUSTERS] >> 4 & 7],
        .lazy = format & Q2_PROGRAM_LAZY ? 1 : 0,
        .zstd = format & Q2_PROGRAM_ZSTD ? 1 : 0,
        .extended = format & Q2_PROGRAM_EXTENDED ? 1 : 0,
        .discard = format & Q2_PROGRAM_DISCARD ? 1 : 0,
        .below = files & 3,
        .data_file = (files >> 2 & 3) % 3,
        .crypt = crypt == ONLY_LUKS   ? Q2_CRYPT_LUKS
                 : crypt >= FIRST_AES ? Q2_CRYPT_AES
                                      : 0,
        .preallocation = space & 3,
        .caches = caches[space >> 2 & 7],
        .vm_most = VM_MOST,
        .below_writes = BELOW_MOST,
        .seed = head[Q2_PROGRAM_SEED],
    };
    reconcile(p);
    p->most = p->cluster_bits < EXTENDED_BITS ? 64 << 10 : 96 << 10;
    if (space >> 5 == LARGE && p->cluster_bits == 9)
        p->most = Q2_PROGRAM_LARGE;
    p->size = sectors(head + Q2_PROGRAM_SIZE, p->most);
    p->below_size = p->below ? sectors(head + Q2_PROGRAM_BELOW_SIZE, p->most) : 0;
}

static uint32_t
load24(const uint8_t *at)
{
    return (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
}

static const struct op *
decode_op(uint8_t byte)
{
    unsigned number = byte % Q2_PROGRAM_OPS;
    if (number < op_count)
        return &ops[number];
    return op_find(usual[(number - op_count) % (sizeof usual / sizeof *usual)]);
}

static void
decode_step(const uint8_t *at, struct q2_program *program)
{
    uint32_t place = load24(at + Q2_PROGRAM_PLACE), extent = load24(at + Q2_PROGRAM_EXTENT);
    if (at[0] >= Q2_PROGRAM_DAMAGE)
        program->damages[program->damage_count++] = (struct q2_damage){
            .kind = at[0] % Q2_PROGRAM_OPS,
            .place = place,
            .value = extent << 8 | at[Q2_PROGRAM_FILL],
        };
    else
        program->steps[program->step_count++] = (struct step){
            .op = decode_op(at[0]),
            .arg = {place, extent, at[Q2_PROGRAM_FILL], at[Q2_PROGRAM_FILL] >> 3},
        };
}

void
q2_program_decode(const uint8_t *input, size_t length, struct q2_program *ret_program)
{
    struct q2_fuzz_cursor cursor = {.at = input, .left = length};
    uint8_t head[Q2_PROGRAM_HEAD] = {0};
    size_t taken;
    const uint8_t *at = q2_fuzz_take(&cursor, sizeof head, &taken);
    if (taken > 0)
        memcpy(head, at, taken);
    *ret_program = (struct q2_program){
        .quiet = head[Q2_PROGRAM_FORMAT] & Q2_PROGRAM_QUIET,
        .flags = head[Q2_PROGRAM_FLAGS],
        .number = q2_load_be16(head + Q2_PROGRAM_NUMBER),
        .chance = q2_load_be32(head + Q2_PROGRAM_CHANCE),
    };
    decode_params(head, &ret_program->params);
    for (unsigned i = 0; i < Q2_PROGRAM_MAX_STEPS; i++) {
        at = q2_fuzz_take(&cursor, Q2_PROGRAM_STEP, &taken);
        if (taken < Q2_PROGRAM_STEP)
            break;
        decode_step(at, ret_program);
    }
}

/* ---- to bytes ---- */

/* Where a table has `wanted`; its first place for what it has not. */
static unsigned
place_of(unsigned wanted, const unsigned table[8])
{
    for (unsigned i = 0; i < 8; i++)
        if (table[i] == wanted)
            return i;
    return 0;
}

static void
encode_params(const struct params *p, uint8_t *head)
{
    unsigned orders = place_of((unsigned)__builtin_ctz(p->refcount_bits), refcount_orders);
    unsigned crypt = p->crypt == Q2_CRYPT_LUKS ? ONLY_LUKS : p->crypt ? FIRST_AES : 0;
    head[Q2_PROGRAM_FORMAT] =
        (uint8_t)((p->version == 2 ? Q2_PROGRAM_OLD : 0) | (p->lazy ? Q2_PROGRAM_LAZY : 0) |
                  (p->zstd ? Q2_PROGRAM_ZSTD : 0) | (p->extended ? Q2_PROGRAM_EXTENDED : 0) |
                  (p->discard ? Q2_PROGRAM_DISCARD : 0));
    head[Q2_PROGRAM_CLUSTERS] = (uint8_t)(place_of(p->cluster_bits, cluster_bits) | orders << 4);
    head[Q2_PROGRAM_FILES] = (uint8_t)(p->below | p->data_file << 2 | crypt << 4);
    head[Q2_PROGRAM_SPACE] = (uint8_t)(p->preallocation | place_of(p->caches, caches) << 2 |
                                       (p->most == Q2_PROGRAM_LARGE ? LARGE << 5 : 0));
    q2_store_be16(head + Q2_PROGRAM_SIZE, (uint16_t)(p->size / SECTOR - 1));
    if (p->below)
        q2_store_be16(head + Q2_PROGRAM_BELOW_SIZE, (uint16_t)(p->below_size / SECTOR - 1));
    head[Q2_PROGRAM_SEED] = (uint8_t)p->seed;
}

static void
store24(uint8_t *at, uint64_t value)
{
    at[0] = (uint8_t)(value >> 16);
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)value;
}

size_t
q2_program_encode(const struct q2_program *program, uint8_t *bytes)
{
    uint8_t *at = bytes + Q2_PROGRAM_HEAD;
    memset(bytes, 0, Q2_PROGRAM_MAX);
    encode_params(&program->params, bytes);
    bytes[Q2_PROGRAM_FORMAT] |= program->quiet ? Q2_PROGRAM_QUIET : 0;
    bytes[Q2_PROGRAM_FLAGS] = program->flags;
    q2_store_be16(bytes + Q2_PROGRAM_NUMBER, program->number);
    q2_store_be32(bytes + Q2_PROGRAM_CHANCE, program->chance);
    for (unsigned i = 0; i < program->step_count; i++, at += Q2_PROGRAM_STEP) {
        const struct step *step = &program->steps[i];
        at[0] = (uint8_t)(step->op - ops);
        store24(at + Q2_PROGRAM_PLACE, step->arg[0]);
        store24(at + Q2_PROGRAM_EXTENT, step->arg[1]);
        at[Q2_PROGRAM_FILL] = (uint8_t)step->arg[2];
    }
    for (unsigned i = 0; i < program->damage_count; i++, at += Q2_PROGRAM_STEP) {
        const struct q2_damage *damage = &program->damages[i];
        at[0] = (uint8_t)(Q2_PROGRAM_DAMAGE | damage->kind);
        store24(at + Q2_PROGRAM_PLACE, damage->place);
        store24(at + Q2_PROGRAM_EXTENT, damage->value >> 8);
        at[Q2_PROGRAM_FILL] = (uint8_t)damage->value;
    }
    return (size_t)(at - bytes);
}
