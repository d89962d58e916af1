/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The three descriptors that a program starts with. */

#ifndef Q2_IO_STANDARD_H
#define Q2_IO_STANDARD_H

/* A caller may have closed one of the first three descriptors. An image opened in its place would
 * get the messages; what is put there instead cannot be written to, so that losing the output is
 * noticed. To be called before anything is opened. */
void q2_standard_guard(void);

#endif
