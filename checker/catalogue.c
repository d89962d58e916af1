/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* The table of problems.def as data, and the words for its columns. Everything that the program
 * says about a class of problems is said here, once. */

#include "checker/catalogue.h"

static const struct q2_catalogue_entry entries[] = {
#define Q2_PROBLEM(name, id, pass, severity, impact, repair, sentence)                            \
    {#name,   id, Q2_PASS_##pass, Q2_SEVERITY_##severity, Q2_IMPACT_##impact, Q2_REPAIR_##repair, \
     sentence},
#include "core/format/problems.def"
#undef Q2_PROBLEM
};

struct words {
    const char *id;
    const char *sentence;
};

static const char *const severities[Q2_SEVERITY_COUNT] = {
    [Q2_SEVERITY_CORRUPTION] = "corruption",
    [Q2_SEVERITY_LEAK] = "leak",
    [Q2_SEVERITY_ERROR] = "error",
    [Q2_SEVERITY_SUSPICIOUS] = "suspicious",
    [Q2_SEVERITY_NOTE] = "note",
};

static const struct words passes[Q2_PASS_COUNT] = {
    [Q2_PASS_HEADER] = {"header", "Every field of the header is held against the format and the "
                                  "size of the file."},
    [Q2_PASS_EXTENSIONS] = {"extensions", "The header extensions are read and held against the "
                                          "header."},
    [Q2_PASS_REFCOUNTS] = {"refcounts", "The refcount table is read and each refcount block is "
                                        "located."},
    [Q2_PASS_SNAPSHOTS] = {"snapshots", "The snapshot table is read and each snapshot's fields are "
                                        "checked."},
    [Q2_PASS_MAP] = {"map", "The L1 and L2 tables of the active disk and of all snapshots are "
                            "checked, entry by entry."},
    [Q2_PASS_BITMAPS] = {"bitmaps", "The directory and the tables of the dirty bitmaps are "
                                    "checked."},
    [Q2_PASS_ENCRYPTION] = {"encryption", "The structure of the LUKS header is checked, which "
                                          "needs no key."},
    [Q2_PASS_REFERENCES] = {"references", "The references to each cluster are counted and compared "
                                          "with the refcounts of the image."},
    [Q2_PASS_PAYLOAD] = {"payload", "With --deep all guest data is read, and compressed clusters "
                                    "are decoded."},
    [Q2_PASS_CHAIN] = {"chain", "With --chain the backing files and the external data file are "
                                "looked at."},
};

static const struct words impacts[Q2_IMPACT_COUNT] = {
    [Q2_IMPACT_LOST_DATA] = {"lost-data", "Guest data is still in the file but can no longer be "
                                          "reached."},
    [Q2_IMPACT_UNREADABLE] = {"unreadable", "The guest range that is affected cannot be read."},
    [Q2_IMPACT_WRONG_DATA] = {"wrong-data", "The guest may read or overwrite bytes that are not "
                                            "its own."},
    [Q2_IMPACT_KEYS] = {"keys", "Encrypted data may no longer be unlocked."},
    [Q2_IMPACT_SHARED_WRITE] = {"shared-write", "Nothing is lost yet, but the next write may "
                                                "change a snapshot or other data."},
    [Q2_IMPACT_AT_RISK] = {"at-risk", "Nothing is lost yet, but the next write to the image may "
                                      "overwrite data or metadata in use."},
    [Q2_IMPACT_SNAPSHOTS] = {"snapshots", "Snapshots are affected; the active disk is not."},
    [Q2_IMPACT_CANNOT_OPEN] = {"cannot-open", "Software refuses to open the image; the guest data "
                                              "in it is not touched by that."},
    [Q2_IMPACT_CANNOT_WRITE] = {"cannot-write", "Software opens the image for reading only."},
    [Q2_IMPACT_BITMAPS] = {"bitmaps", "Guest data is not affected, but dirty bitmaps are: the next "
                                      "incremental backup must be a full one."},
    [Q2_IMPACT_SPACE] = {"space", "Guest data is not affected; space in the file is wasted."},
    [Q2_IMPACT_NONE] = {"none", "Guest data is not affected."},
};

static const struct words repairables[Q2_REPAIR_COUNT] = {
    [Q2_REPAIR_CERTAIN] = {"certain", "It can be repaired: the right state follows from the rest "
                                      "of the image."},
    [Q2_REPAIR_LIKELY] = {"likely", "It can be repaired where other structures of the image show "
                                    "what the right state is."},
    [Q2_REPAIR_SALVAGE] = {"salvage", "It cannot be repaired in place; what is readable can be "
                                      "copied to a new image."},
    [Q2_REPAIR_MANUAL] = {"manual", "Somebody has to decide what the right state is."},
    [Q2_REPAIR_NOT_NEEDED] = {"not-needed", "Nothing needs to be done."},
};

const struct q2_catalogue_entry *
q2_catalogue(enum q2_problem problem)
{
    return &entries[problem];
}

bool
q2_problem_is_about_refcounts(enum q2_problem problem)
{
    switch (problem) {
    case Q2_PROBLEM_CLUSTER_LEAKED:
    case Q2_PROBLEM_REFCOUNT_TOO_HIGH:
    case Q2_PROBLEM_REFCOUNT_TOO_LOW:
    case Q2_PROBLEM_REFCOUNT_ZERO:
    case Q2_PROBLEM_REFCOUNT_OVERFLOW:
    case Q2_PROBLEM_REFCOUNT_BEYOND_END:
    case Q2_PROBLEM_L1_COPIED_SET:
    case Q2_PROBLEM_L1_COPIED_CLEAR:
    case Q2_PROBLEM_L2_COPIED_SET:
    case Q2_PROBLEM_L2_COPIED_CLEAR:
        return true;
    default:
        return false;
    }
}

const char *
q2_severity_id(enum q2_severity severity)
{
    return severities[severity];
}

const char *
q2_pass_id(enum q2_pass pass)
{
    return passes[pass].id;
}

const char *
q2_impact_id(enum q2_impact impact)
{
    return impacts[impact].id;
}

const char *
q2_repairable_id(enum q2_repairable repair)
{
    return repairables[repair].id;
}

const char *
q2_pass_sentence(enum q2_pass pass)
{
    return passes[pass].sentence;
}

const char *
q2_impact_sentence(enum q2_impact impact)
{
    return impacts[impact].sentence;
}

const char *
q2_repairable_sentence(enum q2_repairable repair)
{
    return repairables[repair].sentence;
}
