/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/image/codecs.h"

#include "core/base/cleanup.h"
#include "core/io/iov.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT = 16 }; /* idle ones of each kind */

struct decoder {
    struct decoder *next;
    struct q2_decoder *decoder;
    uint8_t *packed; /* of 2 clusters: the longest range that a descriptor can name */
    uint8_t *plain;  /* of 1 cluster */
    bool valid;      /* `plain` is what was compressed at `offset` in this generation */
    uint64_t offset;
    uint64_t generation;
};

struct encoder {
    struct encoder *next;
    struct q2_encoder *encoder;
    uint8_t *packed;
};

struct q2_codecs {
    enum q2_compression type;
    uint64_t cluster_size;
    pthread_mutex_t lock;
    uint64_t generation;
    struct decoder *decoders;
    unsigned idle_decoders;
    struct encoder *encoders;
    unsigned idle_encoders;
};

int
q2_codecs_new(enum q2_compression type, uint64_t cluster_size, struct q2_codecs **ret_codecs,
              struct q2_error *err)
{
    struct q2_codecs *codecs = calloc(1, sizeof *codecs);
    if (!codecs)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for decoders");
    codecs->type = type;
    codecs->cluster_size = cluster_size;
    pthread_mutex_init(&codecs->lock, NULL);
    *ret_codecs = codecs;
    return 0;
}

static void
free_decoder(struct decoder *decoder)
{
    if (!decoder)
        return;
    q2_decoder_free(decoder->decoder);
    free(decoder->packed);
    free(decoder->plain);
    free(decoder);
}

static void
free_encoder(struct encoder *encoder)
{
    if (!encoder)
        return;
    q2_encoder_free(encoder->encoder);
    free(encoder->packed);
    free(encoder);
}

void
q2_codecs_free(struct q2_codecs *codecs)
{
    if (!codecs)
        return;
    for (struct decoder *at = codecs->decoders, *next; at; at = next) {
        next = at->next;
        free_decoder(at);
    }
    for (struct encoder *at = codecs->encoders, *next; at; at = next) {
        next = at->next;
        free_encoder(at);
    }
    pthread_mutex_destroy(&codecs->lock);
    free(codecs);
}

void
q2_codecs_forget(struct q2_codecs *codecs)
{
    pthread_mutex_lock(&codecs->lock);
    codecs->generation++;
    pthread_mutex_unlock(&codecs->lock);
}

/* ---- decoding ---- */

static int
make_decoder(struct q2_codecs *codecs, struct decoder **ret_decoder, struct q2_error *err)
{
    struct decoder *made = calloc(1, sizeof *made);
    if (!made)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for a decoder");
    int rc = q2_decoder_new(codecs->type, &made->decoder, err);
    made->packed = malloc(codecs->cluster_size * 2);
    made->plain = malloc(codecs->cluster_size);
    if (rc == 0 && !(made->packed && made->plain))
        rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for a decoder");
    if (rc < 0) {
        free_decoder(made);
        return rc;
    }
    *ret_decoder = made;
    return 0;
}

/* A decoder for this thread alone: the one that has the cluster at `offset`, if any does. */
static int
borrow_decoder(struct q2_codecs *codecs, uint64_t offset, struct decoder **ret_decoder,
               struct q2_error *err)
{
    pthread_mutex_lock(&codecs->lock);
    struct decoder **best = NULL;
    for (struct decoder **at = &codecs->decoders; *at; at = &(*at)->next) {
        best = at;
        if ((*at)->valid && (*at)->offset == offset && (*at)->generation == codecs->generation)
            break;
    }
    struct decoder *found = best ? *best : NULL;
    uint64_t generation = codecs->generation;
    if (found) {
        *best = found->next;
        codecs->idle_decoders--;
    }
    pthread_mutex_unlock(&codecs->lock);
    if (!found) {
        int rc = make_decoder(codecs, &found, err);
        if (rc < 0)
            return rc;
    }
    found->valid = found->valid && found->offset == offset && found->generation == generation;
    found->offset = offset;
    found->generation = generation;
    *ret_decoder = found;
    return 0;
}

static void
return_decoder(struct q2_codecs *codecs, struct decoder *decoder)
{
    pthread_mutex_lock(&codecs->lock);
    bool keep = codecs->idle_decoders < KEPT;
    if (keep) {
        decoder->next = codecs->decoders;
        codecs->decoders = decoder;
        codecs->idle_decoders++;
    }
    pthread_mutex_unlock(&codecs->lock);
    if (!keep)
        free_decoder(decoder);
}

