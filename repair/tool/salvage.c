/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* Copying what can be read to a new image. */

#include "checker/console/say.h"
#include "repair/tool/commands.h"

int
command_salvage(const struct options *options)
{
    say_error(options->image, "--salvage is not there yet");
    return Q2_EXIT_INCOMPLETE;
}
