/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The operations, as the table has them. */

#ifndef Q2_TESTS_STRESS_OPS_H
#define Q2_TESTS_STRESS_OPS_H

#include "tests/stress/model.h"

bool op_write(struct run *run, const uint64_t *arg);
bool op_writev(struct run *run, const uint64_t *arg);
bool op_compressed(struct run *run, const uint64_t *arg);
bool op_zero(struct run *run, const uint64_t *arg);
bool op_unmap(struct run *run, const uint64_t *arg);
bool op_discard(struct run *run, const uint64_t *arg);
bool op_empty(struct run *run, const uint64_t *arg);
bool op_flush(struct run *run, const uint64_t *arg);
bool op_reopen(struct run *run, const uint64_t *arg);
bool op_invalidate(struct run *run, const uint64_t *arg);
bool op_read(struct run *run, const uint64_t *arg);
bool op_map(struct run *run, const uint64_t *arg);
bool op_snapshot(struct run *run, const uint64_t *arg);
bool op_goto(struct run *run, const uint64_t *arg);
bool op_delete(struct run *run, const uint64_t *arg);
bool op_load(struct run *run, const uint64_t *arg);
bool op_vm_write(struct run *run, const uint64_t *arg);
bool op_vm_read(struct run *run, const uint64_t *arg);
bool op_vm_discard(struct run *run, const uint64_t *arg);
bool op_resize(struct run *run, const uint64_t *arg);
bool op_bitmap_add(struct run *run, const uint64_t *arg);
bool op_bitmap_remove(struct run *run, const uint64_t *arg);
bool op_bitmap_clear(struct run *run, const uint64_t *arg);
bool op_bitmap_enable(struct run *run, const uint64_t *arg);
bool op_bitmap_merge(struct run *run, const uint64_t *arg);
bool op_bitmap_look(struct run *run, const uint64_t *arg);
bool op_version(struct run *run, const uint64_t *arg);
bool op_width(struct run *run, const uint64_t *arg);
bool op_lazy(struct run *run, const uint64_t *arg);
bool op_rebase(struct run *run, const uint64_t *arg);
bool op_key_add(struct run *run, const uint64_t *arg);
bool op_key_remove(struct run *run, const uint64_t *arg);
bool op_verify(struct run *run, const uint64_t *arg);

#endif
