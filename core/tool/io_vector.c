/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

#include "core/tool/io_vector.h"

#include "core/tool/io.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static bool
add_part(struct io_vector *vector, const char *text)
{
    uint64_t length;
    if (!io_length(text, &length))
        return false;
    if (length > (uint64_t)INT32_MAX - vector->length) {
        printf("too large total size\n");
        return false;
    }
    vector->parts[vector->count++].iov_len = (size_t)length;
    vector->length += (size_t)length;
    return true;
}

bool
io_vector_make(struct io_vector *vector, char **texts)
{
    size_t count = 0;
    while (texts[count])
        count++;
    vector->parts = calloc(count, sizeof *vector->parts);
    for (size_t i = 0; vector->parts && i < count && i < IOV_MAX; i++)
        if (!add_part(vector, texts[i]))
            return false;
    vector->buffer = vector->parts ? malloc(vector->length ? vector->length : 1) : NULL;
    if (!vector->buffer) {
        printf("out of memory\n");
        return false;
    }
    uint8_t *next = vector->buffer;
    for (int i = 0; i < vector->count; i++) {
        vector->parts[i].iov_base = next;
        next += vector->parts[i].iov_len;
    }
    return true;
}

void
io_vector_destroy(struct io_vector *vector)
{
    free(vector->parts);
    free(vector->buffer);
}
