/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The edits are visited once for each phase, so that no list of them is kept. */

#include "repair/apply.h"

#include "core/base/checked.h"
#include "repair/journal_parts.h"

struct apply {
    struct q2_file *image, *overlay;
    uint64_t size_before;  /* of the image, bytes */
    q2_phase_of *phase_of; /* may be NULL */
    void *phase_data;
    enum q2_apply_phase phase; /* that is being written */
    bool wrote;                /* in this phase */
    struct q2_error *err;      /* never NULL */
};

static int
write_piece(struct apply *apply, const struct q2_edit *edit, uint64_t offset, uint64_t end)
{
    apply->wrote = true;
    if (!edit->bytes)
        return q2_file_punch(apply->image, offset, end - offset, apply->err);
    return q2_journal_put(apply->image, offset, edit->bytes + (offset - edit->offset), end - offset,
                          apply->err);
}

/* Write the parts of an edit that belong to this phase, each in one go. */
static int
write_edit(const struct q2_edit *edit, void *data)
{
    struct apply *apply = data;
    uint64_t end = edit->offset + edit->length;
    if (!edit->bytes) /* what is new reads as zeros already */
        end = q2_min(end, apply->size_before);
    uint64_t start = edit->offset; /* of what belongs to this phase and is not written yet */
    for (uint64_t offset = start, next; offset < end; offset = next) {
        enum q2_apply_phase phase = Q2_PHASE_NEW;
        next = end;
        if (apply->phase_of)
            phase = apply->phase_of(apply->phase_data, offset, &next);
        next += (Q2_JOURNAL_SECTOR - next % Q2_JOURNAL_SECTOR) % Q2_JOURNAL_SECTOR;
        if (next <= offset || next > end)
            next = end;
        if (phase != apply->phase) {
            int rc = start < offset ? write_piece(apply, edit, start, offset) : 0;
            if (rc < 0)
                return rc;
            start = next;
        }
    }
    return start < end ? write_piece(apply, edit, start, end) : 0;
}

static int
write_phase(struct apply *apply, enum q2_apply_phase phase)
{
    apply->phase = phase;
    apply->wrote = false;
    int rc = q2_overlay_visit(apply->overlay, write_edit, apply);
    if (rc == Q2_ERR_NOMEM && apply->err->code != rc)
        q2_error_set(apply->err, rc, "%s: no memory to write a repair", apply->image->name);
    if (rc == 0 && apply->wrote)
        rc = q2_file_flush(apply->image, apply->err);
    return rc;
}

static int
write_all(struct apply *apply)
{
    uint64_t size;
    int rc = q2_file_size(apply->overlay, &size, apply->err);
    if (rc == 0)
        rc = q2_journal_resize(apply->image, size, true, apply->err);
    for (int phase = 0; phase < Q2_PHASE_COUNT && rc == 0; phase++)
        rc = write_phase(apply, (enum q2_apply_phase)phase);
    return rc < 0 ? rc : q2_journal_resize(apply->image, size, false, apply->err);
}

/* Keep the cause, with what that means for the image. */
static int
tell(struct q2_error *err, int code, const struct q2_error *cause, const char *outcome,
     const struct q2_error *second)
{
    return q2_error_set(err, (enum q2_error_code)code, "%.200s: %s%s%.200s", cause->message,
                        outcome, second ? ": " : "", second ? second->message : "");
}

static int
roll_back(struct apply *apply, struct q2_file *journal, int code, bool *ret_needed,
          struct q2_error *err)
{
    struct q2_error second = {0};
    /* It is the same image, still held, so what is in it need not be asked. */
    int rc = q2_journal_undo(journal, apply->image, true, &second);
    *ret_needed = rc < 0;
    if (rc == 0)
        return tell(err, code, apply->err, "the image is as it was before", NULL);
    return tell(err, code, apply->err,
                "the image is half repaired, and has to be rolled back with the undo journal, "
                "because doing so just now failed",
                &second);
}

int
q2_apply(struct q2_file *image, struct q2_file *overlay, struct q2_file *journal, uint64_t now,
         q2_phase_of *phase_of, void *phase_data, bool *ret_needed, struct q2_error *err)
{
    struct q2_error cause = {0};
    struct apply apply = {.image = image,
                          .overlay = overlay,
                          .phase_of = phase_of,
                          .phase_data = phase_data,
                          .err = &cause};
    int rc = q2_file_size(image, &apply.size_before, &cause);
    if (rc == 0)
        rc = q2_journal_write(journal, image, overlay, now, &cause);
    if (rc < 0) {
        *ret_needed = false;
        return tell(err, rc, &cause, "the image has not been touched", NULL);
    }
    rc = write_all(&apply);
    if (rc < 0)
        return roll_back(&apply, journal, rc, ret_needed, err);
    *ret_needed = true;
    /* Rolling back now could be cut short with a journal that says DONE after all. */
    rc = q2_journal_mark(journal, Q2_JOURNAL_DONE, &cause);
    if (rc < 0)
        return tell(err, rc, &cause,
                    "the image is repaired, but its undo journal does not say so, and going by it "
                    "rolls the repair back",
                    NULL);
    return 0;
}

int
q2_apply_resume(struct q2_file *image, struct q2_file *journal, bool *ret_rolled_back,
                struct q2_error *err)
{
    struct q2_journal_info info;
    int rc = q2_journal_read(journal, &info, err);
    if (rc == 0 && info.state == Q2_JOURNAL_APPLYING)
        rc = q2_journal_undo(journal, image, false, err);
    if (rc == 0)
        *ret_rolled_back = info.state == Q2_JOURNAL_APPLYING;
    return rc;
}
