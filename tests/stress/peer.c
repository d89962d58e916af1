/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* What QEMU thinks of an image: `qemu-img check` finds nothing, `qemu-img compare` sees the model,
 * `qemu-img info` lists the snapshots. The files are written into a folder for that. */

#include "tests/stress/peer.h"

#include <stdlib.h>
#include <string.h>

/* Run a command line in the folder, which is quoted; true where it exits with 0. Otherwise what it
 * said is the failure. */
bool
peer_command(struct run *run, const char *folder, const char *command)
{
    char line[2048], said[600];
    snprintf(line, sizeof line, "cd '%s' && %s 2>&1", folder, command);
    FILE *pipe = popen(line, "r");
    if (!pipe)
        return fail(run, "no shell");
    size_t got = fread(said, 1, sizeof said - 1, pipe);
    said[got] = '\0';
    while (fgetc(pipe) != EOF)
        ;
    return pclose(pipe) == 0 || fail(run, "%s: %s", command, said);
}

bool
peer_write(const char *folder, const char *name, const void *bytes, size_t length)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "wb");
    bool fine = out && fwrite(bytes, 1, length, out) == length;
    return out && fclose(out) == 0 && fine;
}

/* How QEMU is told of the image; `snapshot` NULL: the active state. */
static void
describe(const struct run *run, const char *snapshot, char *text, size_t size)
{
    char secret[160] = "";
    if (run->params.crypt)
        snprintf(secret, sizeof secret, "--object secret,id=s,format=raw,file=phrase ");
    snprintf(text, size, "%s%s%s%s%s", secret, snapshot ? "-l snapshot.name=" : "",
             snapshot ? snapshot : "", snapshot ? " " : "",
             run->params.crypt
                 ? "--image-opts driver=qcow2,file.filename=image,encrypt.key-secret=s"
                 : "-f qcow2 image");
}

static bool
compare(struct run *run, const char *folder)
{
    char image[512], line[1024];
    const struct state *active = &run->model.active;
    if (!peer_write(folder, "model", active->disk, active->size))
        return fail(run, "no space for the model");
    describe(run, NULL, image, sizeof image);
    /* With encryption both are described by options. */
    snprintf(line, sizeof line, "qemu-img compare %s%s %s", run->params.crypt ? "" : "-F raw ",
             image, run->params.crypt ? "driver=raw,file.filename=model" : "model");
    return peer_command(run, folder, line);
}

/* Each snapshot by way of a raw copy. */
static bool
compare_snapshots(struct run *run, const char *folder)
{
    const struct model *model = &run->model;
    for (unsigned i = 0; i < model->snapshot_count; i++) {
        const struct kept *kept = &model->snapshots[i];
        char image[512], line[1024];
        if (kept->state.size != model->active.size)
            continue; /* it reads as much as the active disk has */
        describe(run, kept->name, image, sizeof image);
        snprintf(line, sizeof line, "qemu-img convert -O raw %s copy && cmp copy model", image);
        if (!peer_write(folder, "model", kept->state.disk, kept->state.size) ||
            !peer_command(run, folder, line))
            return fail(run, "snapshot %s", kept->name);
    }
    return true;
}

bool
verify_peer(struct run *run, const char *folder)
{
    char line[1024], image[512];
    if (!world_dump(&run->world, folder) ||
        !peer_write(folder, "phrase", run->secret.bytes, run->secret.length))
        return fail(run, "%s: no space for the image", folder);
    describe(run, NULL, image, sizeof image);
    snprintf(line, sizeof line, "qemu-img check %s", image);
    if (!peer_command(run, folder, line))
        return false;
    snprintf(line, sizeof line, "qemu-img info %s", image);
    return peer_command(run, folder, line) && compare(run, folder) &&
           compare_snapshots(run, folder);
}
