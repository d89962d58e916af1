/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The buffers of a request, one behind the other. */

#ifndef Q2_TOOL_IO_VECTOR_H
#define Q2_TOOL_IO_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Embed it with `= {0}`. */
struct io_vector {
    bool plural; /* the command is called so */
    uint8_t *buffer;
    size_t length; /* bytes */
    struct iovec *parts;
    int count;
};

/* From the lengths in `texts`, which end with NULL; false after a message. */
bool io_vector_make(struct io_vector *vector, char **texts);
void io_vector_destroy(struct io_vector *vector);

#endif
