/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The qcow2kit authors */

/* How secrets get in; tool.h has how they are found. */

#ifndef Q2_TOOL_SECRETS_H
#define Q2_TOOL_SECRETS_H

#include "core/tool/tool.h"

/* --object secret,id=NAME,file=PATH[,format=raw|base64]. *secrets starts as NULL. */
bool tool_secrets_add_object(struct tool_secrets **secrets, const char *text);
/* --secret-fd id=NAME,fd=NUMBER[,format=raw|base64]. */
bool tool_secrets_add_fd(struct tool_secrets **secrets, const char *text);
/* Wipes them. NULL is allowed. */
void tool_secrets_free(struct tool_secrets *secrets);

#endif