static int
decode(struct q2_codecs *codecs, struct decoder *decoder, struct q2_file *file,
       const struct q2_compressed_range *packed, uint8_t *to, struct q2_error *err)
{
    struct q2_error cause = {0};
    size_t used;
    int rc = q2_file_read_padded(file, packed->offset, decoder->packed, packed->length, err);
    if (rc < 0)
        return rc;
    rc = q2_decoder_run(decoder->decoder, decoder->packed, packed->length, to, codecs->cluster_size,
                        &used, &cause);
    if (rc < 0)
        return q2_error_set(err, rc, "%s: compressed cluster at 0x%" PRIx64 ": %s", file->name,
                            packed->offset, cause.message);
    return 0;
}

int
q2_codecs_read(struct q2_codecs *codecs, struct q2_file *file,
               const struct q2_compressed_range *packed, uint64_t inside, uint64_t length,
               const struct iovec *iov, int iov_count, size_t skip, struct q2_error *err)
{
    struct decoder *decoder;
    int rc = borrow_decoder(codecs, packed->offset, &decoder, err);
    if (rc < 0)
        return rc;
    struct iovec whole;
    size_t contiguous = 0;
    if (length == codecs->cluster_size)
        q2_iov_part(iov, iov_count, skip, length, &whole, 1, &contiguous);
    if (!decoder->valid && length == codecs->cluster_size && contiguous == length) {
        rc = decode(codecs, decoder, file, packed, whole.iov_base, err);
    } else {
        if (!decoder->valid)
            rc = decode(codecs, decoder, file, packed, decoder->plain, err);
        decoder->valid = rc == 0;
        if (rc == 0)
            q2_iov_from(iov, iov_count, skip, decoder->plain + inside, length);
    }
    return_decoder(codecs, decoder);
    return rc;
}

/* ---- encoding ---- */

static int
borrow_encoder(struct q2_codecs *codecs, struct encoder **ret_encoder, struct q2_error *err)
{
    pthread_mutex_lock(&codecs->lock);
    struct encoder *found = codecs->encoders;
    if (found) {
        codecs->encoders = found->next;
        codecs->idle_encoders--;
    }
    pthread_mutex_unlock(&codecs->lock);
    if (found) {
        *ret_encoder = found;
        return 0;
    }
    struct encoder *made = calloc(1, sizeof *made);
    if (!made)
        return q2_error_set(err, Q2_ERR_NOMEM, "no memory for an encoder");
    int rc = q2_encoder_new(codecs->type, &made->encoder, err);
    made->packed = malloc(codecs->cluster_size + Q2_ENCODER_SLACK);
    if (rc == 0 && !made->packed)
        rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for an encoder");
    if (rc < 0) {
        free_encoder(made);
        return rc;
    }
    *ret_encoder = made;
    return 0;
}

static void
return_encoder(struct q2_codecs *codecs, struct encoder *encoder)
{
    pthread_mutex_lock(&codecs->lock);
    bool keep = codecs->idle_encoders < KEPT;
    if (keep) {
        encoder->next = codecs->encoders;
        codecs->encoders = encoder;
        codecs->idle_encoders++;
    }
    pthread_mutex_unlock(&codecs->lock);
    if (!keep)
        free_encoder(encoder);
}

int
q2_codecs_compress(struct q2_codecs *codecs, const void *cluster, uint8_t **ret_stream,
                   size_t *ret_length, struct q2_error *err)
{
    struct encoder *encoder;
    int rc = borrow_encoder(codecs, &encoder, err);
    if (rc < 0)
        return rc;
    size_t used = 0;
    uint8_t *stream = NULL;
    rc = q2_encoder_run(encoder->encoder, cluster, codecs->cluster_size, encoder->packed,
                        codecs->cluster_size - 1 + Q2_ENCODER_SLACK, &used, err);
    bool fits = rc == 0 && used < codecs->cluster_size;
    if (rc == Q2_ERR_NOSPACE)
        rc = 0;
    if (fits) {
        stream = malloc(used);
        if (!stream)
            rc = q2_error_set(err, Q2_ERR_NOMEM, "no memory for a compressed cluster");
        else
            memcpy(stream, encoder->packed, used);
    }
    return_encoder(codecs, encoder);
    if (rc == 0) {
        *ret_stream = stream;
        *ret_length = used;
    }
    return rc;
}
